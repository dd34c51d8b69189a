"""The store of parsed projects: `target/t2/<fingerprint>/` holds a Project and dbt's manifest.

An entry is written beside its place and renamed, so it is whole or not there. `target/t2/current` names the
entry that was loaded last.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import pickle
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from t2.project.model import Project

PROJECT = "project.pickle"
MANIFEST = "manifest.msgpack"
KEEP = 5


class Store:
    """The entries of one project directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "target" / "t2"

    def get(self, fingerprint: str) -> Project | None:
        """Return the project with a fingerprint and make it the current one; None if it is not there."""
        entry = self.folder / fingerprint
        try:
            data = (entry / PROJECT).read_bytes()
            digest, _, pickled = data.partition(b"\n")
            if hashlib.sha256(pickled).hexdigest().encode() != digest or not (entry / MANIFEST).is_file():
                return None
            project = _unpickle(pickled)
        except (OSError, pickle.UnpicklingError, AttributeError, ImportError):
            return None
        with contextlib.suppress(OSError):  # an image's file system may be read-only
            os.utime(entry)
            self._point_at(fingerprint)
        return replace(project, root=str(self.root), manifest=str(entry / MANIFEST))

    def path(self, fingerprint: str) -> str:
        """Return where an entry's manifest lies."""
        return str(self.folder / fingerprint / MANIFEST)

    def put(self, project: Project, written: Path) -> None:
        """Turn the directory `written` of `workplace()`, which holds the manifest already, into an entry."""
        pickled = pickle.dumps(project, protocol=pickle.HIGHEST_PROTOCOL)
        digest = hashlib.sha256(pickled).hexdigest().encode()
        (written / PROJECT).write_bytes(digest + b"\n" + pickled)
        entry = self.folder / project.fingerprint
        if entry.exists():
            shutil.rmtree(entry)
        written.rename(entry)

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        """Give a directory beside the entries to write one in; removed unless `put` made it an entry."""
        folder = self.folder / f".new-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the lock that only one parse at a time can have; yield its file descriptor."""
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def sweep(self) -> None:
        """Remove all but the newest entries, and what killed parses left behind; needs the lock."""
        entries = [path for path in self.folder.iterdir() if path.is_dir() and len(path.name) == 64]
        newest_first = sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in (*newest_first[KEEP:], *self.folder.glob(".new-*")):
            shutil.rmtree(path, ignore_errors=True)

    def _point_at(self, fingerprint: str) -> None:
        current = self.folder / "current"
        if current.is_file() and current.read_text() == fingerprint:
            return
        fresh = self.folder / f".current-{uuid.uuid4().hex}"
        fresh.write_text(fingerprint)
        fresh.replace(current)


def _unpickle(pickled: bytes) -> Project:
    """Return the project; without the garbage collector, which triples the time for 12,000 tests."""
    collects = gc.isenabled()
    gc.disable()
    try:
        project: Project = pickle.loads(pickled)
        return project
    finally:
        if collects:
            gc.enable()
