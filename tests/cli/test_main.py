"""The command line starts fast, lists its commands and turns errors into one message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from t2.cli import COMMANDS

HEAVY = ("dagster", "dbt", "numpy", "sqlalchemy", "pydantic", "rich")


def t2(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import sys; from t2.cli import main; main(sys.argv[1:])", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command: str | None) -> None:
    code = (
        "import sys\nfrom t2.cli import main\n"
        f"try: main({[command, '--help'] if command else ['--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_mistyped_command_gets_the_nearest_one() -> None:
    result = t2("statsu")
    assert result.returncode == 2
    assert "There is no command 't2 statsu'. Did you mean 't2 status'?" in result.stderr


def test_outside_of_a_project_there_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    result = t2("status", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "dbt_project.yml" in result.stderr
    assert "hint:" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = t2("--debug", "status", cwd=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr
