"""Stored pauses: they hold until they are ended or over, and are kept over rebuilds."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest
from tests.ledger.event_log import create_log
from tests.ledger.projects import DAYS, NOW, project, source, table

from t2.ledger.ledger import Ledger

MADE = project(source("raw/s", DAYS), table("m/t", DAYS), table("m/u", DAYS))
AT = NOW.timestamp()


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    url = (
        request.getfixturevalue("postgres")
        if request.param == "postgres"
        else f"sqlite:///{tmp_path}/index.db"
    )
    create_log(url)
    made = Ledger(url, settle_seconds=0)
    made.follow()
    return made


def test_pauses_hold_until_they_are_over_or_ended(ledger: Ledger) -> None:
    assert ledger.state(MADE, NOW).paused == {}
    assert not ledger.has_news()
    ledger.pauses.pause(["m/t", "m/u"], reason="why", by="me", at=AT, until=AT + 60)
    assert ledger.has_news()
    assert {key: pause.until for key, pause in ledger.state(MADE, NOW).paused.items()} == {
        "m/t": AT + 60,
        "m/u": AT + 60,
    }
    assert not ledger.has_news()
    ledger.rebuild()
    assert ledger.state(MADE, NOW + timedelta(seconds=59)).paused.keys() == {"m/t", "m/u"}
    assert ledger.state(MADE, NOW + timedelta(seconds=60)).paused == {}
    assert ledger.pauses.resume(["m/t"], by="you", at=AT + 1) == ["m/t"]
    assert ledger.has_news()
    assert ledger.state(MADE, NOW).paused.keys() == {"m/u"}
    assert ledger.pauses.resume(["m/t"], by="you", at=AT + 2) == []
    assert ledger.pauses.resume(["m/u"], by="you", at=AT + 61) == []  # it is over
    ended = [(record.table, record.ended_by) for record in ledger.pauses.all()]
    assert ended == [("m/u", None), ("m/t", "you")]


def test_a_new_pause_of_a_table_takes_the_place_of_the_old_one(ledger: Ledger) -> None:
    ledger.pauses.pause(["m/t"], reason="one", by="me", at=AT, until=AT + 60)
    ledger.pauses.pause(["m/t"], reason="two", by="you", at=AT + 1, until=None)
    [pause] = ledger.pauses.paused(AT + 100).values()
    assert (pause.reason, pause.by, pause.until) == ("two", "you", math.inf)
    ended = [(record.reason, record.ended_at) for record in ledger.pauses.all()]
    assert ended == [("two", None), ("one", AT + 1)]
