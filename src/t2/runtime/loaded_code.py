"""What code a process has loaded, to notice cheaply that it changed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


def current_fingerprint(project_dir: Path) -> str:
    """Return the fingerprint of the newest parsed project, "" before the first parse."""
    try:
        return (project_dir / "target" / "t2" / "current").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class LoadedCode:
    """The project's fingerprint and the imported modules' files below `roots`, as they were when loaded.

    Take the start time and the fingerprint before loading: what changes meanwhile then counts as changed.
    """

    project_dir: Path
    fingerprint: str
    files: Mapping[str, int]

    @classmethod
    def take(cls, project_dir: Path, roots: Iterable[Path], *, fingerprint: str, since: float) -> LoadedCode:
        """Note the modules that are loaded now; `fingerprint` and `since` (epoch seconds) are from before."""
        files = {}
        for file in _module_files(tuple(f"{root.resolve()}{os.sep}" for root in roots)):
            modified = _modified(file)
            # Written while it was being loaded: which of the two texts was read, nobody knows.
            files[file] = -1 if since * 1e9 < modified <= time.time_ns() else modified
        return cls(project_dir, fingerprint, files)

    def change(self) -> str | None:
        """Return what changed since, None if nothing did. Costs one stat a module of the project's own."""
        if current_fingerprint(self.project_dir) != self.fingerprint:
            return "the dbt project"
        return next((file for file, modified in self.files.items() if _modified(file) != modified), None)


def _module_files(roots: tuple[str, ...]) -> list[str]:
    """Return the source files of the imported modules below the roots, installed packages left out."""
    paths = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    installed = f"{os.sep}site-packages{os.sep}"
    return sorted({path for path in paths if path and path.startswith(roots) and installed not in path})


def _modified(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0
