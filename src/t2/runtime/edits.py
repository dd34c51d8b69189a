"""Notices that the files of a dbt project were edited, at the cost of one stat a file."""

from __future__ import annotations

from pathlib import Path

from t2.errors import T2Error
from t2.project.inputs import modified, project_settings
from t2.project.profile import find_profiles


class Edits:
    """Compares the files that a parse reads with what they were; `profiles_dir` as in `load_project`."""

    def __init__(self, root: Path, profiles_dir: Path | None) -> None:
        self._root = root
        self._profiles_dir = profiles_dir
        self._known = self._last = self._look()

    def settled(self) -> bool:
        """Whether files changed and have been still since the last call; True once for all the changes."""
        now = self._look()
        still, self._last = now == self._last, now
        if not still or now == self._known:
            return False
        self._known = now
        return True

    def _look(self) -> dict[str, tuple[int, int]]:
        try:
            profiles = find_profiles(self._root, self._profiles_dir)
        except T2Error:
            profiles = self._root
        return modified(self._root, project_settings(self._root), profiles)
