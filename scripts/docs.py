"""Write the parts of the documentation that are made from the source: configuration and commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from t2.cli import COMMANDS, group
from t2.project.reference import reference

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """\
# Commands

<!-- Made from the commands' own help by `python scripts/docs.py`; do not edit. -->

Data goes to stdout, progress and errors to stderr. Exit codes: 0 fine, 1 found something (a failed
table, a partition that waits), 2 could not do it. `--debug` before the command prints the traceback
of an error.
"""


def commands() -> str:
    """Return docs/commands.md."""
    parts = [HEAD, "```text\n" + _help(group, "t2") + "\n```\n"]
    for name in COMMANDS:
        command: click.Command = importlib.import_module(f"t2.cli.{name}").command
        parts.append(f"## t2 {name}\n\n```text\n{_help(command, f't2 {name}')}\n```\n")
        for verb, sub in getattr(command, "commands", {}).items():
            title = f"t2 {name} {verb}"
            parts.append(f"### {title}\n\n```text\n{_help(sub, title)}\n```\n")
    return "\n".join(parts)


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context)


def main() -> None:
    """Write both files."""
    (DOCS / "configuration.md").write_text(reference())
    (DOCS / "commands.md").write_text(commands())


if __name__ == "__main__":
    main()
