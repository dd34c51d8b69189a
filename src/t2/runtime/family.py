"""The processes of one project on one machine, as one family that starts, restarts and ends together.

    supervisor (this process) ── guard           kills the others when the supervisor is gone
                              ├─ warehouse       has the DuckDB files open, for all the others
                              ├─ code server     Dagster's, with the project's definitions
                              ├─ worker          the same definitions, warm; its children are the runs
                              ├─ daemon          sensors, queue, monitoring
                              └─ web server

Each child leads a process group of its own, so a child and all it started end with one signal, and Ctrl-C
reaches the supervisor only. Runs die with the worker; the daemon then marks them failed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from t2.errors import ConfigError, T2Error
from t2.runtime import guard
from t2.runtime.edits import Edits
from t2.runtime.handover import Heartbeat
from t2.runtime.home import Home, has_storage, only_family, open_home, uses_worker
from t2.runtime.supervised import Child, Program

TICK_SECONDS = 0.1
STOP_SECONDS = 3.0
# How often the project's files are compared: 2,000 files take 20 ms.
EDITS_SECONDS = 1.0
LOCATION = "t2"
LOCATION_MODULE = "t2.definitions.location"


class Family:
    """Start and keep up the processes of a project; a context manager that starts, waits and stops.

    `module` (and `attribute`) define the code location; by default the dbt project alone does. The code
    location is loaded again when the dbt project's files were edited.
    `report` is called with one line for each thing worth telling. Raises ConfigError if a family
    of the project runs already or the port is taken.
    """

    def __init__(
        self,
        project_dir: Path,
        *,
        webserver: bool = True,
        host: str = "127.0.0.1",
        port: int = 3000,
        module: str = LOCATION_MODULE,
        attribute: str | None = None,
        environ: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.home: Home = open_home(project_dir, environ)
        self.url = f"http://{host}:{port}" if webserver else None
        self._address = (host, port) if webserver else None
        self._module = module
        self._attribute = attribute
        self._environ = dict(os.environ if environ is None else environ)
        self._report = report
        self._children: list[Child] = []
        self._edits: Edits | None = None
        self._reloading: subprocess.Popen[bytes] | None = None
        self._reload_log = self.home.logs / "reload.log"
        self._resources = ExitStack()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="t2-family", daemon=True)

    def __enter__(self) -> Family:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def processes(self) -> Mapping[str, int]:
        """The pids of the children that run, by name."""
        return {child.program.name: child.pid for child in self._children if child.pid}

    @property
    def starting(self) -> list[str]:
        """The names of the children that are not ready."""
        return [child.program.name for child in self._children if not child.ready]

    def start(self) -> None:
        """Start the family; returns before it is ready."""
        self._resources.enter_context(only_family(self.home))
        _check_port(self._address)
        sockets = self._make_sockets()
        self.home.workspace.write_text(_workspace(sockets / "code"))
        self._guard = _Guard()
        self._resources.callback(self._guard.dismiss)
        for log in self.home.logs.glob("*.log*"):
            log.unlink()
        self._child_environ = environ = {
            **self._environ,
            "DAGSTER_HOME": str(self.home.dagster),
            "T2_PROJECT_DIR": str(self.home.project),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if not has_storage(self.home):
            self._make_storage(environ)
        self._children = [
            Child(program, self.home, environ, self._report, self._guard.follow)
            for program in self._programs(sockets / "code")
        ]
        self._reload = self._reload_command(sockets / "code")
        self._supervisor.start()

    def _make_storage(self, environ: Mapping[str, str]) -> None:
        """Have one process make Dagster's tables before several open them."""
        command = [sys.executable, "-m", "t2.definitions.storage"]
        made = subprocess.run(command, env=dict(environ), capture_output=True, text=True, check=False)
        if made.returncode:
            last = "\n".join(made.stderr.rstrip().splitlines()[-12:])
            raise T2Error(f"Dagster's storage cannot be made:\n{last}", where=str(self.home.config))

    def _make_sockets(self) -> Path:
        """Make the short private directory of the code server's socket, and remove a killed family's."""
        record: dict[str, Any] = json.loads(self.home.family.read_text())
        note = self.home.state / "sockets"
        if note.exists() and Path(left := note.read_text()).name.startswith("t2-"):
            shutil.rmtree(left, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(prefix="t2-"))
        note.write_text(str(directory))
        self.home.family.write_text(json.dumps({**record, "url": self.url}))
        self._resources.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def _programs(self, code_socket: Path) -> list[Program]:
        project = str(self.home.project)
        target = ["--module", self._module, "--working-directory", project]
        target += ["--attribute", self._attribute] if self._attribute else []
        server = [
            "dagster",
            "code-server",
            "start",
            "--socket",
            str(code_socket),
            "--location-name",
            LOCATION,
        ]
        worker = ["t2.definitions.worker", "--location", LOCATION, "--project-dir", project, *target]
        daemon = ["t2.definitions.daemon", "--workspace", str(self.home.workspace)]
        warehouse = ["t2.runtime.duckdb_server", "--project-dir", project]
        warehouse += ["--socket", str(code_socket.with_name("warehouse"))]
        programs = [
            Program("warehouse", warehouse, ready="t2 warehouse is ready", notice="t2 warehouse: "),
            Program(
                "code location",
                [*server, *_dagster_target(target)],
                ready="Started Dagster code proxy server",
                broken="Error while importing code",
                has_children=True,
            ),
        ]
        if uses_worker(self.home):
            heartbeat = Heartbeat(self.home.dagster, LOCATION)
            programs.append(Program("worker", worker, ready="t2 worker is ready", hangs=heartbeat.hangs))
        programs.append(Program("daemon", daemon, ready="t2 daemon is ready", after="code location"))
        if self._address:
            web = ["dagster_webserver", "-w", str(self.home.workspace)]
            web += ["-h", self._address[0], "-p", str(self._address[1])]
            programs.append(
                Program("web server", web, ready="Serving dagster-webserver", after="code location")
            )
        return programs

    def _reload_command(self, code_socket: Path) -> list[str]:
        """Return the command that loads the definitions again, once the project itself is in order."""
        command = [sys.executable, "-m", "t2.definitions.reload", "--socket", str(code_socket)]
        if self._module != LOCATION_MODULE:
            return command  # how that module loads the project, it alone knows
        command += ["--project-dir", str(self.home.project)]
        for option, name in (("--profiles-dir", "T2_PROFILES_DIR"), ("--target", "T2_TARGET")):
            if value := self._environ.get(name):
                command += [option, value]
        return command

    def _look_for_edits(self) -> None:
        """Start a reload if files of the project changed; report what came of the one that has ended."""
        if self._edits is None:  # not before all have loaded: that installs T2's package for dbt
            profiles = self._environ.get("T2_PROFILES_DIR")
            self._edits = Edits(self.home.project, Path(profiles) if profiles else None)
        elif self._reloading is None:
            if self._edits.settled():
                with self._reload_log.open("wb") as log:
                    self._reloading = subprocess.Popen(
                        self._reload,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=self.home.project,
                        env=self._child_environ,
                        start_new_session=True,
                    )
                self._guard.follow("+", self._reloading.pid)
        elif self._reloading.poll() is not None:
            self._guard.follow("-", self._reloading.pid)
            self._reloading = None
            self._report(self._reload_log.read_text(errors="replace").rstrip())

    def _supervise(self) -> None:
        look_at = 0.0
        while not self._stopping.wait(TICK_SECONDS):
            ready = {child.program.name for child in self._children if child.ready}
            for child in self._children:
                if child.program.after is None or child.program.after in ready or child.pid:
                    child.look()
            self._guard.look([child.pid for child in self._children if child.pid])
            if len(ready) == len(self._children):
                self._ready.set()
                if time.monotonic() >= look_at:
                    self._look_for_edits()
                    look_at = time.monotonic() + EDITS_SECONDS

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until every process is ready; T2Error if one is not in time."""
        if not self._ready.wait(timeout):
            raise T2Error(
                f"not ready after {timeout:g} s: {', '.join(self.starting)}", where=str(self.home.logs)
            )

    def stop(self) -> None:
        """End every process: asked first, killed after some seconds."""
        self._stopping.set()
        if self._supervisor.ident:
            self._supervisor.join()
        for child in reversed(self._children):
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while any(child.alive for child in self._children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in self._children:
            # Also what a child left in its group when it ended in good order.
            child.signal(signal.SIGKILL)
            child.wait()
        if self._reloading:
            with suppress(ProcessLookupError):
                os.killpg(self._reloading.pid, signal.SIGKILL)
            self._reloading.wait()
        self._resources.close()


class _Guard:
    """The process that outlives a killed supervisor just long enough to kill its children."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process = self._open()

    def _open(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def follow(self, change: str, group: int) -> None:
        """Add ("+") or remove ("-") a process group."""
        (self._groups.add if change == "+" else self._groups.discard)(group)
        self._send(f"{change}{group}\n")

    def look(self, groups: list[int]) -> None:
        """Replace a guard that was killed."""
        if self._process.poll() is not None:
            self._process = self._open()
            for group in groups:
                self._send(f"+{group}\n")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `look` replaces it
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """End the guard."""
        for group in list(self._groups):
            self.follow("-", group)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def _dagster_target(target: list[str]) -> list[str]:
    """Translate the worker's options into those of Dagster's command line."""
    names = {"--module": "--module-name", "--working-directory": "--working-directory"}
    return [names.get(word, word) for word in target]


def _workspace(code_socket: Path) -> str:
    server = {"host": "localhost", "socket": str(code_socket), "location_name": LOCATION}
    # JSON is YAML.
    return json.dumps({"load_from": [{"grpc_server": server}]}, indent=2)


def _check_port(address: tuple[str, int] | None) -> None:
    if address is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigError(
                f"{address[0]}:{address[1]} cannot be used: {error.strerror}", hint="take another with --port"
            ) from error
