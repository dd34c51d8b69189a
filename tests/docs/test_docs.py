"""The documentation says what the source says."""

from __future__ import annotations

import runpy
from pathlib import Path

from t2.cli import COMMANDS

ROOT = Path(__file__).parents[2]
COMMAND_DOCS = runpy.run_path(str(ROOT / "scripts" / "docs.py"))


def test_the_reference_of_commands_is_fresh() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == COMMAND_DOCS["commands"](), (
        "run `python scripts/docs.py`"
    )


def test_every_command_has_an_example_in_its_help() -> None:
    text = COMMAND_DOCS["commands"]()
    for name in COMMANDS:
        section = text.split(f"\n## t2 {name}\n")[1].split("\n## ")[0]
        assert "Example" in section, f"t2 {name} --help has no example"


def test_links_between_documents_lead_somewhere() -> None:
    import re

    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
