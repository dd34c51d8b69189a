"""Policies and upstream windows, as they are written and as they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.project.projects import write_project

import t2
from t2.cli.parse import command
from t2.errors import ProjectError
from t2.project.model import Cron, LateData, Project, Upstream

DAY = "materialized: partitioned, event_time: day, batch_size: day, begin: 2024-01-01"
FIVE = "30 5 * * 1-5"
NEW_YORK = f'{{timezone: America/New_York, automation: {{cron: "{FIVE}"}}}}'
BASE = {
    "dbt_project.yml": """
        name: shop
        version: "1.0"
        profile: shop
        flags: {send_anonymous_usage_stats: false}
        models:
          shop:
            marts:
              +meta: {t2: {automation: {cron: "0 6 * * *", tz: Europe/Berlin}, late_data: {within: 7d}}}
        """,
    "profiles.yml": """
        shop:
          target: dev
          outputs: {dev: {type: duckdb, path: shop.duckdb, schema: main}}
        """,
    "models/a.sql": "select 1 as id, date '2024-01-01' as day",
    "models/b.sql": "select * from {{ ref('a') }}",
    "models/whole.sql": "select 1 as id",
    "models/seen.sql": "{{ config(materialized='view') }} select * from {{ ref('a') }}",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    files = {
        **BASE,
        "models/models.yml": f"""
            models:
              - name: a
                config: {{{DAY}}}
              - name: b
                config: {{{DAY}, meta: {{t2: {NEW_YORK}}}}}
              - name: whole
                config: {{materialized: table}}
              - name: seen
                config: {{event_time: day}}
            """,
        "models/marts/one.sql": "select a.* from {{ ref('a') }} as a, {{ ref('b') }}, {{ ref('whole') }}",
        "models/marts/two.sql": "select b.* from {{ ref('b') }} as b, {{ ref('seen') }}",
        "models/marts/models.yml": """
            models:
              - name: one
                config:
                  materialized: partitioned
                  event_time: day
                  batch_size: day
                  begin: 2024-01-01
                  meta:
                    t2:
                      automation: eager
                      late_data: {action: ignore}
                      upstream:
                        a: {lookback: 36h, shift: -1h, required: false, wait: 2h}
                        b: {window: latest, on_update: rerun}
                        whole: {on_update: rerun}
              - name: two
                config:
                  materialized: table
                  meta: {t2: {upstream: {seen: {on_update: ignore}, b: {window: latest}}}}
            """,
    }
    return t2.load_project(write_project(tmp_path_factory.mktemp("policies"), files))


def test_a_policy_of_a_folder_holds_unless_a_table_has_its_own(project: Project) -> None:
    assert {table.name: table.automation for table in project.tables.values()} == {
        "a": "eager",
        "b": Cron(FIVE, "America/New_York"),
        "whole": "eager",
        "seen": "eager",
        "one": "eager",
        "two": Cron("0 6 * * *", "Europe/Berlin"),
    }
    assert project.tables["main/one"].late_data == LateData(7 * 86400, "ignore")
    assert project.tables["main/two"].late_data == LateData(7 * 86400, "rerun")


def test_windows_are_read_as_they_are_written(project: Project) -> None:
    assert project.tables["main/one"].upstreams == (
        Upstream("main/a", back_seconds=36 * 3600, shift_seconds=-3600, required=False, wait_seconds=7200),
        Upstream("main/b", window="latest", on_update="rerun"),
        Upstream("main/whole", on_update="rerun"),
    )
    assert project.tables["main/two"].upstreams == (
        Upstream("main/b", window="latest"),
        Upstream("main/seen", on_update="ignore"),
        Upstream("main/a", through=("seen",), on_update="ignore"),
    )


def test_t2_parse_prints_them(project: Project) -> None:
    printed = CliRunner().invoke(command, ["--project-dir", project.root]).stdout
    assert (
        "main/a (lookback 36h, shift -1h, not required after 2h), main/b (latest, on update: rerun)"
        in printed
    )


WRONG = {
    'automation: {cron: "0 25 * * *"}': "automation is {'cron': '0 25 * * *'}; expected eager, manual or",
    'automation: {cron: "0 6 * * * *"}': "automation is {'cron': '0 6 * * * *'}; expected eager, manual or",
    'automation: {cron: "0 6 * * *", tz: Mars}': "'tz': 'Mars'}; expected eager, manual or",
    "late_data: {within: week}": "meta.t2.late_data.within is 'week'; expected a duration",
    "upstream: {a: {window: newest}}": "a.window is 'newest'; expected overlap, latest or all",
    "upstream: {a: {window: all, lookback: 2}}": "lookback on a, of which `window: all` is read",
    "upstream: {a: {window: latest, shift: 1h}}": "shift on a, of which `window: latest` is read",
    "upstream: {a: {wait: 1h}}": "wait on a, which is required",
    "upstream: {a: {window: all, required: false}}": "required: false on a, all of which is read",
    "upstream: {whole: {required: false}}": "required: false on whole, which has no partitions",
    "upstream: {whole: {window: latest}}": "window on an unpartitioned upstream: whole",
    "upstream: {t12: {lookback: 2d}}": "t12 reads itself with a lookback of a duration",
    "upstream: {t13: {lookback: 1, window: all}}": "window on t13 itself",
}


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    models = [
        "models:",
        f"  - {{name: a, config: {{{DAY}}}}}",
        "  - {name: whole, config: {materialized: table}}",
    ]
    files = {name: text for name, text in BASE.items() if not name.endswith(("b.sql", "seen.sql"))}
    for number, settings in enumerate(WRONG, 1):
        models.append(f"  - {{name: t{number}, config: {{{DAY}, meta: {{t2: {{{settings}}}}}}}}}")
        files[f"models/t{number}.sql"] = "select a.* from {{ ref('a') }} as a, {{ ref('whole') }}"
    with pytest.raises(ProjectError) as error:
        t2.load_project(write_project(tmp_path, {**files, "models/models.yml": "\n".join(models)}))
    found = [problem.message for problem in error.value.problems]
    assert [message for message in WRONG.values() if not any(message in text for text in found)] == []
    assert len(found) == len(WRONG)
