from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.project.projects import write_project

import t2
from t2.errors import ConfigError, DbtError
from t2.project.inputs import fingerprint, project_settings
from t2.project.model import Project
from t2.project.store import KEEP, Store
from t2.runtime.parsing import install_dependencies, install_package

FILES = {
    "models/a.sql": "{{ config(materialized='table') }} select '{{ env_var('REGION', 'eu') }}' as region",
    "seeds/names.csv": "code\nde\n",
    "README.md": "not dbt's",
}
LOAD = """
import sys, t2
project = t2.load_project(sys.argv[1])
print(project.fingerprint, project.root, sorted({"dbt", "dagster", "sqlalchemy"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return t2.load_project(write_project(tmp_path_factory.mktemp("parsed"), FILES))


def no_parse() -> None:
    raise AssertionError("dbt was asked to parse")


def test_an_unchanged_project_is_loaded_without_a_parse_from_anywhere_inside_it(parsed: Project) -> None:
    root = Path(parsed.root)

    assert t2.load_project(root / "models", on_parse=no_parse) == parsed
    assert (root / "target/t2/current").read_text() == parsed.fingerprint
    assert Path(parsed.manifest).is_file()
    assert {path.name for path in root.iterdir()} == {
        *("README.md", "dbt_project.yml", "profiles.yml", "models", "seeds", "dbt_packages", "target"),
    }
    assert (parsed.name, parsed.target, parsed.adapter) == ("shop", "dev", "duckdb")


def test_a_stored_project_needs_neither_dbt_nor_dagster_and_moves_with_its_directory(
    parsed: Project, tmp_path: Path
) -> None:
    moved = shutil.copytree(parsed.root, tmp_path / "moved")
    ran = subprocess.run([sys.executable, "-c", LOAD, str(moved)], capture_output=True, text=True, check=True)

    assert ran.stdout.split(" ", 2) == [parsed.fingerprint, str(moved), "[]\n"]


def test_a_process_that_waited_for_another_ones_parse_uses_it(parsed: Project, tmp_path: Path) -> None:
    root = write_project(tmp_path, FILES)
    store = Store(root)
    with store.lock():
        waiting = subprocess.Popen([sys.executable, "-c", LOAD, str(root)], stdout=subprocess.PIPE, text=True)
        shutil.copytree(Path(parsed.manifest).parent, store.folder / parsed.fingerprint)

    assert waiting.communicate(timeout=30)[0].split()[0] == parsed.fingerprint
    assert not (store.folder / "dbt").exists()


def test_a_damaged_entry_is_parsed_again_and_old_ones_are_swept(parsed: Project, tmp_path: Path) -> None:
    root = Path(shutil.copytree(parsed.root, tmp_path / "copy"))
    folder = root / "target/t2"
    (folder / parsed.fingerprint / "project.pickle").write_bytes(b"half")
    for number in range(KEEP + 2):
        (folder / f"{number:064}").mkdir()
    (folder / ".new-killed").mkdir()
    asked: list[bool] = []

    assert t2.load_project(root, on_parse=lambda: asked.append(True)).tables == parsed.tables
    assert asked == [True]
    left = [path.name for path in folder.iterdir() if path.is_dir()]
    assert len(left) == KEEP + 1
    assert {parsed.fingerprint, "dbt"} < set(left)


def edit(file: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def change(root: Path, _: pytest.MonkeyPatch) -> None:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + "\n")

    return change


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (edit("models/a.sql"), True),
        (edit("models/new.sql"), True),
        (edit("seeds/names.csv"), True),
        (edit("macros/new.sql"), True),
        (edit("dbt_project.yml"), True),
        (edit("profiles.yml"), True),
        (edit("packages.yml"), True),
        (edit("dbt_packages/utils/macros/a.sql"), True),
        (lambda root, patch: patch.setenv("REGION", "us"), True),
        (lambda root, patch: patch.setenv("DBT_TARGET", "other"), True),
        (lambda root, patch: patch.setenv("UNRELATED", "us"), False),
        (edit("README.md"), False),
        (edit("target/compiled/a.sql"), False),
        (edit("models/.a.sql.swp"), False),
    ],
)
def test_the_fingerprint_changes_with_everything_a_parse_reads_and_nothing_else(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    counts: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = write_project(tmp_path, FILES)
    before = fingerprint(root, project_settings(root), root, None)
    change(root, monkeypatch)

    assert (fingerprint(root, project_settings(root), root, None) != before) is counts
    assert fingerprint(root, project_settings(root), root, "other") != before


def test_dbts_errors_are_reported_with_dbts_words_and_the_file(tmp_path: Path) -> None:
    root = write_project(tmp_path, {"models/bad.sql": "select {{ ref( }}"})

    with pytest.raises(DbtError) as raised:
        t2.load_project(root)

    assert (raised.value.where, raised.value.message) == (
        "models/bad.sql:1",
        "Compilation Error in model bad (models/bad.sql)\n"
        "  unexpected '}', expected ')'\n    line 1\n      select {{ ref( }}",
    )

    (root / "models/bad.sql").unlink()
    (root / "models/bad.yml").write_text("models:\n  - name: a\n   config: {}\n")
    with pytest.raises(
        DbtError, match=r"Error reading shop: bad\.yml - Runtime Error\n    Syntax error near line 3"
    ):
        t2.load_project(root)

    (root / "models/bad.yml").unlink()
    with pytest.raises(DbtError) as raised:
        t2.load_project(root, target="production")
    assert "does not have a target named 'production'" in raised.value.message
    assert raised.value.hint == f"T2 looked in {root / 'profiles.yml'}"


def test_a_missing_profile_names_the_file_that_was_looked_for(tmp_path: Path) -> None:
    root = write_project(tmp_path / "project", FILES)

    with pytest.raises(DbtError) as raised:
        t2.load_project(root, profiles_dir=tmp_path)

    assert raised.value.message == f"dbt has no profile: {tmp_path / 'profiles.yml'} does not exist"


def test_a_directory_without_a_project_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no dbt_project.yml in .* or above it"):
        t2.load_project(tmp_path)


def test_packages_that_are_listed_and_not_installed_are_an_error(tmp_path: Path) -> None:
    root = write_project(tmp_path, {**FILES, "packages.yml": "packages: [{package: a/b, version: 1.0.0}]\n"})

    with pytest.raises(DbtError) as raised:
        t2.load_project(root)

    assert (raised.value.message, raised.value.hint) == (
        "1 package is listed and 0 are installed",
        "run t2 deps",
    )


def test_the_dbt_package_is_installed_once_and_repaired(tmp_path: Path) -> None:
    settings = "name: shop\nprofile: shop\npackages-install-path: vendored\n"
    root = write_project(tmp_path, {"dbt_project.yml": settings})
    installed = root / "vendored/t2/macros/window.sql"

    assert [install_package(root), install_package(root)] == [True, False]
    shipped = installed.read_text()
    installed.write_text("changed")
    assert install_package(root)
    assert installed.read_text() == shipped
    assert [path.name for path in (root / "vendored").iterdir()] == ["t2"]


def test_a_project_without_packages_has_none_to_install(tmp_path: Path) -> None:
    assert not install_dependencies(write_project(tmp_path, {}))


def test_a_file_that_changes_while_dbt_parses_is_parsed_again(tmp_path: Path) -> None:
    root = write_project(tmp_path, FILES)
    parses: list[str] = []

    def edit_meanwhile() -> None:
        parses.append("parse")
        if len(parses) == 1:
            (root / "models/late.sql").write_text("select 1 as one")

    assert list(t2.load_project(root, on_parse=edit_meanwhile).tables) == [
        "main/a",
        "main/late",
        "main/names",
    ]
    assert parses == ["parse", "parse"]
