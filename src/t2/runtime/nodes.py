"""What became of one dbt node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class NodeResult:
    """What became of one node. `status` and `message` are dbt's own; times are UTC.

    `status` is success, error or skipped, for tests pass, warn, fail or error. `failures` counts a test's
    failing rows. `rows_affected` is None where the adapter does not tell. `warehouse_seconds` is the part of
    `execution_seconds` that statements took; the rest is dbt's own.
    """

    unique_id: str
    status: str
    message: str
    started_at: datetime
    completed_at: datetime
    execution_seconds: float
    warehouse_seconds: float
    failures: int | None = None
    rows_affected: int | None = None
    compiled_code: str | None = None
    adapter_response: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the node was built, or the test found nothing."""
        return self.status in ("success", "pass")
