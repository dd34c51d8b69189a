"""The errors that T2 raises, all below one root.

T2Error
├── ConfigError          what an author or operator wrote is wrong
│   └── ProjectError     one or more problems in a dbt project, reported together
├── NotFound             a table, partition or run that was asked for does not exist
├── DbtError             dbt could not parse the project or connect to the warehouse
├── NodeFailed           a dbt node (model, test, seed, snapshot) failed while it ran
└── StorageError         Dagster's or T2's own storage cannot be read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class T2Error(Exception):
    """Say what is wrong, where, and what to do.

    `where` is `file:line`, or a table and partition; `hint` is the remedy.
    """

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n\nhint: {self.hint}" if self.hint else head


class ConfigError(T2Error):
    """What an author or operator wrote is wrong."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a project: `where` is `file:line` relative to the project's root."""

    where: str
    message: str
    hint: str | None = None

    @property
    def position(self) -> tuple[str, int, str]:
        """What problems are sorted by: file, line, message."""
        file, _, line = self.where.rpartition(":")
        return (file, int(line), self.message) if line.isdigit() else (self.where, 0, self.message)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f"\n  hint: {self.hint}" if self.hint else "")


class ProjectError(ConfigError):
    """All the problems of a project at once, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.position))
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''} in the project"
        super().__init__("\n".join([count, *(str(problem) for problem in self.problems)]))


class NotFound(T2Error):
    """A table, partition or run that was asked for does not exist."""


class DbtError(T2Error):
    """dbt could not parse the project or connect to the warehouse; the message is dbt's own."""


class NodeFailed(T2Error):
    """A dbt node failed while it ran; the message is dbt's own, with its newlines.

    `result` is its `runtime.nodes.NodeResult`.
    """

    def __init__(self, message: str, *, result: Any = None, where: str | None = None) -> None:
        super().__init__(message, where=where)
        self.result = result


class StorageError(T2Error):
    """Dagster's or T2's own storage cannot be read."""
