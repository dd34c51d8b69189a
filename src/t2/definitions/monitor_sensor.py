"""The sensor that looks at source tables and records which of their partitions have landed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import dagster as dg

from t2.definitions._dagster.tags import DATA_VERSION_TAG
from t2.ledger.ledger import Ledger
from t2.project.model import Project, Source

# How long a tick goes on looking before it ends; the daemon's patience with a sensor is 60 s.
PATIENCE_SECONDS = 15.0


class Monitors:
    """Looks at each source at its own pace; what was reported before is known from the ledger."""

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self.project = project
        self.ledger = ledger
        self.sources = [source for source in project.sources.values() if source.monitor.enabled]
        self._next: dict[str, float] = {source.key: 0.0 for source in self.sources}

    def due(self, clock: float) -> list[Source]:
        """Return the sources whose look is due on a monotonic clock, and wind their clocks."""
        found = [source for source in self.sources if self._next[source.key] <= clock]
        for source in found:
            self._next[source.key] = clock + source.monitor.every_seconds
        return found

    def wait(self, clock: float) -> float:
        """Return the seconds until the next look."""
        return max(min(self._next.values(), default=clock + PATIENCE_SECONDS) - clock, 0.05)

    def look(self, sources: list[Source], now: datetime) -> Iterator[dg.AssetMaterialization]:
        """Query each source once and yield what landed or changed since it was reported."""
        from t2.runtime import monitors, warehouse
        from t2.runtime.warm import Warm

        warm = Warm.of(self.project)
        with warehouse.session(warm):
            seen = {source.key: monitors.look(warm, source, now=now) for source in sources}
        self.ledger.follow()
        for source in sources:
            known = self.ledger.fingerprints(source.key)
            for key, fingerprint in seen[source.key].items():
                if known.get(key or "", "") != fingerprint:
                    yield _landed(source, key, fingerprint)


def monitor_sensor(
    project: Project, open_ledger: Callable[[dg.DagsterInstance], Ledger]
) -> dg.SensorDefinition:
    """Build the sensor `t2_monitors`; it is running by default."""
    known: dict[str, Monitors] = {}

    @dg.sensor(
        name="t2_monitors",
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at each source table and records the partitions that have landed or changed.",
    )
    def t2_monitors(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance_id = str(context.instance_ref)
        if instance_id not in known:
            known[instance_id] = Monitors(project, open_ledger(context.instance))
        monitors = known[instance_id]
        threads = bool(context.instance.get_sensor_settings().get("use_threads"))
        deadline = time.monotonic() + (PATIENCE_SECONDS if threads else 0.0)
        while True:
            due = monitors.due(time.monotonic())
            events = list(monitors.look(due, datetime.now(timezone.utc))) if due else []
            if events:
                return dg.SensorResult(asset_events=events)
            if time.monotonic() >= deadline:
                return dg.SkipReason("no source has news")
            time.sleep(min(monitors.wait(time.monotonic()), max(deadline - time.monotonic(), 0.05)))

    return t2_monitors


def _landed(source: Source, key: str | None, fingerprint: str) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=source.key.split("/"),
        partition=key,
        metadata={"t2/fingerprint": fingerprint},
        tags={DATA_VERSION_TAG: fingerprint},
    )
