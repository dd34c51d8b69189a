"""The documentation says what the source says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from t2.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PRINT = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['commands']())"


@pytest.fixture(scope="module")
def text() -> str:
    """What scripts/docs.py writes. A fresh process makes it: click keeps the first help option it made."""
    command = [sys.executable, "-c", PRINT, str(ROOT / "scripts" / "docs.py")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_reference_of_commands_is_fresh(text: str) -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == text, "run `python scripts/docs.py`"


def test_every_command_has_an_example_in_its_help(text: str) -> None:
    for name in COMMANDS:
        section = text.split(f"\n## t2 {name}\n")[1].split("\n## ", maxsplit=1)[0]
        assert "Example" in section, f"t2 {name} --help has no example"


def test_links_between_documents_lead_somewhere() -> None:
    import re

    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
