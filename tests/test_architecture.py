"""Imports point down only, and private APIs are imported in one place each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "t2"

# What each package may import of T2's own (its own package always).
ALLOWED = {
    "errors": set(),
    "project": {"errors"},
    "planning": {"errors", "project"},
    "ledger": {"errors", "project", "planning"},
    "runtime": {"errors", "project", "planning"},
    "explain": {"errors", "project", "planning", "ledger"},
    "definitions": {"errors", "project", "planning", "ledger", "runtime"},
    "cli": {"errors", "project", "planning", "ledger", "runtime", "definitions", "explain"},
    "__init__": {"errors", "project", "runtime", "definitions"},
}
OUTSIDE = {
    "project": {"dagster", "dbt", "sqlalchemy"},
    "planning": {"dagster", "dbt", "sqlalchemy"},
    "ledger": {"dagster", "dbt"},
    "explain": {"dagster", "dbt", "sqlalchemy"},
    "runtime": {"dagster"},
}
PRIVATE = {
    re.compile(r"^dagster(_\w+)?\._"): {"definitions/_dagster/"},
    # The warehouse server needs no more of dbt than its adapter.
    re.compile(r"^dbt(_common)?\.(?!cli\.main$)"): {"runtime/_dbt/"},
}
HOMES = set().union(*PRIVATE.values())


def at_home(name: str, homes: set[str]) -> bool:
    """Whether a module is one of these, or in one of these folders."""
    return name in homes or any(home.endswith("/") and name.startswith(home) for home in homes)


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if "dbt" not in path.relative_to(SOURCE).parts[:1])


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of every import of a module, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down_only(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for imported in imports(path):
        top, *rest = imported.split(".")
        if top == "t2" and rest:
            assert rest[0] == package or rest[0] in ALLOWED[package], f"{name} imports {imported}"
        allowed = at_home(name, HOMES) or imported == "dbt.cli.main"
        assert allowed or top not in OUTSIDE.get(package, set()), f"{name} imports {imported}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_private_apis_are_imported_in_one_place_each(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    for pattern, homes in PRIVATE.items():
        if not at_home(name, homes):
            assert not [imported for imported in imports(path) if pattern.match(imported)], (
                f"{name} uses a private API; it belongs into {' or '.join(sorted(homes))}"
            )
