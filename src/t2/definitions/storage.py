"""`python -m t2.definitions.storage`: make Dagster's tables.

The family runs it before anything else at its very first start. Processes that make the same SQLite file at
the same time leave two versions in it, and nothing can open that file again.
"""

from __future__ import annotations

import dagster as dg

if __name__ == "__main__":
    dg.DagsterInstance.get().dispose()
