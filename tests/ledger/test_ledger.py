from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from tests.ledger.event_log import INSERT, content, create_log, row_of, write
from tests.ledger.projects import DAYS, NOW, PROJECT, check, plain, project, reference, table

from t2.ledger.events import Evaluated, Event, Failed, Materialized, Planned, RunChanged
from t2.ledger.ledger import Ledger
from t2.ledger.positions import positions
from t2.planning.grid import Grid
from t2.project.model import Grain, Partitioning

DAY = "2024-01-01"
AT = 1_704_400_000.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.db'}"


def landed(event_id: int, key: str = "s/a", partition: str = DAY, run_id: str = "") -> Materialized:
    return Materialized(event_id, AT + event_id, run_id, key, partition, event_id, "v1")


def followed(url: str, events: Sequence[Event]) -> Ledger:
    write(create_log(url), events)
    ledger = Ledger(url)
    ledger.follow()
    return ledger


def test_an_empty_log_is_an_empty_ledger(url: str) -> None:
    ledger = followed(url, [])
    assert (ledger.head(), ledger.cursor, ledger.follow(), ledger.last_event_at()) == (0, 0, 0, None)
    assert plain(ledger.state(PROJECT, NOW)) == reference(PROJECT, [])


def test_only_changed_tables_are_new_objects(url: str) -> None:
    ledger = followed(url, [landed(1), landed(2, "s/raw")])
    first = ledger.state(PROJECT, NOW)
    assert first.changed == {"s/raw", "s/a", "s/b", "s/whole"}
    again = ledger.state(PROJECT, NOW)
    assert (again.changed, again.tables["s/a"]) == (frozenset(), first.tables["s/a"])
    assert not ledger.has_news()
    write(sa.create_engine(url), [landed(3, partition="2024-01-02")])
    assert ledger.has_news()
    ledger.follow()
    after = ledger.state(PROJECT, NOW)
    assert after.changed == {"s/a"}
    assert after.tables["s/raw"] is first.tables["s/raw"]
    assert first.tables["s/a"].landed_id.tolist() == [1, 0, 0]
    assert after.tables["s/a"].landed_id.tolist() == [1, 3, 0]


def test_another_process_may_have_followed(url: str) -> None:
    ledger = followed(url, [landed(1)])
    ledger.state(PROJECT, NOW)
    write(sa.create_engine(url), [landed(2, partition="2024-01-02")])
    Ledger(url).follow()
    assert ledger.state(PROJECT, NOW).changed == {"s/a"}


def test_arrays_grow_as_windows_end_and_show_what_landed_early(url: str) -> None:
    events = [landed(1, partition="2024-01-04"), Failed(2, AT, "", "s/a", "2024-01-05", 1, "v1", "boom")]
    ledger = followed(url, events)
    assert ledger.state(PROJECT, NOW).tables["s/a"].landed_id.tolist() == [0, 0, 0]
    later = NOW + timedelta(days=1)
    grown = ledger.state(PROJECT, later)
    assert grown.changed == {"s/raw", "s/a", "s/b"}
    assert grown.tables["s/a"].landed_id.tolist() == [0, 0, 0, 1]
    assert plain(ledger.state(PROJECT, later + timedelta(days=1))) == reference(
        PROJECT, events, later + timedelta(days=1)
    )


def test_a_new_project_is_loaded_anew(url: str) -> None:
    ledger = followed(url, [landed(1)])
    ledger.state(PROJECT, NOW)
    hours = replace(DAYS, grain=Grain.HOUR)
    other = project(table("s/a", hours), fingerprint="other")
    state = ledger.state(other, NOW)
    assert state.tables.keys() == {"s/a"}
    assert state.tables["s/a"].landed_id.sum() == 0  # the key is that of a day


def test_a_replaced_log_starts_the_ledger_again(url: str) -> None:
    ledger = followed(url, [landed(1), landed(2, "s/b"), landed(3, "s/raw")])
    ledger.state(PROJECT, NOW)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM event_logs"))
    ledger.follow()
    assert ledger.landing("s/a", DAY) is None
    new = [replace(landed(number, "s/b"), at=AT + 50 + number) for number in range(1, 6)]
    write(engine, new)
    ledger.follow()
    assert plain(ledger.state(PROJECT, NOW)) == reference(PROJECT, new)


def test_a_half_rebuilt_ledger_is_never_shown(url: str) -> None:
    events = [landed(number, partition=f"2024-01-0{number}") for number in (1, 2, 3)]
    ledger = followed(url, events)

    def stop(_position: int, _head: int) -> None:
        raise InterruptedError

    ledger._restart()
    with pytest.raises(InterruptedError):
        ledger.follow(limit=1, on_page=stop)
    for one in (ledger, Ledger(url)):
        assert one.state(PROJECT, NOW).tables["s/a"].landed_id.tolist() == [1, 2, 3]


def test_progress_is_told_page_by_page(url: str) -> None:
    write(create_log(url), [landed(1), landed(2), landed(3)])
    pages: list[tuple[int, int]] = []
    assert Ledger(url).follow(limit=2, on_page=lambda *page: pages.append(page)) == 3
    assert pages == [(2, 3), (3, 3)]


def test_a_check_taken_down_to_a_warning_blocks_no_longer(url: str) -> None:
    failed = Evaluated(2, AT, "", "s/a", DAY, "c", False, "ERROR", True, "2 rows", 2)
    ledger = followed(url, [landed(1), failed])
    assert ledger.state(PROJECT, NOW).tables["s/a"].blocked.tolist() == [True, False, False]
    assert ledger.failed_checks(PROJECT, "s/a", DAY) == ["c (2 rows)"]
    warned = project(table("s/a", DAYS, tests=(check("s/a", "c", "warn"),)), fingerprint="warned")
    assert ledger.state(warned, NOW).tables["s/a"].blocked.tolist() == [False, False, False]


def evaluated(event_id: int, check: str, partition: str = DAY, **changes: Any) -> Evaluated:
    values = {"passed": False, "severity": "ERROR", "blocking": False, "test": f"test.p.{check}", **changes}
    return Evaluated(
        event_id, AT, "", "s/a", partition, check, description="", failed_rows=3, as_of=event_id, **values
    )


def test_a_failed_check_that_names_tables_bars_those_and_nobody_else(url: str) -> None:
    ledger = followed(url, [landed(1), evaluated(2, "named")])
    past = ledger.state(PROJECT, NOW).tables["s/a"]
    assert (past.landed.tolist(), past.failing) == ([True, False, False], {"named"})
    assert {key: flags.tolist() for key, flags in past.barred.items()} == {
        "s/b": [True, False, False],
        "s/whole": [True, False, False],
    }
    assert ledger.failed_checks(PROJECT, "s/a", DAY) == []
    assert ledger.failed_checks(PROJECT, "s/a", DAY, reader="s/b") == ["named (3 rows)"]


def test_a_test_that_is_gone_blocks_no_longer_and_a_check_that_t2_does_not_know_does(url: str) -> None:
    # Regression: what the project does not know might be somebody's own, so a deleted test went on blocking.
    ledger = followed(url, [landed(1), evaluated(2, "gone", blocking=True)])
    assert not ledger.state(PROJECT, NOW).tables["s/a"].blocked.any()
    write(sa.create_engine(url), [evaluated(3, "gone", blocking=True, test="")])
    ledger.follow()
    assert ledger.state(PROJECT, NOW).tables["s/a"].blocked.tolist() == [True, False, False]


def test_a_check_of_the_whole_table_blocks_what_was_built_since_it_passed(url: str) -> None:
    days = [f"2024-01-0{day}" for day in (1, 2, 3)]
    events = [
        landed(1, partition=days[0]),
        evaluated(2, "whole", days[0], passed=True),
        landed(3, partition=days[1]),
        evaluated(4, "whole", days[1]),
        landed(5, partition=days[2]),  # by a run without the check
    ]
    ledger = followed(url, events)
    blocked = [ledger.state(PROJECT, NOW).tables["s/a"].blocked.tolist()]
    for event in (
        # It passed, but for what it had seen before the second day was built.
        replace(evaluated(6, "whole", days[0], passed=True), as_of=2),
        evaluated(7, "whole", days[0], passed=True),
    ):
        write(sa.create_engine(url), [event])
        ledger.follow()
        blocked.append(ledger.state(PROJECT, NOW).tables["s/a"].blocked.tolist())
    assert blocked == [[False, True, True], [False, True, True], [False, False, False]]


def test_a_check_of_the_whole_table_that_never_passed_leaves_history_open(url: str) -> None:
    days = [f"2024-01-0{day}" for day in (1, 2, 3)]
    built = [landed(number, partition=days[number - 1]) for number in (1, 2)]
    ledger = followed(url, [*built, evaluated(3, "whole", days[1]), landed(4, partition=days[2])])
    assert ledger.state(PROJECT, NOW).tables["s/a"].blocked.tolist() == [False, True, True]
    assert ledger.failed_checks(PROJECT, "s/a", days[2]) == ["whole (3 rows)"]


def test_what_runs_did_can_be_asked(url: str) -> None:
    events: list[Event] = [
        Planned(1, AT, "r1", "s/a", DAY),
        Planned(2, AT, "r1", "s/b", DAY),
        RunChanged(3, AT + 3, "r1", "started"),
        Failed(4, AT + 4, "r1", "s/a", DAY, 0, "v1", "no such column"),
        RunChanged(5, AT + 5, "r1", "failure"),
        Planned(6, AT, "r2", "s/a", DAY),
        RunChanged(7, AT + 7, "r2", "started"),
    ]
    ledger = followed(url, events)
    assert [
        (run.run_id, run.status, run.tables, run.partitions, run.started_at) for run in ledger.active_runs()
    ] == [("r2", "started", ("s/a",), 1, AT + 7)]
    assert [(it.event_id, it.kind, it.error) for it in ledger.attempts("s/a", DAY)] == [
        (4, "failed", "no such column")
    ]
    assert [it.kind for it in ledger.attempts("s/b", DAY, upstreams=["s/a"])] == ["skipped"]
    assert ledger.failure("s/a", DAY) == "no such column"
    assert ledger.run_of("s/a", DAY) is None
    assert ledger.last_event_at() == AT + 7


def test_many_keys_become_numbers_as_one_by_one() -> None:
    keys = [
        "2024-01-01",
        "2024-02-01",
        "2024-02-02",
        "2023-12-01",
        "2024-01-01-05:00",
        "2025-01-01",
        "2024-01-08",
    ]
    for grain in Grain:
        grid = Grid.of(Partitioning(grain, datetime(2024, 1, 1), "at"))
        for some in (keys, keys[:3], keys[4:5], ["2024-01-01T05:00"], ["2024"], [""], ["junk"], []):
            wanted = grid.indices(some)
            wanted[wanted >= 9] = -1
            assert positions(grid, some, 9).tolist() == wanted.tolist()
    assert positions(None, ["", "x"], 1).tolist() == [0, -1]


def test_threads_and_ledgers_may_follow_at_once(url: str) -> None:
    events = [landed(number, partition=f"2024-01-0{number % 9 + 1}") for number in range(1, 400)]
    write(create_log(url), events)
    ledgers = [Ledger(url), Ledger(url)]
    threads = [threading.Thread(target=ledger.follow, args=(20,)) for ledger in [*ledgers, *ledgers]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    once = content(ledgers[0])
    assert ledgers[0].cursor == 399
    ledgers[1].rebuild()
    assert content(ledgers[0]) == once


def test_ids_that_commit_late_on_postgres_are_not_missed(postgres: str) -> None:
    engine = create_log(postgres)
    now = datetime.now(timezone.utc).timestamp()
    first, late, high = (replace(landed(n, partition=f"2024-01-0{n}"), at=now) for n in (1, 2, 3))
    write(engine, [first])
    ledger = Ledger(postgres)
    ledger.follow()
    with engine.connect() as slow:
        slow.execute(INSERT, [row_of(late)])
        write(engine, [high])
        assert ledger.follow() == 1
        assert (ledger.cursor, ledger.follow()) == (1, 0)
        assert ledger.state(PROJECT, NOW).tables["s/a"].landed_id.tolist() == [1, 0, 3]
        assert ledger.has_news()  # the head is known, but something below it may come
        restarted = Ledger(postgres)
        assert (restarted.follow(), restarted.cursor) == (1, 1)
        slow.commit()
    assert (ledger.follow(), ledger.cursor, ledger.follow(), ledger.has_news()) == (1, 3, 0, False)
    assert (restarted.follow(), restarted.cursor) == (0, 3)
    assert ledger.state(PROJECT, NOW).tables["s/a"].landed_id.tolist() == [1, 2, 3]


def test_an_id_that_never_comes_on_postgres_is_given_up(postgres: str) -> None:
    engine = create_log(postgres)
    now = datetime.now(timezone.utc).timestamp()
    write(engine, [replace(landed(1), at=now), replace(landed(3, "s/b"), at=now)])
    patient, quick = Ledger(postgres, settle_seconds=3600), Ledger(postgres, settle_seconds=0)
    patient.follow()
    assert patient.cursor == 1
    quick.follow()
    assert quick.cursor == 3
    patient.follow()
    assert patient.cursor == 3


def test_two_followers_on_postgres_do_each_other_no_harm(postgres: str) -> None:
    events = [landed(number, partition=f"2024-01-0{number % 9 + 1}") for number in range(1, 200)]
    write(create_log(postgres), events)
    ledgers = [Ledger(postgres), Ledger(postgres)]
    threads = [threading.Thread(target=ledger.follow, args=(20,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledgers[0].cursor == 199
    assert np.array_equal(ledgers[0].state(PROJECT, NOW).tables["s/a"].landed_id, [198, 199, 191])


def test_a_target_that_is_reported_after_its_run_has_ended_waits_for_nobody(url: str) -> None:
    # Regression: a daemon was killed before it had stored what a run builds; the run came back as queued.
    ended = [RunChanged(1, AT, "r1", "queued"), RunChanged(2, AT + 1, "r1", "failure")]
    ledger = followed(url, [*ended, Planned(3, AT + 2, "r1", "s/a", DAY)])
    past = ledger.state(PROJECT, NOW).tables["s/a"]
    assert past.active_runs == 0
    assert not past.active.any()
    assert ledger.active_run_ids() == set()
