"""A warehouse server as a process, kept up as `t2 dev` does it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from t2.runtime.duckdb_client import find_server
from t2.runtime.home import only_family, open_home


class RunningServer:
    """The server of a project; this process holds the family's lock, so clients wait for a restart."""

    def __init__(self, project_dir: Path, sockets: Path) -> None:
        self.project_dir = project_dir
        self.log = sockets / "log"
        self._socket = sockets / "warehouse"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "t2.runtime.duckdb_server", "--project-dir", str(self.project_dir)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--socket", str(self._socket)], cwd=self.project_dir, stderr=log
            )
        deadline = time.monotonic() + 20
        while (found := find_server(self.project_dir)) is None or found.pid != self.process.pid:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def text(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(10)


@contextmanager
def running_server(project_dir: Path) -> Iterator[RunningServer]:
    with ExitStack() as stack:
        stack.enter_context(only_family(open_home(project_dir)))
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t2-")))
        server = RunningServer(project_dir, sockets)
        try:
            yield server
        finally:
            server.stop()
