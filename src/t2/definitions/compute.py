"""What the op of a table does: build its partitions, test them, and report both to Dagster as they happen.

A materialization is yielded the moment its partitions are in the warehouse, so that a crash keeps what has
landed. Dagster would record all partitions of the run once more when the op gives its output; the output is
therefore a silent one (`silent_output`).

What reads a table in the same run is kept from partitions that failed a check. A check that blocks all
readers fails the step, and Dagster skips what depends on it. A check that blocks named tables is looked up
by those before they build (`gates`); a step that leaves a partition out gives no output, and so is skipped
what reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg

from t2.definitions._dagster.assets import Compute, without_inputs
from t2.definitions._dagster.events import (
    AssetCheckEvaluation,
    check_targets,
    events_of_ancestors,
    head,
    is_retry,
    output_name,
    silent_output,
    version_tags,
)
from t2.definitions._dagster.sqlite import one_transaction
from t2.definitions.gates import closed
from t2.definitions.latest import latest
from t2.errors import DbtError, NodeFailed, T2Error
from t2.ledger.gates import with_rows
from t2.project.model import Project, Source, Table, Test

if TYPE_CHECKING:
    from t2.runtime.build import Built, Checked
    from t2.runtime.nodes import NodeResult
    from t2.runtime.warm import Warm

FOLD = 10

Key = str | None
Event = Any  # what an op may yield: dg.AssetMaterialization, AssetCheckEvaluation, AssetObservation, Output


def compute(project: Project, nodes: Mapping[str, Table | Source]) -> Compute:
    """Return the function that all ops of a project share; the op's name says which table it builds."""

    def run(context: dg.OpExecutionContext) -> Iterator[Event]:
        name = context.op_def.name
        yield from Step(project, nodes[name.removesuffix("__checks")], context).events()

    return without_inputs(run)


class Step:
    """One op of one run."""

    def __init__(self, project: Project, node: Table | Source, context: dg.OpExecutionContext) -> None:
        self.project = project
        self.node = node
        self.context = context
        self.instance = context.instance
        self.asset_key = dg.AssetKey(node.key.split("/"))
        names = {key.name for key in context.selected_asset_check_keys}
        self.tests = tuple(test for test in node.tests if test.name in names)
        self.builds = isinstance(node, Table) and self.asset_key in context.selected_asset_keys
        self.keys = _partition_keys(node, context)
        self.left: list[Key] = []  # what is to be built and is not in the warehouse yet
        self.skipped: dict[Key, str] = {}  # what may not be built now, and why
        self.failed: list[tuple[Checked, Key]] = []  # checks that hold back all that reads the partition
        self.closed = ""  # the checks that hold back the table's own next partitions
        self.as_of = 0  # the head of the log before the tests looked at the table

    def events(self) -> Iterator[Event]:
        """Yield everything the step tells Dagster; raise dg.Failure with dbt's own message."""
        done = self._landed_before()
        if done:
            self.context.log.info(
                f"{len(done)} of {len(self.keys)} partitions landed in the run that is retried"
            )
        todo = [key for key in self.keys if key not in done]
        if todo and self.builds:
            assert isinstance(self.node, Table)
            self.skipped = closed(self.project, self.instance, self.context.run, self.node, todo, _now())
            todo = [key for key in todo if key not in self.skipped]
        if todo:
            yield from self._work(todo)
        yield from self._skips()
        if self.failed:
            raise self._checks_failed()
        yield from self._outputs()

    def _work(self, keys: Sequence[Key]) -> Iterator[Event]:
        from t2.runtime import warehouse
        from t2.runtime.warm import Warm

        as_of = head(self.instance)
        self.left = list(keys)
        try:
            warm = Warm.of(self.project)
            with warehouse.session(warm):
                for part in self._parts(keys):
                    yield from self._build(warm, part) if self.builds else self._check(warm, part)
                    if self.closed:
                        self.skipped.update(dict.fromkeys(self.left, self.closed))
                        break
        except (NodeFailed, DbtError) as error:
            yield from self._failures(error, as_of)
            raise self._failure(error) from None

    def _parts(self, keys: Sequence[Key]) -> Iterator[list[Key]]:
        """Yield what is built one after the other: a table that reads itself waits for each one's checks."""
        if self._reads_itself:
            yield from ([key] for key in keys)
        else:
            yield from _contiguous(keys, self.keys)

    @property
    def _reads_itself(self) -> bool:
        return self.builds and isinstance(self.node, Table) and self.node.reads_itself

    def _build(self, warm: Warm, keys: Sequence[Key]) -> Iterator[Event]:
        from t2.runtime.build import Built, build

        assert isinstance(self.node, Table)
        targets: dict[Key, Any] = {}
        as_of = head(self.instance)
        now = _now()
        read = latest(self.project, self.instance, self.node, keys, now)
        results = build(warm, self.node, keys, tests=self.tests, now=now, latest=read, on_log=self._log)
        for result in _together(results):
            if isinstance(result, Built):
                with one_transaction(self.instance):
                    yield from self._materializations(result, as_of)
                self.left = [key for key in self.left if key not in result.keys]
                if self.tests:
                    targets = check_targets(self.instance, self.asset_key, result.keys)
                    self.as_of = head(self.instance)
                # The next partition may read this one, so what it reads is as of now.
                as_of = head(self.instance) if self.left else as_of
            else:
                yield from self._evaluations(result, targets)

    def _check(self, warm: Warm, keys: Sequence[Key]) -> Iterator[Event]:
        from t2.runtime.build import check

        targets: dict[Key, Any] = {}
        for key in keys:
            targets |= check_targets(self.instance, self.asset_key, [key])
        self.as_of = head(self.instance)
        results = check(warm, self.node, keys, tests=self.tests, now=_now(), on_log=self._log)
        for result in _together(results):
            assert isinstance(result, tuple)
            yield from self._evaluations(result, targets)

    def _log(self, level: str, text: str) -> None:
        if level == "warn":  # an error is told by the failure of the step
            self.context.log.warning(text)

    def _materializations(self, built: Built, as_of: int) -> Iterator[dg.AssetMaterialization]:
        tags = version_tags(self.context, self.asset_key)
        for key in built.keys:
            yield dg.AssetMaterialization(
                self.asset_key,
                partition=key,
                metadata={"t2/as_of": as_of, **_built_metadata(self.node, built)},
                tags=tags,
            )

    def _evaluations(self, results: Iterable[Checked], targets: Mapping[Key, Any]) -> Iterator[Event]:
        with one_transaction(self.instance):
            for checked in results:
                yield from self._evaluation(checked, targets)

    def _evaluation(self, checked: Checked, targets: Mapping[Key, Any]) -> Iterator[Event]:
        test, result = checked.test, checked.result
        metadata = _test_metadata(result, with_sql=not checked.passed or len(checked.keys) == 1)
        metadata["t2/test"] = test.unique_id
        metadata["t2/as_of"] = self.as_of
        if checked.screened:
            metadata["t2/screened"] = True
        severity = _severity(test, result)
        if not checked.passed and severity is dg.AssetCheckSeverity.ERROR:
            self._take_failure(checked)
        for key in checked.keys:
            yield AssetCheckEvaluation(
                asset_key=self.asset_key,
                check_name=test.name,
                passed=checked.passed,
                partition=key,
                blocking=test.blocking,
                severity=severity,
                description=None if checked.passed else result.message,
                metadata=metadata,
                target_materialization_data=targets.get(key),
            )

    def _take_failure(self, checked: Checked) -> None:
        """Remember a failed check that holds back all readers; say of any other whom it holds back."""
        held = checked.test.held
        if held is None or (held and self.instance.is_ephemeral):  # no log, no gates
            self.failed += [(checked, key) for key in checked.keys]
        else:
            self.context.log.error(f"{_text(checked)}: it holds back {', '.join(held) or 'nothing'}")
        if self._reads_itself and (held is None or self.node.key in held):
            self.closed = _text(checked)

    def _checks_failed(self) -> dg.Failure:
        """Return the failure of the step: which checks, where, how many rows, and the SQL that shows them."""
        metadata: dict[str, Any] = {"dbt file": dg.MetadataValue.path(self.node.file)}
        for checked, _ in self.failed[:FOLD]:
            if checked.result.compiled_code:
                metadata.setdefault(f"SQL of {checked.test.name}", _sql(checked.result.compiled_code))
        lines = [_text(checked, key) for checked, key in self.failed]
        more = [f"and {len(lines) - FOLD} more"] if len(lines) > FOLD else []
        summary = f"what reads {self.node.key} is held back by failed checks:"
        return dg.Failure("\n".join([summary, *lines[:FOLD], *more]), metadata=metadata)

    def _skips(self) -> Iterator[dg.AssetObservation]:
        """Say of each partition that was left as it is why."""
        for key, why in self.skipped.items():
            self.context.log.warning(f"{self.node.key}{f' {key}' if key else ''} is not built: {why}")
        with one_transaction(self.instance):
            for key, why in self.skipped.items():
                yield dg.AssetObservation(
                    self.asset_key, partition=key, metadata={"t2/why": why}, tags={"t2/skipped": "true"}
                )

    def _failures(self, error: T2Error, as_of: int) -> Iterator[dg.AssetObservation]:
        """Say of each partition that is not in the warehouse that the attempt at it failed."""
        if not self.builds:
            return
        assert isinstance(self.node, Table)
        metadata: dict[str, Any] = {
            "t2/error": error.message,
            "t2/as_of": as_of,
            "t2/code_version": self.node.code_version,
        }
        with one_transaction(self.instance):
            for key in self.left:
                yield dg.AssetObservation(
                    self.asset_key, partition=key, metadata=metadata, tags={"t2/failed": "true"}
                )

    def _failure(self, error: T2Error) -> dg.Failure:
        metadata: dict[str, Any] = {"dbt file": dg.MetadataValue.path(self.node.file)}
        if isinstance(error, NodeFailed) and error.result is not None and error.result.compiled_code:
            metadata["compiled SQL"] = _sql(error.result.compiled_code)
        return dg.Failure(description=error.message, metadata=metadata)

    def _outputs(self) -> Iterator[Event]:
        assets_def = self.context.assets_def
        with one_transaction(self.instance):
            built = () if self.skipped else self.context.selected_asset_keys
            for key in (*built, *self.context.selected_asset_check_keys):
                yield silent_output(output_name(assets_def, key))

    def _landed_before(self) -> set[Key]:
        """Return the partitions that the runs retried by this one built and tested to the end."""
        if not self.builds or len(self.keys) < 2 or not is_retry(self.context.run):
            return set()
        assert isinstance(self.node, Table)
        events = events_of_ancestors(self.instance, self.context.run, self.asset_key)
        built, passed = set(), set()
        for event in events:
            if isinstance(event, dg.AssetMaterialization):
                if (event.tags or {}).get("dagster/code_version") == self.node.code_version:
                    built.add(event.partition)
            elif event.passed or not event.blocking or event.severity is not dg.AssetCheckSeverity.ERROR:
                passed.add((event.check_name, event.partition))
        return {key for key in built if all((test.name, key) in passed for test in self.tests)}


def _partition_keys(node: Table | Source, context: dg.OpExecutionContext) -> list[Key]:
    if node.partitioning is None or (not context.has_partition_key and not context.has_partition_key_range):
        return [None]
    return list(context.partition_keys)


def _together(results: Iterable[Built | Checked]) -> Iterator[Built | tuple[Checked, ...]]:
    """Put the checks together that screens proved at one time, so that their events are stored at once."""
    from t2.runtime.build import Checked

    proved: list[Checked] = []
    try:
        for result in results:
            if isinstance(result, Checked) and result.screened:
                proved.append(result)
                continue
            if proved:
                yield tuple(proved)
                proved = []
            yield (result,) if isinstance(result, Checked) else result
    except (NodeFailed, DbtError):  # the next statement's failure
        if proved:
            yield tuple(proved)
        raise
    if proved:
        yield tuple(proved)


def _contiguous(keys: Sequence[Key], all_keys: Sequence[Key]) -> Iterator[list[Key]]:
    """Cut the keys into those that follow each other: a statement builds a range without holes."""
    place = {key: number for number, key in enumerate(all_keys)}
    part: list[Key] = []
    for key in keys:
        if part and place[key] != place[part[-1]] + 1:
            yield part
            part = []
        part.append(key)
    if part:
        yield part


def _text(checked: Checked, key: Key = None) -> str:
    """Say what a failed check found, and where: "not_null_x (3 rows) on 2024-01-05"."""
    rows = checked.result.failures
    told = rows is not None and checked.result.status != "error"
    found = with_rows(checked.test.name, rows) if told else f"{checked.test.name} ({checked.result.message})"
    where = key or ", ".join(name for name in checked.keys if name)
    return f"{found} on {where}" if where else found


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _severity(test: Test, result: NodeResult) -> dg.AssetCheckSeverity:
    warns = test.severity == "warn" or result.status == "warn"
    return dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR


def _built_metadata(node: Table | Source, built: Built) -> dict[str, Any]:
    result = built.result
    metadata = _node_metadata(result)
    if len(built.keys) > 1:
        metadata["t2/partitions_built_together"] = len(built.keys)
    if result.rows_affected is not None:
        metadata["t2/rows_affected"] = result.rows_affected
        if built.keys == (None,) and isinstance(node, Table) and node.materialized in ("table", "seed"):
            metadata["dagster/row_count"] = result.rows_affected
    if result.adapter_response:
        metadata["t2/adapter_response"] = dg.MetadataValue.json(dict(result.adapter_response))
    return metadata


def _test_metadata(result: NodeResult, *, with_sql: bool) -> dict[str, Any]:
    failures = {} if result.failures is None else {"t2/failing_rows": result.failures}
    return {**failures, **_node_metadata(result, with_sql=with_sql)}


def _node_metadata(result: NodeResult, *, with_sql: bool = True) -> dict[str, Any]:
    """Describe how a node went; the SQL that many partitions share would be stored once for each."""
    metadata: dict[str, Any] = {
        "t2/execution_seconds": round(result.execution_seconds, 4),
        "t2/warehouse_seconds": round(result.warehouse_seconds, 4),
    }
    if with_sql and result.compiled_code:
        metadata["t2/compiled_sql"] = _sql(result.compiled_code)
    return metadata


def _sql(code: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"```sql\n{code.strip()}\n```")
