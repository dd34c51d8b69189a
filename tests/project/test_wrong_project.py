"""One project with every mistake, parsed by dbt once: all of them are reported together."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.project.projects import write_project
from tests.project.wrong import WRONG

import t2
from t2.errors import ProjectError

SOURCE_HINT = (
    "add config: {event_time: ..., meta: {t2: {batch_size: ..., begin: ...}}}, "
    "or meta: {t2: {static: true}} if it has no partitions on purpose"
)
LOOP = "Found a cycle: model.shop.around --> model.shop.about --> model.shop.around"
SAME_KEY = "two tables with the key raw/untimed: source.shop.raw.untimed and source.shop.again.renamed"


def test_every_mistake_is_reported_with_its_line_and_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as raised:
        t2.load_project(write_project(tmp_path, WRONG))

    found = {
        (p.where, p.message, p.hint if "it is" not in (p.hint or "") else "now")
        for p in raised.value.problems
    }
    assert found == {
        (
            "dbt_project.yml:9",
            "meta.t2.timezone is 'Europe/Berln'; expected an IANA time zone such as Europe/Berlin",
            "did you mean Europe/Berlin?",
        ),
        ("models/again.yml:3", SAME_KEY, "give one of them another schema or alias"),
        (
            "models/around.sql:1",
            LOOP,
            "remove one of the refs; a table reads its own earlier partitions with t2.window('its own name')",
        ),
        ("models/in_sql.sql:6", "meta.t2.retries.attempts is -1; expected a whole number, 0 or more", None),
        ("models/models.yml:7", "unknown key meta.t2.backfil", "did you mean backfill?"),
        (
            "models/models.yml:8",
            "unknown key meta.t2.materialized",
            "materialized is dbt's own: write it under config, beside meta",
        ),
        (
            "models/models.yml:13",
            "meta.t2.automation is 'manul'; expected eager, manual or "
            '`{cron: "0 6 * * *", tz: Europe/Berlin}`',
            "did you mean manual?",
        ),
        (
            "models/models.yml:15",
            "meta.t2.backfill.partitions_per_run is 0; expected a whole number, 1 or more",
            None,
        ),
        (
            "models/models.yml:16",
            "meta.t2.retries.wait is '5 minutes'; expected a duration such as 30s, 5m, 2h or 7d",
            None,
        ),
        ("models/models.yml:17", "meta.t2.upstream must be a mapping, not ['whole']", None),
        (
            "models/models.yml:21",
            "begin_missing has a batch_size but no begin",
            "write the first day, such as begin: 2013-01-01, under config",
        ),
        ("models/models.yml:26", "begin is in the future: 2999-01-01 00:00:00", "now"),
        (
            "models/models.yml:29",
            "time_missing has a batch_size but no event_time",
            "name the column that holds the time of each row under config",
        ),
        (
            "models/models.yml:32",
            "a table is built as a whole, so it has no batch_size",
            "use materialized: partitioned, or remove batch_size",
        ),
        ("models/models.yml:34", "batch_size is 'minute'; expected hour, day, week, month or year", None),
        ("models/models.yml:36", "begin is 'yesterday'; expected a date or time such as 2013-01-01", None),
        (
            "models/models.yml:44",
            "dbt's microbatch cuts hours, days, months and years of UTC only",
            "use materialized: partitioned for weeks and other time zones",
        ),
        (
            "models/models.yml:53",
            "window on an unpartitioned upstream: whole has no partitions to look back to",
            "remove the lookback, or partition it",
        ),
        ("models/models.yml:54", "windows does not read god", "did you mean good?"),
        (
            "models/models.yml:55",
            "meta.t2.upstream.good.lookback is -1; expected a whole number of partitions, 0 or more, "
            "or a duration such as 90m or 3d",
            None,
        ),
        (
            "models/models.yml:59",
            "lookback on good, but unpartitioned has no partitions to look back from",
            "give it event_time, batch_size and begin",
        ),
        ("models/models.yml:69", "meta.t2.scope is 'row'; expected partition, table or keys", None),
        ("models/models.yml:75", "meta.t2.when is 'dayly'; expected landing or daily", "did you mean daily?"),
        ("models/models.yml:76", "meta.t2.at is '7:30'; expected a time of day such as 06:00", None),
        (
            "models/models.yml:77",
            "meta.t2.blocks of unique_good_t, whose severity is warn: it holds back nothing",
            "remove blocks, or give it severity error",
        ),
        (
            "models/models.yml:77",
            "whole does not read good",
            "its readers are microbatch_in_berlin, plain_view, unpartitioned, windows",
        ),
        (
            "models/models.yml:83",
            "meta.t2.at is for tests that run daily",
            "add when: daily, or remove it",
        ),
        ("models/models.yml:84", "unpartitoned does not read good", "did you mean unpartitioned?"),
        (
            "models/models.yml:85",
            "meta.t2.scope is keys, which is for dbt's unique on a column of a table or source",
            "write partition or table",
        ),
        (
            "models/sources.yml:4",
            "source raw.untimed has neither event_time nor batch_size, but partitioned tables read it",
            SOURCE_HINT,
        ),
        (
            "models/sources.yml:5",
            "source raw.no_size has no batch_size, but partitioned tables read it",
            SOURCE_HINT,
        ),
        (
            "models/sources.yml:12",
            "raw.no_begin has a batch_size but no begin",
            "write the first day, such as begin: 2013-01-01, under meta.t2",
        ),
        ("models/sources.yml:16", "a static source has no batch_size", "remove one of the two"),
        ("models/sources.yml:23", "unknown key meta.t2.monitor.evry", "did you mean every?"),
        (
            "models/sources.yml:24",
            "meta.t2.monitor.grace is 'soon'; expected a duration such as 30s, 5m, 2h or 7d",
            None,
        ),
        (
            "models/windows.sql:2",
            "window on an unpartitioned upstream: whole has no partitions",
            "read it with ref('whole'), or give it event_time, batch_size and begin",
        ),
        (
            "models/windows.sql:4",
            "self reference without lookback: the SQL reads t2.window('windows')",
            "add meta: {t2: {upstream: {windows: {lookback: 1}}}}",
        ),
        (
            "models/windows.sql:5",
            "t2.window('plain_view') filters by the event time of plain_view, which has none",
            "set event_time in the config of plain_view",
        ),
    }
