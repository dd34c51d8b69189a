"""Keep dbt tables up to date on Dagster: every partition as soon as its inputs are ready, and no sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2.runtime.parsing import load_project

__all__ = ["load_project"]


def __getattr__(name: str) -> Any:
    if name == "load_project":
        from t2.runtime.parsing import load_project

        return load_project
    raise AttributeError(f"module 't2' has no attribute {name!r}")
