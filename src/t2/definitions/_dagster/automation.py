"""Dagster's declarative automation as a display: conditions, the sensor of their kind, evaluations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.definitions.declarative_automation.operators import OrAutomationCondition
from dagster._core.definitions.declarative_automation.serialized_objects import (
    AssetSubsetWithMetadata,
    AutomationConditionEvaluation,
    AutomationConditionNodeSnapshot,
    HistoricalAllPartitionsSubsetSentinel,
)
from dagster._core.definitions.metadata import normalize_metadata
from dagster._core.definitions.partitions.subset import (
    DefaultPartitionsSubset,
    PartitionsSubset,
    TimeWindowPartitionsSubset,
)
from dagster._core.definitions.sensor_definition import SensorType

Evaluation = AutomationConditionEvaluation[dg.AssetKey]
Subset = SerializableEntitySubset[dg.AssetKey]


@cache
def never(label: str) -> dg.AutomationCondition[Any]:
    """Return a condition that is false for every partition and looks at nothing: any of no conditions."""
    return OrAutomationCondition(operands=[]).with_label(label)


class AutomationSensor(dg.SensorDefinition):
    """A sensor with a function of its own that Dagster takes for the one that evaluates conditions.

    So it adds none of its own for the assets that this one targets, and shows this one on their pages.
    """

    @property
    def sensor_type(self) -> SensorType:
        """The kind of sensor whose function runs in the code server, not in the asset daemon."""
        return SensorType.AUTOMATION

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> AutomationSensor:
        """Return a copy with other metadata; it has no jobs."""
        changed = copy.copy(self)
        if metadata is not None:
            changed._metadata = normalize_metadata(metadata)
        return changed


class KnownAssets(dg.AssetSelection):
    """Some assets and all checks on them; cheap to resolve, as is done for each run that is requested."""

    def __init__(self, built: Set[dg.AssetKey], checked: Set[dg.AssetKey]) -> None:
        self.built = built
        self.checked = checked

    def resolve_inner(self, asset_graph: Any, allow_missing: bool) -> Set[dg.AssetKey]:
        """The assets as far as the code location has them."""
        materializable: Set[dg.AssetKey] = asset_graph.materializable_asset_keys
        return self.built & materializable

    def resolve_checks_inner(self, asset_graph: Any, allow_missing: bool) -> Set[dg.AssetCheckKey]:
        """The checks on the assets."""
        return {check for check in asset_graph.asset_check_keys if check.asset_key in self.checked}

    def to_serializable_asset_selection(self, asset_graph: Any) -> dg.AssetSelection:
        """Say it in Dagster's words: a name for each asset only if there are others beside them."""
        if self.built >= asset_graph.materializable_asset_keys:
            return dg.AssetSelection.all()
        return dg.AssetSelection.assets(*sorted(self.resolve_inner(asset_graph, allow_missing=True)))


def tick_id(context: dg.SensorEvaluationContext) -> int | None:
    """Return the id of a sensor's tick, None if it is evaluated outside the daemon."""
    key = context.log_key
    return int(key[-1]) if key and key[-1].isdigit() else None


def whole(key: dg.AssetKey, *, there: bool) -> Subset:
    """Return an asset without partitions, or nothing of it."""
    return SerializableEntitySubset(key, there)


def keyed(key: dg.AssetKey, partitions: Iterable[str]) -> Subset:
    """Return a few partitions of an asset."""
    return SerializableEntitySubset(key, DefaultPartitionsSubset(set(partitions)))


def windows(
    key: dg.AssetKey,
    cut: dg.TimeWindowPartitionsDefinition,
    count: int,
    ranges: Iterable[tuple[datetime, datetime]],
) -> Subset:
    """Return `count` partitions of an asset as time windows, which may be fewer than all of theirs."""
    spans = [dg.TimeWindow(start, end) for start, end in ranges]
    value: PartitionsSubset = TimeWindowPartitionsSubset(cut, count, spans)
    return SerializableEntitySubset(key, value)


def node(
    mark: str,
    label: str,
    true: Subset,
    candidates: Subset | None,
    children: Sequence[Evaluation] = (),
    metadata: tuple[Subset, Mapping[str, str]] | None = None,
) -> Evaluation:
    """Return one condition of an evaluation's tree.

    `mark`: unique in the tree. `candidates`: what it was evaluated for, None: all partitions. `metadata`:
    some partitions of the asset and what is to say of them.
    """
    told = [AssetSubsetWithMetadata(metadata[0], normalize_metadata(metadata[1]))] if metadata else []
    return AutomationConditionEvaluation(
        condition_snapshot=AutomationConditionNodeSnapshot(
            class_name="T2", description=label, unique_id=mark, label=label, operator_type="and"
        ),
        start_timestamp=None,
        end_timestamp=None,
        true_subset=true,
        candidate_subset=HistoricalAllPartitionsSubsetSentinel() if candidates is None else candidates,
        subsets_with_metadata=told,
        child_evaluations=list(children),
    )
