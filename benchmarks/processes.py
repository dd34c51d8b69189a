"""What the processes of a family use while something is measured."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

LOOK_SECONDS = 2.0


class Watch:
    """Adds up CPU seconds by kind of process, and remembers the most memory, while the block runs.

    Memory is PSS: pages that several processes share count once. A process that lives shorter than the
    2 s between two looks counts with its parent, once that has waited for it.
    """

    def __init__(self, project: str) -> None:
        family = json.loads((Path(project) / ".t2" / "family.json").read_text())
        self._root = psutil.Process(family["pid"])
        self._seconds: dict[int, tuple[str, float]] = {}
        self._base: dict[int, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_gib = 0.0

    def __enter__(self) -> Watch:
        self._look()
        self._base = {pid: seconds for pid, (_, seconds) in self._seconds.items()}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    @property
    def cpu(self) -> dict[str, float]:
        """CPU seconds by kind of process."""
        total: Counter[str] = Counter()
        for pid, (kind, seconds) in self._seconds.items():
            total[kind] += seconds - self._base.get(pid, 0.0)
        return {kind: round(seconds, 1) for kind, seconds in total.most_common()}

    def _watch(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        memory = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            with suppress(psutil.Error):
                times = process.cpu_times()
                own = times.user + times.system
                kind = _kind(process)
                if kind == "worker":  # its children are the runs, most of which no look catches
                    runs = times.children_user + times.children_system
                    self._seconds[-process.pid] = ("runs", runs)
                    self._base.setdefault(-process.pid, runs)
                if kind != "runs":
                    self._seconds[process.pid] = (kind, own)
                memory += process.memory_full_info().pss
        self.peak_gib = max(self.peak_gib, round(memory / 2**30, 2))


def _kind(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    for mark, kind in (
        ("t2.definitions.worker", "worker"),
        ("t2.definitions.daemon", "daemon"),
        ("duckdb_server", "warehouse"),
        ("api grpc", "code server"),
        ("code-server", "code server"),
    ):
        if mark in command:
            parent = process.parent()
            is_run = kind == "worker" and parent is not None and mark in " ".join(parent.cmdline())
            return "runs" if is_run else kind
    return "others"
