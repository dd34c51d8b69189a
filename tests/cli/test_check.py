"""`t2 check` on a real project: what it prints, what it returns, and what it opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from tests.definitions.gated import write

from t2.runtime.parsing import install_package

CLI = "import sys; from t2.cli import main; main(sys.argv[1:])"
TABLE = "main.orders"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write(tmp_path_factory.mktemp("check"))
    install_package(root)
    change(root, "update raw.orders set note = null where id = 1")
    done = run(root, "materialize", f"{TABLE}+", "--from", "2024-01-01", "--to", "2024-01-04")
    (root / "materialized.txt").write_text(done.stdout)
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [sys.executable, "-c", CLI, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=environ, check=False)


def change(root: Path, statement: str) -> None:
    with duckdb.connect(str(root / "gated.duckdb")) as connection:
        connection.execute(statement)


def test_what_is_built_downstream_leaves_out_what_a_failed_check_blocks_by_name(shop: Path) -> None:
    lines = (shop / "materialized.txt").read_text().splitlines()
    outcomes = [line.split()[:2] for line in lines if not line.startswith(" ")]
    assert outcomes == [
        ["landed", "main/orders"],
        ["landed", "main/free"],
        ["failed", "main/lagging"],
        ["failed", "main/named"],
        ["skipped", "main/after_named:"],
    ]
    why = "not_null_orders_note (1 row) on main/orders 2024-01-02"
    assert [line.strip() for line in lines if line.startswith(" ")] == [
        f"2024-01-02 is not built: {why}",
        f"2024-01-03 is not built: {why}",
        f"2024-01-02 is not built: {why}",
    ]


def test_without_a_partition_what_is_held_back_is_checked_again(shop: Path) -> None:
    done = run(shop, "check", TABLE)
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "CHECK RESULT HOLDS BACK PARTITIONS",
        "not_null_orders_note failed (1 row) main/named, main/lagging 2024-01-02",
        "not_null_orders_amount passed - 2024-01-02",
        "not_null_orders_extra passed - 2024-01-02",
        "not_null_orders_id passed - 2024-01-02",
        "unique_orders_id passed - 2024-01-02",
    ]
    assert "[1/1] main/orders 2024-01-02: 5 checks ..." in done.stderr
    assert done.returncode == 1


def test_a_range_is_one_run_and_failures_come_first(shop: Path) -> None:
    done = run(shop, "check", TABLE, "--from", "2024-01-01", "--test", "not_null_orders_note")
    assert [" ".join(line.split()) for line in done.stdout.splitlines()[1:]] == [
        "not_null_orders_note failed (1 row) main/named, main/lagging 2024-01-02",
        "not_null_orders_note passed - 2024-01-01 to 2024-01-04 (3)",
    ]
    assert done.returncode == 1


def test_once_the_rows_are_repaired_the_check_passes_and_nothing_is_left_to_check(shop: Path) -> None:
    change(shop, "update main.orders set note = 'x'")
    done = run(shop, "check", TABLE, "2024-01-02", "--test", "not_null_orders_note", "--format", "json")
    (result,) = json.loads(done.stdout)
    assert len(result.pop("run")) == 36
    assert result == {
        "check": "not_null_orders_note",
        "partition": "2024-01-02",
        "passed": True,
        "severity": "error",
        "failed_rows": 0,
        "message": "",
        "held": [],
    }
    assert done.returncode == 0
    again = run(shop, "check", TABLE)
    assert again.stdout == "no failed check holds back readers of main/orders\n"
    assert again.returncode == 0


def test_what_cannot_be_checked_is_an_error_with_a_hint(shop: Path) -> None:
    unknown = run(shop, "check", TABLE, "--test", "not_nul_orders_nte")
    assert (unknown.returncode, "did you mean 'not_null_orders_note'?" in unknown.stderr) == (2, True)
    early = run(shop, "check", TABLE, "2024-01-07")
    assert (
        "error: main/orders 2024-01-07 has not landed\n\nhint: the newest that has is 2024-01-04"
        in early.stderr
    )
