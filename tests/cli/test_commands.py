"""The commands on a project that `t2 init` made: one project for the module, its tests in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from t2.cli.init import _scaffold
from t2.runtime.parsing import install_package

CLI = "import sys; from t2.cli import main; main(sys.argv[1:])"
# The project begins 14 days before the day it is made on; a test run may cross midnight.
TODAY = datetime.now(timezone.utc).date()
FIRST, SECOND, THIRD = ((TODAY - timedelta(days=14 - number)).isoformat() for number in range(3))
BEFORE, LAST = ((TODAY - timedelta(days=back)).isoformat() for back in (2, 1))
DAILY = "models/fct_orders_daily.sql"


class Shop:
    """A project and the command line in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        return subprocess.run(
            [sys.executable, "-c", CLI, *arguments],
            capture_output=True,
            text=True,
            cwd=self.root,
            env=environ,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--format", "json").stdout)

    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        install_package(_scaffold("shop", TODAY))
    return Shop(folder / "shop")


def test_init_in_a_project_changes_nothing_the_second_time(shop: Shop) -> None:
    assert "added to .gitignore" in shop("init").stdout
    before = shop.files()
    assert shop("init").returncode == 0
    assert shop.files() == before


def test_init_refuses_a_directory_that_is_not_empty_and_a_name_that_dbt_refuses(shop: Shop) -> None:
    taken, wrong = shop("init", "models"), shop("init", "my-shop")
    assert (taken.returncode, wrong.returncode) == (2, 2)
    assert taken.stderr.startswith("error: the directory models is not empty\n\nhint: ")
    assert wrong.stderr.startswith("error: 'my-shop' cannot be a dbt project's name\n\nhint: ")


def test_deps_says_that_the_package_is_up_to_date(shop: Shop) -> None:
    assert shop("deps").stdout == "T2's dbt package is up to date\n"


def test_parse_shows_partitions_upstream_windows_and_tests(shop: Shop) -> None:
    lines = [line.split() for line in shop("parse").stdout.splitlines()]
    assert lines[0] == ["TABLE", "MATERIALIZED", "PARTITIONS", "READS", "TESTS", "OWNER"]
    assert lines[1] == ["main/raw_orders", "seed", "-", "-", "0", "-"]
    assert lines[2] == [
        "main/fct_orders_daily",
        "partitioned",
        "day",
        "from",
        FIRST,
        "main/raw_orders",
        "2",
        "-",
    ]
    assert lines[3][5:8] == ["main/fct_orders_daily", "(lookback", "6)"]
    assert " ".join(lines[5]).startswith("3 tables (2 partitioned), 0 sources, 4 tests; dbt 1.11")


def test_parse_as_json_holds_the_whole_project(shop: Shop) -> None:
    project = shop.json("parse")
    [seed, daily, rolling] = project["tables"]
    assert (project["name"], project["sources"]) == ("shop", [])
    assert (seed["key"], daily["key"]) == ("main/raw_orders", "main/fct_orders_daily")
    assert [(upstream["key"], upstream["lookback"]) for upstream in rolling["upstreams"]] == [
        ("main/fct_orders_daily", 6)
    ]


def test_status_before_anything_ran_shows_that_nothing_has_landed(shop: Shop) -> None:
    # Regression: it was an error that named a file of Dagster's and asked for `dagster dev`.
    result = shop("status")
    assert result.returncode == 0
    assert result.stderr == "t2 dev does not run; nothing is built until it does\n"
    rows = {row["table"]: row for row in shop.json("status")["tables"]}
    assert [(row["landed"], row["outcome"]) for row in rows.values()] == [
        (0, "ready"),
        (0, "waiting"),
        (0, "waiting"),
    ]
    assert not (shop.root / ".t2" / "storage").exists()


def test_why_before_anything_ran_names_the_seed(shop: Shop) -> None:
    result = shop("why", "fct_revenue_rolling")
    assert result.returncode == 1
    assert result.stdout == (
        f"main/fct_revenue_rolling {FIRST} waits for main/fct_orders_daily {FIRST} (waiting).\n\n"
        "Root cause:\n  main/raw_orders is ready, and about to be requested · clears by itself\n"
    )


def test_why_of_a_partition_that_is_not_over_says_when_it_is(shop: Shop) -> None:
    day = TODAY + timedelta(days=3)
    result = shop("why", "fct_orders_daily", day.isoformat())
    assert result.returncode == 1
    assert f"is not over yet: its window ends {day + timedelta(days=1)} 00:00 UTC." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raw_orders", "--partition", FIRST], "error: main/raw_orders is not partitioned\n"),
        (["fct_orders_daily"], "error: main/fct_orders_daily has day partitions, and none was asked for\n"),
        (["fct_orders_daily", "--partition", FIRST, "--to", SECOND], "error: --partition and --from/--to"),
        (["fct_orders_daily", "--to", SECOND], "error: --to was given without --from\n"),
        (["fct_orders_daily", "--from", SECOND, "--to", FIRST], "error: the range from "),
        (
            ["fct_orders_daily", "--partition", "2999-01-01"],
            "error: main/fct_orders_daily 2999-01-01 is not over",
        ),
        (
            ["fct_orders_daily", "--partition", "today"],
            "error: main/fct_orders_daily: there is no day partition",
        ),
        (
            ["fct_order_daily", "--partition", FIRST],
            "error: the project shop has no table 'fct_order_daily'\n",
        ),
    ],
)
def test_what_cannot_be_materialized_is_refused(shop: Shop, arguments: list[str], message: str) -> None:
    result = shop("materialize", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert "\n\nhint: " in result.stderr


def test_materialize_builds_an_unpartitioned_table_and_says_little(shop: Shop) -> None:
    result = shop("materialize", "raw_orders")
    assert result.returncode == 0
    # Regression: Dagster's log of the run went to stderr.
    assert result.stderr == "[1/1] main/raw_orders ...\n"
    assert result.stdout.startswith("landed  main/raw_orders  ")
    assert shop("why", "raw_orders").returncode == 0


def test_materialize_builds_a_range_and_what_reads_it(shop: Shop) -> None:
    results = shop.json("materialize", "fct_orders_daily+", "--from", BEFORE, "--to", LAST)
    assert [(result["step"], result["success"]) for result in results[:3]] == [
        (f"main/fct_orders_daily {BEFORE} to {LAST}", True),
        (f"main/fct_revenue_rolling {BEFORE}", True),
        (f"main/fct_revenue_rolling {LAST}", True),
    ]
    landed = {row["table"]: row["landed"] for row in shop.json("status")["tables"]}
    assert landed["main/fct_orders_daily"] == 2


def test_a_model_that_fails_says_what_dbt_says_and_its_readers_are_skipped(shop: Shop) -> None:
    sql = shop.root / DAILY
    good = sql.read_text()
    sql.write_text(good.replace("sum(amount)", "sum(amuont)"))
    result = shop("materialize", "fct_orders_daily+", "--partition", THIRD)
    sql.write_text(good)
    assert result.returncode == 1
    failed, *told, skipped = result.stdout.splitlines()
    assert failed == f"failed  main/fct_orders_daily {THIRD}"
    assert told[0].strip() == f"Runtime Error in model fct_orders_daily ({DAILY})"
    assert told[1].strip() == 'Binder Error: Referenced column "amuont" not found in FROM clause!'
    assert skipped == "skipped main/fct_revenue_rolling: main/fct_orders_daily has not landed"


def test_why_names_the_error_and_not_only_the_model(shop: Shop) -> None:
    # Regression: it showed dbt's first line, which has the model's name and no error.
    text = shop("why", "fct_orders_daily", THIRD).stdout
    assert 'Referenced column "amuont" not found in FROM clause!' in text or "about to be requested" in text


def test_a_check_that_fails_blocks_the_partition_and_why_counts_its_rows(shop: Shop) -> None:
    schema = shop.root / "models/schema.yml"
    good = schema.read_text()
    test = "data_tests: [{accepted_values: {arguments: {values: [de, fr]}}}]"
    schema.write_text(
        good.replace(
            "data_type: varchar\n        data_tests: [not_null]", f"data_type: varchar\n        {test}"
        )
    )
    result = shop("materialize", "fct_orders_daily", "--partition", FIRST)
    name = "accepted_values_fct_orders_daily_country__de__fr"
    assert result.returncode == 1
    # Regression: it said the name of a Python class of Dagster's.
    assert [line.strip() for line in result.stdout.splitlines()[1:3]] == [
        "what reads main/fct_orders_daily is held back by failed checks:",
        f"{name} (1 row) on {FIRST}",
    ]
    assert shop("status").returncode == 1
    answer = shop.json("why", "fct_orders_daily")
    assert (answer["outcome"], answer["partition"]) == ("blocked", FIRST)
    # Regression: the ledger looked for the count under another name than the run wrote it.
    assert answer["sentence"] == f"main/fct_orders_daily {FIRST} is held back by {name} (1 row)."
    schema.write_text(good)
    assert shop("materialize", "fct_orders_daily", "--partition", FIRST).returncode == 0
    assert shop.json("why", "fct_orders_daily", FIRST)["outcome"] == "landed"


def test_dev_refuses_a_project_with_problems(shop: Shop) -> None:
    # Regression: it started, said that it was ready, and the problem was in the code location's log only.
    schema = shop.root / "models/schema.yml"
    good = schema.read_text()
    schema.write_text(good.replace("backfill:", "bakfill:"))
    result = shop("dev", "--no-webserver")
    schema.write_text(good)
    assert (result.returncode, result.stdout) == (2, "")
    assert "models/schema.yml:" in result.stderr
    assert "did you mean backfill?" in result.stderr


def test_reset_asks_removes_and_leaves_the_configuration(shop: Shop) -> None:
    config = (shop.root / ".t2/dagster.yaml").read_text()
    asked = shop("reset")
    assert "Remove these?" in asked.stdout
    assert (shop.root / ".t2/storage").exists()
    assert shop("reset", "--yes", "--warehouse").returncode == 0
    assert sorted(path.name for path in (shop.root / ".t2").iterdir()) == [".gitignore", "dagster.yaml"]
    assert (shop.root / ".t2/dagster.yaml").read_text() == config
    assert not (shop.root / "shop.duckdb").exists()
    assert shop("reset", "--yes").stdout == "nothing to remove\n"
    assert shop.json("status")["tables"][0]["landed"] == 0
