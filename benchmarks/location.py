"""Load a code location until it could answer: python benchmarks/location.py t2|stock PROJECT."""

from __future__ import annotations

import sys
from pathlib import Path


def load(flavour: str, project: Path) -> None:
    """Build the definitions and the repository's snapshot; the imports are here because they are measured."""
    from benchmarks._dagster import repository_snapshot

    if flavour == "t2":
        from t2.definitions.build import build_defs

        repository_snapshot(build_defs(project))
    else:
        from benchmarks.stock import definitions

        repository_snapshot(definitions(project))


if __name__ == "__main__":
    load(sys.argv[1], Path(sys.argv[2]))
