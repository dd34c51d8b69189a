"""Screens say what dbt's own runs of the tests say, or nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.runtime.screened import COLUMNS, DAYS, FILES, NOW, PROJECT, create, write

import t2
from t2.project.model import Table
from t2.project.model import Test as DbtTest
from t2.runtime import warehouse
from t2.runtime.build import Checked, check
from t2.runtime.screens.forms import form
from t2.runtime.screens.kinds import OF_PARTITIONS, OF_ROWS
from t2.runtime.screens.sql import ROWS as SCREENED
from t2.runtime.screens.sql import condition, tokens
from t2.runtime.warm import Warm
from t2.runtime.windows import predicate, rows_of_test

Outcome = dict[tuple[str, str], tuple[str, int | None, str]]

VALUES = {
    "day": st.sampled_from([*DAYS, "2024-01-04", None]),
    "id": st.sampled_from([0, 1, 2, 3, None]),
    "code": st.sampled_from(["a", "b", "A", "", " ", "it's", "1", "c", None]),
    "amount": st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, None]),
    "price": st.sampled_from([1, 1.5, 2.25, None]),
    "flag": st.sampled_from([True, False, None]),
    "parent": st.sampled_from([1, 2, 3, None]),
    '"Mixed Case"': st.sampled_from(["a", "A", None]),
    "n_records": st.sampled_from([1, 2, 3, None]),
    "folded": st.sampled_from(["a", "A", "b", "B", "c", None]),
}
# Most rows are fine, or no test would ever pass.
FINE = {
    **dict.fromkeys(COLUMNS, st.none()),
    "day": st.sampled_from(DAYS),
    "code": st.just("b"),
    "amount": st.just(1.5),
    "price": st.just(1),
    "flag": st.just(True),
    "parent": st.just(2),
    '"Mixed Case"': st.just("a"),
    "n_records": st.just(1),
    "folded": st.just("a"),
}
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "where": st.sampled_from(["id > 1", "code <> 'b' or flag", "price is not null", "id = 1 -- one"]),
        "severity": st.sampled_from(["warn", "error"]),
        "limit": st.just(1),
        "error_if": st.sampled_from([">1", "!= 1"]),
        "warn_if": st.just("> 0"),
        "fail_calc": st.just("count(*) - 1"),
    },
)


def row(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(values)


ROWS = st.lists(row(FINE) | row({**FINE, "id": st.integers(1, 3)}) | row(VALUES), max_size=7)


def literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"cast('{value}' as double precision)"
    return "'" + str(value).replace("'", "''") + "'"


class Shop:
    """The project with its two tables, filled anew by each example."""

    def __init__(self, warm: Warm) -> None:
        self.warm = warm
        schema = "main" if warm.adapter_type == "duckdb" else "public"
        self.table: Table = warm.project.tables[f"{schema}/events"]
        self.plain = {
            test.unique_id: warm._dbt.manifest.nodes[test.unique_id].config for test in self.table.tests
        }

    def fill(self, rows: Sequence[dict[str, Any]], parents: Sequence[int | None]) -> None:
        statements = ["delete from events", "delete from parents"]
        lines = [f"({', '.join(literal(line[name]) for name in COLUMNS)})" for line in rows]
        statements += [f"insert into events values {', '.join(lines)}"] if lines else []
        ids = ", ".join(f"({literal(value)})" for value in parents)
        statements += [f"insert into parents values {ids}"] if ids else []
        self.execute(statements)

    def execute(self, statements: list[str]) -> None:
        # What is executed and not fetched is not committed on PostgreSQL.
        self.warm.query("begin; " + "; ".join(statements) + "; commit; select 1 as done")

    def configure(self, unique_id: str, config: dict[str, Any]) -> None:
        """Configure a test as its file might, for good."""
        self.warm._dbt.manifest.nodes[unique_id].config = self.plain[unique_id].replace(**config)
        self.warm._test_sql.clear()

    def outcome(self, tests: Sequence[DbtTest], keys: Sequence[str]) -> tuple[Outcome, int]:
        """Return what became of tests, and how many partitions' outcomes came from screens."""
        events = list(check(self.warm, self.table, keys, tests=tests, now=NOW))
        return outcomes(events), sum(len(event.keys) for event in events if event.screened)


def outcomes(events: Sequence[Checked]) -> Outcome:
    return {
        (event.test.name, key or ""): (event.result.status, event.result.failures, event.result.message)
        for event in events
        for key in event.keys
    }


def configured(shop: Shop, test: DbtTest, config: dict[str, Any]) -> DbtTest:
    """Return a test as it is read from a project that configures it so."""
    shop.configure(test.unique_id, config)
    return replace(test, row_wise=test.row_wise and not config.keys() - {"where", "severity"})


def unscreened(test: DbtTest) -> DbtTest:
    return replace(test, screen=False, row_wise=False)


def pick(shop: Shop, *names: str) -> list[DbtTest]:
    found = {test.name: test for test in shop.table.tests}
    return [found[name] for name in names]


@pytest.fixture(scope="module")
def duckdb_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    profile = "{type: duckdb, path: screened.duckdb, schema: main, threads: 1}"
    warm = Warm.of(t2.load_project(write(tmp_path_factory.mktemp("screened"), profile)))
    with warehouse.session(warm):
        shop = Shop(warm)
        for statement in create("collate nocase"):
            warm.query(statement)
        yield shop


def compare(shop: Shop, data: st.DataObject, names: Sequence[str] = ()) -> int:
    """Fill the tables, run some tests both ways; return how many outcomes were screened."""
    shop.fill(data.draw(ROWS), data.draw(st.sampled_from([[], [1, 2], [2, None], [2, 2]])))
    among = pick(shop, *names) or shop.table.tests
    tests = data.draw(st.lists(st.sampled_from(among), min_size=1, max_size=5, unique=True))
    tests = [configured(shop, test, data.draw(st.just({}) | CONFIGS)) for test in tests]
    first = data.draw(st.integers(0, len(DAYS) - 1))
    keys = DAYS[first : data.draw(st.integers(first + 1, len(DAYS)))]
    found, screened = shop.outcome(tests, keys)
    expected: Outcome = {}
    for key in keys:
        expected |= shop.outcome([unscreened(test) for test in tests], [key])[0]
    assert found == expected
    return screened


QUIETLY = settings(suppress_health_check=list(HealthCheck), database=None)


@settings(QUIETLY, max_examples=40)
@given(data=st.data())
def test_screens_agree_with_dbt(duckdb_shop: Shop, data: st.DataObject) -> None:
    compare(duckdb_shop, data)


@pytest.mark.soak
@settings(QUIETLY, max_examples=500)
@given(data=st.data())
def test_screens_agree_with_dbt_many_times(duckdb_shop: Shop, data: st.DataObject) -> None:
    compare(duckdb_shop, data)


MUTANTS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "nothing is counted": (
        "t2.runtime.screens.forms.Form.counter",
        property(lambda form: "count(null)"),
        ("not_null_events_id", "unique_events_id", "amount_range"),
    ),
    "only the first partition is looked at": (
        "t2.runtime.screens.screen.rows_of_test",
        lambda node, test, first, last, **options: rows_of_test(node, test, first, first, **options),
        ("not_null_events_id", "amount_null", "folded_in"),
    ),
    "thresholds do not matter": (
        "t2.runtime._dbt.session.Dbt._only_counts",
        lambda dbt, config: True,
        ("not_null_events_id", "unique_events_id"),
    ),
    "all tests are of rows": (
        "t2.runtime.screens.forms.OF_ROWS",
        OF_ROWS | OF_PARTITIONS,
        ("dbt_utils_at_least_one_events_id", "dbt_utils_not_constant_events_id"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_screen_does_not_agree(duckdb_shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What the comparison is worth."""
    target, wrong, names = MUTANTS[name]
    monkeypatch.setattr(target, wrong)

    @settings(QUIETLY, max_examples=200, phases=[Phase.generate], derandomize=True)
    @given(data=st.data())
    def comparison(data: st.DataObject) -> None:
        compare(duckdb_shop, data, names)

    with pytest.raises(AssertionError):
        comparison()


def fine(day: str, number: int) -> dict[str, Any]:
    values = {"code": "b", "amount": 1.5, "price": 1, "flag": True, "parent": 2, '"Mixed Case"': "a"}
    return {**dict.fromkeys(COLUMNS), **values, "day": day, "id": number, "n_records": 1, "folded": "a"}


@pytest.fixture
def filled(duckdb_shop: Shop) -> Shop:
    """The table with a row a day, of which only a few tests complain."""
    duckdb_shop.fill([fine(day, number) for number, day in enumerate(DAYS, 1)], [1, 2])
    for test in duckdb_shop.table.tests:
        duckdb_shop.configure(test.unique_id, {})
    return duckdb_shop


def test_all_tests_of_a_table_are_proved_by_one_query(filled: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = listen(filled, monkeypatch)
    fails = {"code_number", "code_where", "dbt_utils_not_constant_events_id", "id_open"}
    fails |= {"amount_keys", "folded_keys", "mixed_keys"}
    tests = [test for test in filled.table.tests if test.name not in fails]
    found, screened = filled.outcome(tests, DAYS[:1])
    assert set(found.values()) == {("pass", 0, "")}
    assert (screened, len(asked)) == (len(tests), 1)


def listen(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    query = shop.warm.query

    def noted(text: str) -> Any:
        asked.append(text)
        return query(text)

    monkeypatch.setattr(shop.warm, "query", noted)
    return asked


def test_a_screen_reads_as_dbts_own_result(filled: Shop) -> None:
    (test,) = pick(filled, "amount_null")
    (event,) = check(filled.warm, filled.table, DAYS, tests=[test], now=NOW)
    assert (event.keys, event.passed, event.screened) == (DAYS, True, True)
    relation = filled.table.relation
    assert event.result.compiled_code == (
        "select count(case when amount is null then 1 end) as failures from (select * from "
        f"{relation} where day >= cast('2024-01-01 00:00:00' as timestamp) and "
        "day < cast('2024-01-04 00:00:00' as timestamp)) dbt_subquery"
    )
    assert filled.warm.query(event.result.compiled_code) == [{"failures": 0}]
    assert event.result.started_at <= event.result.completed_at
    assert event.result.execution_seconds > 0


def test_in_a_range_dbt_runs_a_test_on_the_partitions_that_fail_it_only(filled: Shop) -> None:
    filled.execute(["update events set amount = null where id = 2"])
    (test,) = pick(filled, "amount_null")
    events = list(check(filled.warm, filled.table, DAYS, tests=[test], now=NOW))
    assert [(event.keys, event.screened, event.result.status) for event in events] == [
        (DAYS[:1], True, "pass"),
        (DAYS[1:2], False, "fail"),
        (DAYS[2:], True, "pass"),
    ]


def test_a_test_that_is_not_to_be_screened_is_not(filled: Shop) -> None:
    (test,) = pick(filled, "amount_null")
    assert filled.outcome([test], DAYS)[1] == 3
    assert filled.outcome([replace(test, screen=False)], DAYS)[1] == 0


@pytest.mark.parametrize(
    "config",
    [
        {"limit": 5},
        {"fail_calc": "sum(1)"},
        {"error_if": ">0"},
        {"warn_if": ">0"},
        {"store_failures": True},
        {"store_failures_as": "view", "store_failures": True},
        {"where": "id = 1 -- the first"},
        {"where": "code <> 'it\\'s'"},
    ],
    ids=str,
)
def test_only_dbt_runs_a_test_with_another_outcome_than_whether_rows_are_found(
    filled: Shop, config: dict[str, Any]
) -> None:
    (test,) = pick(filled, "amount_null")
    filled.configure(test.unique_id, config)
    assert form(filled.warm, filled.table, test) is None


def test_a_test_with_wrong_sql_spoils_no_other(filled: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, *others = pick(filled, "amount_null", "flag_in", "amount_unique", "price_unique", "parent_where")
    filled.configure(wrong.unique_id, {"where": "no_such_column = 1"})
    asked = listen(filled, monkeypatch)
    found, screened = filled.outcome([wrong, *others], DAYS[:1])
    assert [found[test.name, DAYS[0]][0] for test in (wrong, *others)] == ["error", *["pass"] * 4]
    assert (screened, len(asked)) == (4, 5)


def test_a_test_whose_macro_fails_is_dbts_to_report(filled: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (test,) = pick(filled, "dbt_utils_not_accepted_values_events_code__a__")
    node = filled.warm._dbt.manifest.nodes[test.unique_id]
    monkeypatch.setitem(node.test_metadata.kwargs, "values", 5)
    found, screened = filled.outcome([test], DAYS[:1])
    assert (found[test.name, DAYS[0]][0], screened) == ("error", 0)


REPLACED = {
    "macros/not_null.sql": """
        {% test not_null(model, column_name) %} select 1 as found where 1 = 0 {% endtest %}
        """,
    "macros/unique.sql": """
        {% macro default__test_unique(model, column_name) %} select 1 as found where 1 = 0 {% endmacro %}
        """,
    "macros/accepted_values.sql": """
        {% macro duckdb__test_accepted_values(model, column_name, values, quote) %}
        select 1 as found where 1 = 0
        {% endmacro %}
        """,
    "dbt_packages/shim/dbt_project.yml": "name: shim\nversion: '1.0'\n",
    "dbt_packages/shim/macros/relationships.sql": """
        {% macro default__test_relationships(model, column_name, to, field) %}
        select 1 as found where 1 = 0
        {% endmacro %}
        """,
    "dbt_project.yml": dedent(PROJECT)
    + "dispatch: [{macro_namespace: dbt, search_order: [screened, shim, dbt]}]\n",
}
SUBQUERY = "{% macro get_where_subquery(relation) %}{{ return(relation) }}{% endmacro %}"
GET_TEST = """
    {% macro default__get_test_sql(main_sql, fail_calc, warn_if, error_if, limit) %}
    select 1 as failures, true as should_warn, true as should_error
    {% endmacro %}
    """
MATERIALIZATION = """
    {% materialization test, default %}
      {% call statement('main', fetch_result=True) %}
      select 1 as failures, true as should_warn, true as should_error
      {% endcall %}
      {{ return({'relations': []}) }}
    {% endmaterialization %}
    """


@pytest.mark.parametrize(
    ("files", "screened"),
    [
        (REPLACED, {"expression_is_true"}),
        ({"macros/where.sql": SUBQUERY}, set()),
        ({"macros/get_test.sql": GET_TEST}, set()),
        ({"macros/test.sql": MATERIALIZATION}, set()),
    ],
    ids=["replaced tests", "replaced subquery", "replaced query", "replaced materialization"],
)
def test_a_test_whose_macros_somebody_replaced_is_not_screened(
    tmp_path: Path, files: dict[str, str], screened: set[str]
) -> None:
    models = """
        models:
          - name: parents
            columns:
              - name: id
                data_tests:
                  - not_null
                  - unique
                  - accepted_values: {arguments: {values: [1], quote: false}}
                  - relationships: {arguments: {to: ref('parents'), field: id}}
                  - dbt_utils.expression_is_true: {arguments: {expression: "> 0"}}
        """
    given = {**FILES, "models/models.yml": models, **files}
    del given["models/events.sql"]
    profile = "{type: duckdb, path: screened.duckdb, schema: main, threads: 1}"
    warm = Warm.load(t2.load_project(write(tmp_path, profile, given)))
    table = warm.project.tables["main/parents"]
    found = {test.kind.rpartition(".")[2] for test in table.tests if form(warm, table, test)}
    assert found == screened


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select id from ROWS where id is null", "id is null"),
        ('\nselect "a b"\nfrom ROWS\nwhere "a b" is null -- so\n', '"a b" is null'),
        ("select 1 from ROWS where not(a > 0) or (b > 0)", "not(a > 0) or (b > 0)"),
        ("select 1 from ROWS where a = ' group by '", "a = ' group by '"),
        (
            "with x as(select * from ROWS), y as (select * from x where 1 = 2 or a) select * from y",
            "1 = 2 or a",
        ),
        ("with x as(select * from ROWS), y as (select * from x where x.a) select * from y", None),
        ("select a from ROWS where a is null group by a", None),
        ("select a from ROWS where a in (select 1)", None),
        ("select a from ROWS where row_number() over () = 1", None),
        ("select a from ROWS as r where a is null", None),
        ("select count(a) from ROWS where a is null", None),
        ("select a from ROWS where (a) limit 1", None),
        ("select a from ROWS where a = 1 union select 2", None),
        ("select a from ROWS where a) or (a", None),
        ("select a from ROWS where ROWS.a is null", None),
        ("select a from other where a is null", None),
    ],
)
def test_a_condition_is_found_only_where_sql_does_no_more(text: str, expected: str | None) -> None:
    assert condition(text.replace("ROWS", SCREENED)) == expected


@pytest.mark.parametrize(
    "text",
    ["a)", "(a", "')", "a; b", "a /* b", '"a', "'a\\'", "$$a$$", "a -- )", "`a"],
)
def test_sql_that_is_not_surely_closed(text: str) -> None:
    assert (tokens(text) is None) == (text != "a -- )")


@pytest.fixture(scope="module")
def postgres_screened(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    url = sa.make_url(postgres_server).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    connection.cursor().execute("create database screened")
    connection.close()
    host = url.host or url.query["host"]
    profile = (
        f"{{type: postgres, host: '{host}', port: {url.port or 5432}, user: {url.username}, password: x,"
        " dbname: screened, schema: public, threads: 1}"
    )
    warm = Warm.of(t2.load_project(write(tmp_path_factory.mktemp("screened"), profile)))
    with warehouse.session(warm):
        shop = Shop(warm)
        # Trailing blanks do not count.
        shop.execute(create(""))
        shop.execute(["alter table events alter folded type character(9)"])
        yield shop


@settings(QUIETLY, max_examples=10)
@given(data=st.data())
def test_screens_agree_with_dbt_on_postgres(postgres_screened: Shop, data: st.DataObject) -> None:
    compare(postgres_screened, data)


def test_a_key_that_occurs_in_another_partition_too_fails_where_it_is_tested(filled: Shop) -> None:
    filled.execute(["update events set id = 1 where id = 3"])
    tests = pick(filled, "unique_events_id", "id_keys", "id_table")
    found = {key: filled.outcome(tests, [key]) for key in DAYS}
    passed, failed = ("pass", 0, ""), ("fail", 1, "Got 1 result, configured to fail if != 0")
    assert found == {
        day: (
            {
                ("unique_events_id", day): passed,
                ("id_keys", day): passed if day == DAYS[1] else failed,
                ("id_table", day): failed,
            },
            2 if day == DAYS[1] else 1,
        )
        for day in DAYS
    }


def test_keys_are_compared_with_the_whole_table_by_one_query(filled: Shop) -> None:
    (test,) = pick(filled, "mixed_keys")
    filled.execute(["update events set \"Mixed Case\" = id || 'x'"])
    (event,) = check(filled.warm, filled.table, DAYS[:1], tests=[test], now=NOW)
    assert event.screened
    relation = filled.table.relation
    window = predicate(filled.table, DAYS[0], DAYS[0])
    keys = f'"Mixed Case" in (select "Mixed Case" from {relation} where {window})'
    assert f"from (select * from {relation} where {keys}) dbt_subquery" in str(event.result.compiled_code)
