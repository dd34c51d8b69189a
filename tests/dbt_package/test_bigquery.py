"""`materialized: partitioned` through the real dbt-bigquery, against a stand-in with BigQuery's rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.dbt_package.bigquery_server import BigQuery
from tests.dbt_package.projects import NOW, days
from tests.dbt_package.run import execute, leftovers, rows, run

from t2.errors import NodeFailed
from t2.runtime.build import Checked, build
from t2.runtime.monitors import look
from t2.runtime.warm import Warm


@pytest.fixture
def site(bigquery_site_warm: Warm, bigquery: BigQuery) -> Iterator[Warm]:
    """The project; whatever a test does, no temporary table is left and no target is replaced."""
    yield bigquery_site_warm
    assert leftovers(bigquery_site_warm) == []


def sent(bigquery: BigQuery, part: str) -> list[str]:
    """Return the statements with some text; the random part of names is cut off."""
    return [re.sub(r"__t2_[0-9a-f]{12}", "__t2_x", found) for found in bigquery.statements if part in found]


def failure(warm: Warm, name: str, keys: list[str]) -> str:
    with pytest.raises(NodeFailed) as caught:
        run(warm, name, keys)
    return caught.value.message


def test_a_new_table_is_made_once_and_its_partitions_are_copied(site: Warm, bigquery: BigQuery) -> None:
    run(site, "filtered", days(1, 2))
    run(site, "filtered", days(3))
    (made,) = sent(bigquery, "`main`.`filtered` ")
    assert made.startswith(
        "create table if not exists `proj`.`main`.`filtered` partition by day cluster by site, visitor"
        " OPTIONS( labels=[('team', 'growth')], require_partition_filter=True ) as ( select * from ("
    )
    assert sent(bigquery, "create table `")[0].startswith(
        "create table `proj`.`main`.`filtered__t2_x` partition by day cluster by site, visitor"
        " OPTIONS( labels=[('team', 'growth')],"
        " expiration_timestamp=TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 12 hour) ) as ("
    )
    copied = [(re.sub("__t2_.*[$]", "__t2_x$", source), target) for source, target in bigquery.copies]
    assert copied == [
        (f"filtered__t2_x${day}", f"filtered${day}") for day in ("20240101", "20240102", "20240103")
    ]
    assert not sent(bigquery, "merge") + sent(bigquery, "or replace") + sent(bigquery, "delete")


def test_a_partition_that_lost_its_rows_is_dropped(site: Warm, bigquery: BigQuery) -> None:
    run(site, "replaced", days(1, 3))
    execute(site, "delete from raw.visits where day = '2024-01-02'")
    run(site, "replaced", days(1, 3))
    assert sent(bigquery, "drop partition") == ["drop partition replaced$20240102"]
    assert rows(site, "select day, count(*) from replaced group by 1 order by 1") == [
        ("2024-01-01", 2),
        ("2024-01-03", 2),
    ]


def test_by_statement_a_window_is_replaced_at_once_and_in_turn(site: Warm, bigquery: BigQuery) -> None:
    for _ in range(2):
        run(site, "filtered_in_turn", days(1, 2))
    written = sent(bigquery, "begin transaction")
    assert written[0] == written[1]
    assert written[0] == (
        "begin transaction;"
        " update `proj`.`main`.`filtered_in_turn__t2_turn` set builds = builds + 1 where true;"
        " merge into `proj`.`main`.`filtered_in_turn` as DBT_INTERNAL_DEST"
        " using (select `day`, `visitor`, `site` from `proj`.`main`.`filtered_in_turn__t2_x`)"
        " as DBT_INTERNAL_SOURCE on false"
        " when not matched by source and DBT_INTERNAL_DEST.day >= date '2024-01-01'"
        " and DBT_INTERNAL_DEST.day < date '2024-01-03' then delete"
        " when not matched then insert (`day`, `visitor`, `site`) values (`day`, `visitor`, `site`);"
        " commit transaction;"
    )
    assert len(sent(bigquery, "create table if not exists `proj`.`main`.`filtered_in_turn__t2_turn`")) == 1
    assert bigquery.copies == []
    found = rows(site, "select count(*), (select max(builds) from filtered_in_turn__t2_turn) from raw.visits")
    assert found == [(12, 2)]
    assert bigquery.execute("select count(*) from filtered_in_turn where day is not null") == [(4,)]


def test_a_merge_by_key_tells_that_it_looks_at_all_partitions(site: Warm, bigquery: BigQuery) -> None:
    run(site, "filtered", days(1, 3))
    for day in (2, 1, 3):
        run(site, "filtered_visitors", days(day))
    (merged, *_) = sent(bigquery, "begin transaction")
    assert (
        "on (DBT_INTERNAL_DEST.`visitor` = DBT_INTERNAL_SOURCE.`visitor`)"
        " and ((DBT_INTERNAL_DEST.`last_seen` is null or DBT_INTERNAL_DEST.`last_seen` is not null))"
    ) in merged
    found = bigquery.execute(
        "select visitor, last_seen from filtered_visitors where last_seen > '2000-01-01'"
    )
    assert {visitor: str(day) for visitor, day in found} == {
        0: "2024-01-03",
        1: "2024-01-01",
        2: "2024-01-02",
        3: "2024-01-03",
    }


def test_what_decides_how_a_table_is_written(site: Warm, bigquery: BigQuery) -> None:
    expected = {
        "weekly": "merge",  # a week is seven partitions: readers would see parts of it
        "weekly_copied": "copy",
        "by_month": "merge",  # a copy would take the rest of the month along
        "by_visitor": "merge",
    }
    found = {}
    for name in expected:
        bigquery.copies.clear()
        run(site, name, ["2024-01-01"])
        found[name] = "copy" if bigquery.copies else "merge"
        assert site.project.tables[f"main/{name}"].backfill.concurrency == (4 if found[name] == "copy" else 1)
    assert found == expected
    week = [("2024-01-01", 2), ("2024-01-02", 2), ("2024-01-03", 2), ("2024-01-04", 2)]
    for name in ("weekly", "weekly_copied"):
        assert rows(site, f"select day, count(*) from {name} group by 1 order by 1")[:4] == week
    assert [target for _, target in bigquery.copies] == []
    assert sent(bigquery, "create table if not exists `proj`.`main`.`by_month`")[0].count(
        "date_trunc(day, month)"
    )
    assert (
        "generate_array(0, 100, 1)"
        in sent(bigquery, "create table if not exists `proj`.`main`.`by_visitor`")[0]
    )


def test_instants_are_compared_with_instants(site: Warm, bigquery: BigQuery) -> None:
    """A day of Berlin begins at 23:00 UTC; an hour is one of UTC."""
    run(site, "berlin", ["2024-01-01"])
    assert rows(site, "select id from berlin order by 1") == [(1,), (2,)]
    (built, *_) = sent(bigquery, "create table `proj`.`main`.`berlin__t2_")
    low, high = "timestamp '2023-12-31 23:00:00+00'", "timestamp '2024-01-01 23:00:00+00'"
    assert f"where seen_at >= {low} and seen_at < {high}" in built
    run(site, "hourly", ["2024-01-01-22:00", "2024-01-01-23:00"])
    assert [target for _, target in bigquery.copies] == ["hourly$2024010122", "hourly$2024010123"]
    assert rows(site, "select id, since_date from hourly order by 1") == [
        (2, "2024-01-01"),
        (3, "2024-01-01"),
    ]


def test_more_partitions_than_one_job_may_change_are_refused(site: Warm, bigquery: BigQuery) -> None:
    told: dict[str, Any] = {"t2_start": "2024-01-01", "t2_end": "2024-07-01"}
    message = site.run("model.site.hourly", variables=told).message
    assert (
        "hourly: [2024-01-01 00:00:00, 2024-07-01 00:00:00) has more than 4000 partitions, which is what"
        " BigQuery changes in one job. Build less at once: meta.t2.backfill.partitions_per_run, or the vars"
        " t2_start and t2_end"
    ) in message
    assert bigquery.names("main") == []


def test_a_statement_that_fails_leaves_nothing(site: Warm, bigquery: BigQuery) -> None:
    bigquery.failing.append(("merge into", "Resources exceeded during query execution"))
    assert "Resources exceeded" in failure(site, "filtered_in_turn", days(1))
    assert leftovers(site) == []
    run(site, "filtered_in_turn", days(1))


def test_the_loser_of_two_that_write_in_turn_tries_again(site: Warm, bigquery: BigQuery) -> None:
    aborted = "Transaction is aborted due to concurrent update against table proj:main.visitors__t2_turn"
    bigquery.failing += [("merge into", aborted)] * 2
    run(site, "visitors", days(1))
    assert bigquery.failing == []
    assert rows(site, "select count(*) from visitors") == [(2,)]


def test_many_partitions_of_a_new_table_at_once(site: Warm, bigquery: BigQuery) -> None:
    for name in ("replaced", "filtered_in_turn"):
        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(run, site, name, days(day)) for day in (1, 2, 3, 4, 5, 6, 1, 2)]:
                done.result()
        counts = bigquery.execute(
            f"select day, count(*) from {name} where day > '2000-01-01' group by 1 order by 1"
        )
        assert [(str(day), count) for day, count in counts] == [(day, 2) for day in days(1, 6)]
    assert not sent(bigquery, "or replace")


def test_columns_that_came_later_are_copied_in_the_tables_order(site: Warm, bigquery: BigQuery) -> None:
    run(site, "append_new", days(1))
    execute(site, "alter table raw.wide add column c int64")
    execute(site, "alter table raw.wide drop column a")
    run(site, "append_new", days(2))
    assert sent(bigquery, "_aligned")[0].endswith(
        "as (select `day`, cast(null as INT64) as `a`, `b`, `c` from `proj`.`main`.`append_new__t2_x`)"
    )
    assert rows(site, "select day, a, b, c from append_new order by 1") == [
        ("2024-01-01", 1, "abc", None),
        ("2024-01-02", None, "abc", None),
    ]


def test_a_type_that_changed_is_refused(site: Warm) -> None:
    run(site, "sync_all", days(1))
    execute(site, "update raw.wide set b = '1' where true")
    execute(site, "alter table raw.wide alter column b set data type int64")
    message = "the type of b is STRING in the table and INT64 in the SQL. BigQuery changes a type by writing"
    assert message in failure(site, "sync_all", days(2))
    assert rows(site, "select count(*) from sync_all") == [(1,)]


def test_a_table_that_is_partitioned_otherwise_is_not_copied_into(site: Warm, bigquery: BigQuery) -> None:
    bigquery.execute(
        "create table main.replaced partition by date_trunc(day, month) as select * from raw.visits"
    )
    assert (
        "replaced: `proj`.`main`.`replaced` is partitioned by month of day, and has to be by day of day."
        " Run `dbt run --full-refresh`, or set meta.t2.bigquery.write: merge"
    ) in failure(site, "replaced", days(1))
    assert site.run("model.site.replaced", full_refresh=True).ok
    run(site, "replaced", days(1))


def test_a_full_refresh_replaces_the_table_in_one_statement(site: Warm, bigquery: BigQuery) -> None:
    run(site, "filtered", days(1, 2))
    assert site.run("model.site.filtered", full_refresh=True).rows_affected == 12
    assert len(sent(bigquery, "create or replace table `proj`.`main`.`filtered` partition by day")) == 1
    assert bigquery.tables["main", "filtered"].needs_filter
    assert bigquery.execute("select count(*) from filtered where day > '2000-01-01'") == [(12,)]


def test_a_view_gives_way_to_the_table(site: Warm, bigquery: BigQuery) -> None:
    bigquery.execute("create view main.replaced as select 1 as x")
    run(site, "replaced", days(1))
    assert rows(site, "select count(*) from replaced") == [(2,)]


def test_contracts_hooks_headers_and_documentation_are_those_of_dbt(site: Warm, bigquery: BigQuery) -> None:
    run(site, "big_contract", days(1, 2))
    made = sent(bigquery, "create table if not exists `proj`.`main`.`big_contract`")
    assert "( day date not null, pages int64 )" in made[0]
    assert [(column["name"], column["mode"]) for column in bigquery.fields(("main", "big_contract"))] == [
        ("day", "REQUIRED"),
        ("pages", "NULLABLE"),
    ]
    assert "This model has an enforced contract that failed" in failure(site, "broken_contract", days(1))
    run(site, "big_hooks", days(1))
    assert rows(site, "select hook from raw.log") == [("pre",), ("post",)]
    run(site, "big_header", days(1))
    assert len(sent(bigquery, "create temp function")) == 3  # the type of the event time, the table, the rows
    for _ in range(2):
        run(site, "documented", days(1))
        assert bigquery.tables["main", "documented"].descriptions == {
            "": "Visits, as they came",
            "visitor": "Who came",
        }
    assert bigquery.changes == [("main", "documented")] * bigquery.changes.count(("main", "documented"))


def test_a_table_reads_its_own_partition_before(site: Warm) -> None:
    run(site, "itself", days(1, 3))
    assert rows(site, "select day, visits from itself order by 1") == [
        ("2024-01-01", 2),
        ("2024-01-02", 4),
        ("2024-01-03", 6),
    ]


def test_tests_look_at_their_partition_and_name_it_to_a_table_that_demands_it(
    site: Warm, bigquery: BigQuery
) -> None:
    table = site.project.tables["main/filtered"]
    results = build(site, table, days(1, 3), tests=table.tests, now=NOW)
    checked = {result.test.kind: result for result in results if isinstance(result, Checked)}
    assert {kind: (result.passed, result.result.failures) for kind, result in checked.items()} == {
        "not_null": (True, 0),
        "unique": (False, 1),
        "accepted_values": (True, 0),
    }
    assert checked["not_null"].screened
    (found, *_) = sent(bigquery, "t2_branch")
    assert "day >= date '2024-01-01' and day < date '2024-01-04'" in found


def test_a_monitor_finds_the_partitions_of_a_source(site: Warm) -> None:
    days_of_berlin = look(site, site.project.sources["raw/events"], now=NOW)
    assert days_of_berlin == {"2024-01-01": "2 rows, loaded 2024-01-05T00:00:00+00:00"}
    visits = look(site, site.project.sources["raw/visits"], now=NOW)
    assert list(visits.items())[:2] == [("2024-01-01", "2"), ("2024-01-02", "2")]
    execute(site, "drop table raw.visits")
    assert look(site, site.project.sources["raw/visits"], now=NOW) == {}
