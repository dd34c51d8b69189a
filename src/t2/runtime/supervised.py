"""One child process of the family: started, watched through its log, restarted when it dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from t2.runtime.home import Home

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# Alive for so long, a process that dies again starts over with the short wait.
STEADY_SECONDS = 60.0
LOG_LINES = 12
# A log that has grown to this size begins again; the one before is kept beside it.
LOG_BYTES = 10 * 2**20


@dataclass(frozen=True)
class Program:
    """What to run (`python -m` and the arguments) and how its log tells that it is `ready` or `broken`.

    What follows `notice` in a line of the log is reported whenever it comes.
    `after` names the program that has to be ready first. `has_children`: it is of no use without
    the process that it starts itself. `hangs` tells, at a time in monotonic seconds, whether it lives and
    does nothing; it is then killed.
    """

    name: str
    command: Sequence[str]
    ready: str
    broken: str | None = None
    notice: str | None = None
    after: str | None = None
    has_children: bool = False
    hangs: Callable[[float], bool] | None = None

    @property
    def log(self) -> str:
        """The name of its log file."""
        return f"{self.name.replace(' ', '_')}.log"


class Child:
    """A program as a process that is started again whenever it ends.

    `follow` is told of each process group that begins ("+") and ends ("-").
    """

    def __init__(
        self,
        program: Program,
        home: Home,
        environ: Mapping[str, str],
        report: Callable[[str], None],
        follow: Callable[[str, int], None],
    ) -> None:
        self.program = program
        self.ready = False
        self._log = home.logs / program.log
        self._directory = home.project
        self._environ = environ
        self._report = report
        self._follow = follow
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_at = 0.0
        self._wait = FIRST_WAIT_SECONDS
        self._seen: IO[str] | None = None
        self._had_children = False
        self._childless_since: float | None = None

    @property
    def pid(self) -> int:
        """The process's pid, which is also its group; 0 while there is none."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def look(self) -> None:
        """Start the process if it is due, note that it is ready, and deal with its death."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
        elif self._process.poll() is not None:
            self._died(now)
        else:
            self._read_log(now)
            if self.ready:
                self._bound_log()
                self._check_life(now)
                if self.program.has_children:
                    self._check_children(now)

    def _start(self, now: float) -> None:
        with self._log.open("ab") as log:
            self._seen = self._log.open(errors="replace")
            self._seen.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.program.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=dict(self._environ),
                start_new_session=True,
            )
        self._started = now
        self._had_children, self._childless_since = False, None
        self._follow("+", self._process.pid)

    def _died(self, now: float) -> None:
        assert self._process is not None
        self.signal(signal.SIGKILL)  # what it started is of no use without it
        self._follow("-", self._process.pid)
        if now - self._started > STEADY_SECONDS:
            self._wait = FIRST_WAIT_SECONDS
        self._report(
            f"{self.program.name} ended ({_how(self._process.returncode)}); "
            f"starting again in {self._wait:g} s\n{self._last_lines()}"
        )
        self._start_at = now + self._wait
        self._wait = min(self._wait * 2, LONGEST_WAIT_SECONDS)
        self._process = None
        self.ready = False

    def _read_log(self, now: float) -> None:
        assert self._seen is not None
        if self.ready and not self.program.notice:
            return
        for line in self._seen:
            if self.program.notice and self.program.notice in line:
                self._report(line.partition(self.program.notice)[2].rstrip())
            if self.program.broken and self.program.broken in line:
                self._report(f"{self.program.name} cannot be loaded\n{self._last_lines()}")
            if self.program.ready in line and not self.ready:
                self.ready = True
                self._report(f"{self.program.name} ready after {now - self._started:.1f} s")
                if not self.program.notice:
                    self._seen.close()
                    return

    def _bound_log(self) -> None:
        """Begin the log again when it is long: the process appends, so it writes on at the new beginning."""
        if self._log.stat().st_size > LOG_BYTES:
            shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
            os.truncate(self._log, 0)
            if self.program.notice and self._seen is not None:
                self._seen.seek(0)

    def _check_life(self, now: float) -> None:
        if self.program.hangs and self.program.hangs(now):
            self._report(f"{self.program.name} does not answer any more; killing it")
            self.signal(signal.SIGKILL)

    def _check_children(self, now: float) -> None:
        """End a process that has lost its own child: Dagster's proxy does not notice."""
        if (children := _has_children(self.pid)) is None:
            return
        self._had_children = self._had_children or children
        if children or not self._had_children:
            self._childless_since = None
        elif self._childless_since is None:
            self._childless_since = now
        elif now - self._childless_since > 1:
            self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all it started."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def wait(self) -> None:
        """Wait for the end of the process."""
        if self._process is not None:
            self._process.wait()

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").rstrip().splitlines()[-LOG_LINES:]
        return "\n".join([*(f"  | {line}" for line in lines), f"  log: {self._log}"])


def _has_children(pid: int) -> bool | None:
    """Whether the process has children that live; None where the kernel does not tell."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
        return any(_lives(child) for child in children)
    except OSError:
        return None


def _lives(pid: str) -> bool:
    """Whether a process has not ended; Dagster's proxy does not wait for a server that it has replaced."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
