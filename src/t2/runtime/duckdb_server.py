"""`python -m t2.runtime.duckdb_server`: the one process that has a family's DuckDB files open.

It executes what the others send (`duckdb_client.py`): a thread and a cursor of DuckDB's for each client,
through dbt-duckdb's own environment, so settings, extensions, attached databases, secrets, plugins and Python
models work as they do in dbt. A client that hangs up, however it ended, has its statement interrupted, its
transaction rolled back, and its named locks freed.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hmac import compare_digest
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, NoReturn

from t2.runtime.duckdb_client import ServerRecord, announce
from t2.runtime.duckdb_file import ClientGoneError, OwnedFile

READY = "t2 warehouse is ready"
# What begins with this in the log is said in the family's terminal, too.
NOTICE = "t2 warehouse: "
# Rows that come with the answer to a statement: most answers need no second exchange.
FIRST_ROWS = 256
SHUT_SECONDS = 2.0
LOOK_SECONDS = 0.2
AGAIN_SECONDS = 0.02

logger = logging.getLogger("t2.warehouse")


class Server:
    """Serves clients until the process ends."""

    def __init__(self, path: Path, key: str) -> None:
        path.unlink(missing_ok=True)
        self._listener = Listener(str(path), family="AF_UNIX", backlog=128)
        self._key = key.encode()
        self._files: dict[Path, OwnedFile] = {}
        self._clients: set[Connection] = set()
        self._guard = threading.Lock()
        self._locks = Locks()
        self._watch = Watch()

    def serve(self) -> NoReturn:
        """Give each client a thread."""
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # no descriptor is free: the client waits
                logger.exception("a client could not be let in")
                time.sleep(LOOK_SECONDS)
                continue
            threading.Thread(target=self._client, args=(connection,), daemon=True).start()

    def shut(self) -> None:
        """Hang up on every client, which ends its statement, and close the files."""
        with self._guard:
            for connection in self._clients:
                with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)
        for file in list(self._files.values()):
            file.shut(SHUT_SECONDS)

    def _client(self, connection: Connection) -> None:
        with self._guard:
            self._clients.add(connection)
        try:
            # A client that is gone is told nothing.
            with suppress(OSError, EOFError, ClientGoneError):
                if compare_digest(connection.recv_bytes(256), self._key):
                    what, argument = connection.recv()
                    (self._hold if what == "locks" else self._session)(connection, argument)
        finally:
            with self._guard:
                self._clients.discard(connection)
            connection.close()

    def _hold(self, connection: Connection, names: list[str]) -> None:
        def alive() -> bool:
            return not connection.poll(0)

        with self._locks.held(names, alive):
            connection.send((True, None))
            connection.recv()  # the end of file

    def _session(self, connection: Connection, pickled: bytes) -> None:
        def alive() -> bool:
            return not connection.poll(0)

        try:
            credentials = pickle.loads(pickled)  # imports dbt-duckdb with the first client
            with self._file(Path(credentials.path)).session(credentials, alive) as session:
                connection.send((True, None))
                while True:
                    request = connection.recv()
                    interrupt = session.handle.cursor().interrupt
                    with session.working(), self._watch.over(connection, interrupt):
                        answer = _answer(session.environment, session.handle, *request)
                    connection.send(answer)
        except (OSError, EOFError, ClientGoneError):
            raise
        except Exception as error:  # the file cannot be opened: what DuckDB says of it is the client's
            logger.warning("a session could not begin: %s", error)
            connection.send(_failure(error))

    def _file(self, path: Path) -> OwnedFile:
        with self._guard:
            if path not in self._files:
                self._files[path] = OwnedFile(path, _notice)
            return self._files[path]


def _answer(environment: Any, handle: Any, what: str, *arguments: Any) -> tuple[bool, Any]:
    """Do what a client asks; return whether it was done, and the result or the error."""
    try:
        return True, REQUESTS[what](environment, handle, *arguments)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> tuple[bool, tuple[str, str]]:
    from t2.runtime._dbt.duckdb import message_of

    return False, message_of(error)


def _execute(environment: Any, handle: Any, sql: str, bindings: list[Any] | None) -> Any:
    cursor = handle.cursor()
    cursor.execute(sql, bindings)
    if cursor.description is None:
        return None, cursor.rowcount, [], False
    described = [(name, str(kind), *others) for name, kind, *others in cursor.description]
    rows = cursor.fetchmany(FIRST_ROWS)
    return described, cursor.rowcount, rows, len(rows) == FIRST_ROWS


def _fetch(environment: Any, handle: Any, size: int | None) -> Any:
    if size is None:
        return handle.cursor().fetchall(), False
    rows = handle.cursor().fetchmany(size)
    return rows, len(rows) == size


def _rollback(environment: Any, handle: Any) -> None:
    handle.rollback()


def _python(environment: Any, handle: Any, model: dict[str, Any], code: str) -> None:
    environment.submit_python_job(handle, model, code)


def _load(environment: Any, handle: Any, plugin: str, source: Any) -> None:
    environment.load_source(plugin, source)


def _store(environment: Any, handle: Any, plugin: str, target: Any) -> None:
    environment.store_relation(plugin, target)


REQUESTS: dict[str, Callable[..., Any]] = {
    "execute": _execute,
    "fetch": _fetch,
    "rollback": _rollback,
    "python": _python,
    "load": _load,
    "store": _store,
}


class Locks:
    """Named locks, several of them taken at once or not at all."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def held(self, names: list[str], alive: Callable[[], bool]) -> Iterator[None]:
        """Wait for all of them while the client is alive; ClientGoneError when it is not any more."""
        wanted = set(names)
        with self._changed:
            while wanted & self._held:
                if not alive():
                    raise ClientGoneError
                self._changed.wait(LOOK_SECONDS)
            self._held |= wanted
        try:
            yield
        finally:
            with self._changed:
                self._held -= wanted
                self._changed.notify_all()


class Watch:
    """A thread that notices when a client hangs up, or says anything, while its statement runs."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._guard = threading.Lock()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @contextmanager
    def over(self, connection: Connection, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call `interrupt` if something comes from the client before the body ends."""
        with self._guard:
            self._selector.register(connection, selectors.EVENT_READ, interrupt)
        try:
            yield
        finally:
            with self._guard, suppress(KeyError):
                self._selector.unregister(connection)

    def _look(self) -> None:
        while True:
            for key, _ in self._selector.select(LOOK_SECONDS):
                with self._guard:
                    if self._selector.get_map().get(key.fileobj) is key:
                        key.data()
                # Again until it ends: it may only be about to begin.
                time.sleep(AGAIN_SECONDS)


def _notice(text: str) -> None:
    logger.warning("%s%s", NOTICE, text)


def main() -> None:
    """Serve until SIGTERM; then interrupt what runs and close the files."""
    parser = argparse.ArgumentParser(prog="python -m t2.runtime.duckdb_server", description=main.__doc__)
    parser.add_argument("--project-dir", type=Path, required=True, help="project that the server is found by")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen, in a private directory")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    started = time.monotonic()
    # Waited for instead of handled: an error that a handler raises is lost where Python ignores errors.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    key = secrets.token_hex()
    server = Server(options.socket, key)
    announce(options.project_dir, ServerRecord.of_this_process(options.socket, key))
    logger.info("%s after %.1f s", READY, time.monotonic() - started)
    threading.Thread(target=server.serve, name="accept", daemon=True).start()
    signal.sigwait(signals)
    server.shut()
    logger.info("ended")
    logging.shutdown()
    # Not through the interpreter's end: threads may still be in DuckDB.
    os._exit(0)


if __name__ == "__main__":
    main()
