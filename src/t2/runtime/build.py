"""Building a table's partitions and testing them, told as it happens.

A statement covers as many partitions as it can: all of the range for most tables, one for dbt's microbatch
and for tables that read their own earlier partitions. Tests of a partition run right after it is built.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from t2.errors import DbtError, NodeFailed
from t2.project.model import Source, Table, Test
from t2.runtime import screens, warehouse
from t2.runtime.duckdb_client import LOST
from t2.runtime.nodes import NodeResult
from t2.runtime.warm import OnLog, Warm
from t2.runtime.windows import Variables, batch_window, partition_variables, rows_of_test, variables

Key = str | None
Latest = Mapping[Key, Mapping[str, Key]]

# What a warehouse says to the loser of a race; the same statement succeeds once the winner is done.
CONFLICTS = (
    "onflict",
    "already exists",
    "TransactionContext",
    "Duplicate key",
    "could not serialize",
    "deadlock detected",
    "concurrent update",
    LOST,
)
ATTEMPTS = 6
WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class Built:
    """The partitions `keys`, (None,) for a table without, are in the warehouse."""

    keys: tuple[Key, ...]
    result: NodeResult


@dataclass(frozen=True)
class Checked:
    """A test was evaluated on partitions, or on the whole of a table with the keys (None,).

    Several keys: one look at all of them proved each. `passed` is False for a warning too, and for a test
    whose SQL fails; `result.status` tells them apart. `screened`: a screen proved it, dbt did not run it.
    """

    test: Test
    keys: tuple[Key, ...]
    passed: bool
    result: NodeResult
    screened: bool = False


def build(
    warm: Warm,
    table: Table,
    keys: Sequence[Key] | None,
    *,
    tests: Iterable[Test],
    now: datetime,
    latest: Latest = MappingProxyType({}),
    full_refresh: bool = False,
    on_log: OnLog | None = None,
) -> Iterator[Built | Checked]:
    """Build contiguous partitions of a table, in order, and test each statement's partitions after it.

    `latest`: for each key, the partitions of upstreams of which only the latest is read. No keys, or None as
    the only one, is a table without partitions. NodeFailed with dbt's message ends it when a statement fails,
    after all that was built and tested before it.
    """
    checks = tuple(tests)
    for part in _statements(warm, table, _partitions(keys)):
        given = variables(
            warm.project, table, part[0], part[-1], now=now, latest=latest.get(part[0], MappingProxyType({}))
        )
        yield Built(part, _build(warm, table, part, given, full_refresh, on_log))
        yield from _test(warm, table, part, checks, on_log)


def check(
    warm: Warm,
    node: Table | Source,
    keys: Sequence[Key] | None,
    *,
    tests: Iterable[Test],
    now: datetime,
    on_log: OnLog | None = None,
) -> Iterator[Checked]:
    """Evaluate tests of contiguous partitions, or of a table without, and build nothing."""
    yield from _test(warm, node, _partitions(keys), tuple(tests), on_log)


def _partitions(keys: Sequence[Key] | None) -> tuple[Key, ...]:
    return tuple(keys) if keys else (None,)


def _statements(warm: Warm, table: Table, keys: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    """Yield the keys that each statement builds."""
    each = table.reads_itself or table.merges_in_order or warm.is_microbatch(table.unique_id)
    if each or any(upstream.window == "latest" for upstream in table.upstreams):
        yield from ((key,) for key in keys)
    else:
        yield keys


def _build(
    warm: Warm,
    table: Table,
    keys: tuple[Key, ...],
    given: Variables,
    full_refresh: bool,
    on_log: OnLog | None,
) -> NodeResult:
    batch = batch_window(table, keys[0]) if keys[0] and warm.is_microbatch(table.unique_id) else None
    # The partitions of a merged table share rows: builds of any two of them take turns.
    names = [table.key] if table.merges else [f"{table.key} {key or ''}" for key in keys]
    for attempt in range(ATTEMPTS):
        last = attempt + 1 == ATTEMPTS
        try:
            with warehouse.alone(warm, names):
                result = warm.run(
                    table.unique_id, variables=given, batch=batch, full_refresh=full_refresh, on_log=on_log
                )
        except DbtError as error:
            if last or LOST not in error.message:
                raise
            continue
        if result.ok:
            return result
        if last or not any(word in result.message for word in CONFLICTS):
            break
        # What it lost the race to may be a relation that this process does not know of.
        warm.forget()
        time.sleep(WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0))
    where = f"{table.key} {keys[0]}" if keys[0] else table.key
    raise NodeFailed(result.message, result=result, where=where)


def _test(
    warm: Warm, node: Table | Source, keys: tuple[Key, ...], tests: tuple[Test, ...], on_log: OnLog | None
) -> Iterator[Checked]:
    proofs = screens.prove(warm, node, keys, tests)
    # First what is proved already: it can be reported at once.
    for test in sorted(tests, key=lambda test: test.unique_id not in proofs):
        if test.unique_id in proofs:
            yield from _screened(warm, node, test, keys, proofs[test.unique_id], on_log)
            continue
        if not test.per_partition or keys[0] is None:
            result = warm.run(test.unique_id, on_log=on_log)
            yield Checked(test, keys, result.ok, result)
            continue
        if test.row_wise and len(keys) > 1:
            result = _test_range(warm, node, test, keys, on_log)
            if result.ok:
                yield Checked(test, keys, True, result)
                continue
        for key in keys:
            result = _test_range(warm, node, test, (key,), on_log)
            yield Checked(test, (key,), result.ok, result)


def _screened(
    warm: Warm,
    node: Table | Source,
    test: Test,
    keys: tuple[Key, ...],
    proofs: Iterable[screens.Proof],
    on_log: OnLog | None,
) -> Iterator[Checked]:
    """Yield what the screens proved, and dbt's own answer for the partitions between."""
    proved = {key: proof for proof in proofs for key in proof.keys}
    for key in keys:
        if key not in proved:
            result = _test_range(warm, node, test, (key,), on_log)
            yield Checked(test, (key,), result.ok, result)
        elif proved[key].keys[0] == key:
            yield Checked(test, proved[key].keys, True, proved[key].result, screened=True)


def _test_range(
    warm: Warm, node: Table | Source, test: Test, keys: tuple[Key, ...], on_log: OnLog | None
) -> NodeResult:
    first, last = keys[0], keys[-1]
    assert first is not None
    assert last is not None
    if test.kind == "singular":
        return warm.run(test.unique_id, variables=partition_variables(node, first), on_log=on_log)
    rows = rows_of_test(node, test, first, last, adapter=warm.adapter_type)
    return warm.run(test.unique_id, where=rows, on_log=on_log)
