"""Where the time of the runs went, read from Dagster's event log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg

from t2.project.model import Project

Partition = str | None
T = dg.DagsterEventType


@dataclass
class Parts:
    """Sums over all runs, in seconds.

    `planner`: from the landing of a run's last input to its request. `queue`: to the launch. `launch`: to the
    first step. Then what dbt and the warehouse took for tables and for tests, and `rest`: Dagster's steps and
    event log. `ready_to_landed` has one value a materialization: from its last input's landing to its own.
    """

    runs: int = 0
    materializations: int = 0
    checks: int = 0
    planner: float = 0.0
    queue: float = 0.0
    launch: float = 0.0
    dbt: float = 0.0
    warehouse: float = 0.0
    tests_dbt: float = 0.0
    tests_warehouse: float = 0.0
    rest: float = 0.0
    ready_to_landed: list[float] = field(default_factory=list)


def parts_of(instance: dg.DagsterInstance, project: Project, since: float) -> Parts:
    """Read all runs that were requested after `since` (epoch seconds)."""
    parts = Parts()
    landings = _landings(instance, project)
    for record in instance.get_run_records():
        if record.create_timestamp.timestamp() < since or record.start_time is None:
            continue
        created, started, ended = record.create_timestamp.timestamp(), record.start_time, record.end_time or 0
        launched, seconds = started, 0.0
        ready: list[float] = []
        parts.runs += 1
        for entry in instance.all_logs(record.dagster_run.run_id):
            event = entry.dagster_event
            if event is None:
                continue
            if event.event_type is T.PIPELINE_STARTING:
                launched = entry.timestamp
            elif event.event_type is T.ASSET_MATERIALIZATION:
                made = event.step_materialization_data.materialization
                key, spent = "/".join(made.asset_key.path), _spent(made.metadata)
                parts.materializations += 1
                parts.dbt += spent[0] - spent[1]
                parts.warehouse += spent[1]
                seconds += spent[0]
                last_input = max(
                    _inputs(project, landings, key, made.partition, entry.timestamp), default=None
                )
                if last_input is not None:
                    parts.ready_to_landed.append(round(entry.timestamp - last_input, 3))
                    ready.append(min(last_input, created))
            elif event.event_type is T.ASSET_CHECK_EVALUATION:
                spent = _spent(event.asset_check_evaluation_data.metadata)
                parts.checks += 1
                parts.tests_dbt += spent[0] - spent[1]
                parts.tests_warehouse += spent[1]
                seconds += spent[0]
        parts.planner += created - max(ready, default=created)
        parts.queue += launched - created
        parts.launch += started - launched
        parts.rest += ended - started - seconds
    return parts


def _spent(metadata: dict[str, dg.MetadataValue]) -> tuple[float, float]:
    names = ("t2/execution_seconds", "t2/warehouse_seconds")
    whole, warehouse = (float(getattr(metadata.get(name), "value", None) or 0.0) for name in names)
    return whole, warehouse


def _landings(instance: dg.DagsterInstance, project: Project) -> dict[str, list[tuple[float, Partition]]]:
    """Return when each table and source landed which partition."""
    found: dict[str, list[tuple[float, Partition]]] = defaultdict(list)
    for node in project.nodes():
        key, cursor, more = dg.AssetKey(node.key.split("/")), None, True
        while more:
            page = instance.fetch_materializations(key, limit=1000, cursor=cursor)
            cursor, more = page.cursor, page.has_more
            found[node.key] += [(record.timestamp, record.partition_key) for record in page.records]
    return found


def _inputs(
    project: Project,
    landings: dict[str, list[tuple[float, Partition]]],
    key: str,
    partition: Partition,
    before: float,
) -> Iterator[float]:
    """Yield when the partitions landed that a partition reads; there is one day and no lookback."""
    for upstream in project.tables[key].upstreams:
        hours = partition is not None and ":" in partition
        for at, label in landings[upstream.key]:
            if at < before and (not hours or label == partition):
                yield at
