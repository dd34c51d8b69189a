"""Tags by which Dagster's queue keeps to `backfill.concurrency`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

AT_MOST = "t2/at_most_"
# More runs of one table at once than this are not limited.
HIGHEST_LIMIT = 64


def limits(keys: Iterable[dg.AssetKey], concurrency: Callable[[dg.AssetKey], Any]) -> dict[str, str]:
    """Return the tags that limit a run: of tables with the same limit, the first one counts."""
    found: dict[str, str] = {}
    for key in sorted(keys):
        limit = concurrency(key)
        if isinstance(limit, int) and limit <= HIGHEST_LIMIT:
            found.setdefault(f"{AT_MOST}{limit}", key.to_user_string())
    return found
