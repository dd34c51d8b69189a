"""Keep dbt tables up to date on Dagster: every partition as soon as its inputs are ready, and no sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2.definitions.build import build_defs
    from t2.definitions.component import T2ProjectComponent
    from t2.runtime.parsing import load_project

__all__ = ["T2ProjectComponent", "build_defs", "load_project"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command line must not wait for Dagster.
    if name == "load_project":
        from t2.runtime.parsing import load_project

        return load_project
    if name == "build_defs":
        from t2.definitions.build import build_defs

        return build_defs
    if name == "T2ProjectComponent":
        from t2.definitions.component import T2ProjectComponent

        return T2ProjectComponent
    raise AttributeError(f"module 't2' has no attribute {name!r}")
