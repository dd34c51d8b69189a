"""Stored requests: one at a time, kept over rebuilds, right after the log was replaced."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.ledger.event_log import create_log, write
from tests.ledger.projects import DAYS, NOW, project, source, table

from t2.errors import NotFound
from t2.ledger.backfill_store import Backfills
from t2.ledger.backfills import Span
from t2.ledger.events import Materialized
from t2.ledger.ledger import Ledger

MADE = project(source("raw/s", DAYS), table("m/t", DAYS), table("m/whole"))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres")
        return found
    return f"sqlite:///{tmp_path}/index.db"


def ask(backfills: Backfills, *spans: Span, seen: int | None = None) -> int | None:
    seen = backfills.seq() if seen is None else seen
    return backfills.ask(spans, asked="t --all", asked_by="me", reason="why", at=1.0, seen=seen)


def landed(event_id: int, day: int) -> Materialized:
    return Materialized(event_id, 1.0, "", "m/t", f"2024-01-0{day}", event_id - 1, "v1")


def test_requests_are_stored_change_and_end(url: str) -> None:
    engine = create_log(url)
    write(engine, [landed(7, 1)])
    ledger = Ledger(url, settle_seconds=0)
    ledger.follow()
    assert not ledger.state(MADE, NOW).wanted
    assert not ledger.has_news()
    number = ask(ledger.backfills, Span("m/t", "2024-01-02", "2024-01-03"), Span("m/whole", "", ""))
    assert number == 1
    assert ledger.has_news()
    wanted = ledger.state(MADE, NOW).wanted
    assert {key: (w.backfill.tolist(), w.since.tolist()) for key, w in wanted.items()} == {
        "m/t": ([0, 1, 1], [0, 8, 8]),
        "m/whole": ([1], [8]),
    }
    assert not ledger.has_news()
    ledger.rebuild()
    assert ledger.state(MADE, NOW).wanted.keys() == wanted.keys()

    first = ledger.backfills.get(1)
    assert ledger.backfills.end(first, "failed", {"done": 2}, 5.0)
    assert not ledger.backfills.end(first, "done", {}, 6.0)  # it changed since it was read
    assert not ledger.state(MADE, NOW).wanted
    ended = ledger.backfills.get(1)
    assert (ended.state, ended.ended_at, ended.counts) == ("failed", 5.0, {"done": 2})
    write(engine, [landed(9, 2)])
    assert ledger.backfills.renew(ended, [Span("m/t", "2024-01-03", "2024-01-03")], [first.spans[1]])
    ledger.follow()
    wanted = ledger.state(MADE, NOW).wanted
    assert wanted["m/t"].since.tolist() == [0, 0, 10]
    assert wanted["m/whole"].since.tolist() == [8]
    with pytest.raises(NotFound, match="no backfill 2"):
        ledger.backfills.get(2)
    engine.dispose()
    ledger.engine.dispose()


def test_of_two_requests_at_once_one_has_to_look_again(url: str) -> None:
    create_log(url).dispose()
    ledgers = [Ledger(url, settle_seconds=0) for _ in range(4)]
    seen, found = ledgers[0].backfills.seq(), []

    def work(ledger: Ledger) -> None:
        found.append(ask(ledger.backfills, Span("m/t", "2024-01-01", "2024-01-01"), seen=seen))

    threads = [threading.Thread(target=work, args=[ledger]) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=str) == [1, None, None, None]
    for ledger in ledgers:
        ledger.engine.dispose()


def test_the_newer_of_two_requests_counts_and_a_log_that_is_another_one_is_the_past(url: str) -> None:
    engine = create_log(url)
    write(engine, [landed(7, 1)])
    ledger = Ledger(url, settle_seconds=0)
    ask(ledger.backfills, Span("m/t", "2024-01-01", "2024-01-02"))
    write(engine, [landed(20, 1)])
    ask(ledger.backfills, Span("m/t", "2024-01-02", "2024-01-03"), Span("gone/t", "", ""))
    ledger.follow()
    wanted = ledger.state(MADE, NOW).wanted["m/t"]
    assert (wanted.backfill.tolist(), wanted.since.tolist()) == ([1, 2, 2], [8, 21, 21])
    with engine.begin() as connection:
        connection.execute(sa.text("delete from event_logs where id = 20"))
    assert {span.since for backfill in ledger.backfills.running() for span in backfill.spans} == {8}
    engine.dispose()
    ledger.engine.dispose()
