"""What each table reads: dbt's dependencies, looking through views and ephemeral models, and their order."""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any

from t2.project.config import nearest
from t2.project.declared import Declared
from t2.project.layers import META, Path
from t2.project.model import Partitioning, Upstream
from t2.project.partitions import event_time

WINDOW = re.compile(r"""\bt2\.window\(\s*(['"])([^'"]+)\1\s*(?:,\s*(['"])([^'"]+)\3)?""")
COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)

# What an edge's settings do to a partition of the reader.
BY_PARTITION = {"lookback": "look back", "shift": "shift", "wait": "wait"}

Partitionings = Mapping[str, Partitioning | None]


@dataclass(frozen=True)
class Reach:
    """How a table reaches one of the nodes that it reads, directly or through views and ephemeral models.

    `settings`: what the author wrote for the node, or for a view on the way, under `upstream`.
    """

    settings: Mapping[str, Any]
    through: tuple[str, ...]

    @property
    def width(self) -> timedelta:
        """How far it looks back, to compare two ways."""
        lookback = self.settings.get("lookback", 0)
        return lookback if isinstance(lookback, timedelta) else timedelta(days=36500) * lookback

    def to(self, settings: Mapping[str, Any], *through: str) -> Reach:
        """Return the way on to a node with settings of its own; of two lookbacks the wider counts."""
        onwards = Reach({**self.settings, **settings}, (*self.through, *through))
        if self.width > onwards.width:
            return Reach({**onwards.settings, "lookback": self.settings["lookback"]}, onwards.through)
        return onwards

    def upstream(self, key: str) -> Upstream:
        """Return the window of an edge to a node with this key."""
        wanted = self.settings
        lookback = wanted.get("lookback", 0)
        back = int(lookback.total_seconds()) if isinstance(lookback, timedelta) else 0
        return Upstream(
            key,
            lookback=0 if back else lookback or 0,
            through=self.through,
            back_seconds=back,
            shift_seconds=wanted.get("shift", 0),
            window=wanted.get("window", "overlap"),
            required=wanted.get("required", True),
            wait_seconds=wanted.get("wait", 0),
            on_update=wanted.get("on_update"),
        )


def order(declared: Declared, also: Mapping[str, Collection[str]] | None = None) -> list[str]:
    """Return all unique ids in dependency order, ties by key; by key alone if there is a cycle.

    `also` are further ids, by unique id, that come before one.
    """
    more = also or {}
    sorter = TopologicalSorter({uid: [*declared.parents(uid), *more.get(uid, ())] for uid in declared.nodes})
    try:
        sorter.prepare()
    except CycleError as error:
        _report_cycle(declared, error.args[1])
        return sorted(declared.nodes, key=declared.key)
    ready: list[tuple[str, str]] = []
    ordered = []
    while sorter.is_active():
        for uid in sorter.get_ready():
            heapq.heappush(ready, (declared.key(uid), uid))
        uid = heapq.heappop(ready)[1]
        ordered.append(uid)
        sorter.done(uid)
    return ordered


def _report_cycle(declared: Declared, cycle: list[str]) -> None:
    names = " --> ".join(reversed(cycle))
    hint = "remove one of the refs; a table reads its own earlier partitions with t2.window('its own name')"
    declared.report_at(f"{declared.location(cycle[-1])}:1", f"Found a cycle: {names}", hint)


def comparisons(declared: Declared, read_by_tests: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return which other nodes have to exist before each table is built, because its tests read them.

    What reads the table, directly or by such a wait, cannot be waited for and is left out: tables whose tests
    read each other would wait for each other.
    """
    found: dict[str, list[str]] = {}
    for uid in sorted(read_by_tests, key=declared.key):
        for other in sorted(set(read_by_tests[uid]) - {uid}, key=declared.key):
            if not _comes_before(declared, found, uid, other):
                found.setdefault(uid, []).append(other)
    return found


def _comes_before(declared: Declared, found: Mapping[str, list[str]], early: str, late: str) -> bool:
    """Whether `late` waits for `early`, directly or through others."""
    todo, seen = [late], {late}
    while todo:
        uid = todo.pop()
        if uid == early:
            return True
        fresh = {*declared.parents(uid), *found.get(uid, ())} - seen
        seen |= fresh
        todo.extend(fresh)
    return False


def reached(declared: Declared, reader: str) -> dict[str, Reach]:
    """Return the nodes that a table reads, by unique id, with the largest lookback and the shortest way."""
    wanted = declared.settings[reader].get("upstream", {})
    found: dict[str, Reach] = {}
    queue = deque((parent, Reach({}, ())) for parent in declared.parents(reader))
    while queue:
        uid, so_far = queue.popleft()
        name = declared.label(uid)
        reach = so_far.to(wanted.get(name, {}))
        seen = found.get(uid)
        if seen is not None and seen.width >= reach.width:
            continue
        found[uid] = replace(reach, through=seen.through) if seen else reach
        if declared.is_transparent(uid):
            onwards = reach.to({}, name)
            queue.extend((parent, onwards) for parent in declared.parents(uid))
    return found


def upstreams(declared: Declared, cut: Partitionings, reader: str) -> tuple[Upstream, ...]:
    """Return a table's upstream windows, itself last; what cannot be a window is reported."""
    found = reached(declared, reader)
    _check_names(declared, cut, reader, found)
    _check_windows(declared, cut, reader, found)
    if cut[reader] is not None:
        _check_sources(declared, cut, reader, found)
    edges = {}
    for uid, reach in found.items():
        if declared.materialized(uid) != "ephemeral":
            edges[uid] = reach.upstream(declared.key(uid))
    itself = declared.settings[reader].get("upstream", {}).get(declared.label(reader))
    if itself is not None:
        edges[reader] = Upstream(declared.key(reader), itself.get("lookback", 0))
    return tuple(edges.values())


def _check_names(declared: Declared, cut: Partitionings, reader: str, found: Mapping[str, Reach]) -> None:
    own = declared.label(reader)
    by_name = {declared.label(uid): uid for uid in found}
    for name, wanted in declared.settings[reader].get("upstream", {}).items():
        path = (*META, "upstream", str(name))
        if name == own:
            _check_itself(declared, reader, wanted, path)
        elif name not in by_name:
            close = nearest(str(name), by_name)
            hint = (
                f"did you mean {close}?" if close else f"it reads {', '.join(sorted(by_name)) or 'nothing'}"
            )
            declared.report(reader, f"{own} does not read {name}", hint, path)
            continue
        if reader in declared.broken:
            continue
        by_partition = next((key for key in BY_PARTITION if wanted.get(key)), None)
        if cut[reader] is None and by_partition:
            message = (
                f"{by_partition} on {name}, but {own} has no partitions to {BY_PARTITION[by_partition]} from"
            )
            declared.report(
                reader, message, "give it event_time, batch_size and begin", (*path, by_partition)
            )
        elif name != own:
            _check_window_settings(
                declared,
                reader,
                name,
                wanted,
                cut_up=_has_partitions(declared, cut, by_name[name]),
                reader_cut_up=cut[reader] is not None,
            )


def _check_itself(declared: Declared, reader: str, wanted: Mapping[str, Any], path: Path) -> None:
    own = declared.label(reader)
    lookback = wanted.get("lookback", 1)
    hint = "a self reference needs a lookback of 1 or more"
    if isinstance(lookback, timedelta):
        declared.report(reader, f"{own} reads itself with a lookback of a duration", hint, path)
    elif lookback < 1:
        declared.report(reader, f"{own} reads itself with lookback 0, so it reads nothing", hint, path)
    for key in wanted.keys() - {"lookback"}:
        message = f"{key} on {own} itself: it always waits for its own earlier partitions"
        declared.report(reader, message, f"remove {key}", (*path, key))


def _check_window_settings(
    declared: Declared,
    reader: str,
    name: str,
    wanted: Mapping[str, Any],
    *,
    cut_up: bool,
    reader_cut_up: bool,
) -> None:
    """Check one edge's settings against each other; `cut_up`: the parent has partitions."""
    path = (*META, "upstream", name)
    window = wanted.get("window", "overlap")
    whole = window == "all" or (window == "overlap" and not reader_cut_up)
    if not wanted.get("required", True) and (not cut_up or whole):
        what = "all of which is read" if cut_up else "which has no partitions"
        message = f"required: false on {name}, {what}: it does not wait for single partitions"
        declared.report(reader, message, "remove it", (*path, "required"))
    for key in ("lookback", "shift", "window"):
        if not cut_up and wanted.get(key) and wanted[key] != "overlap":
            message = f"window on an unpartitioned upstream: {name} has no partitions to look back to"
            hint = f"remove the {key}, or partition it"
            declared.report(reader, message, hint, (*path, key))
        elif key != "window" and wanted.get(key) and window != "overlap":
            message = f"{key} on {name}, of which `window: {window}` is read"
            declared.report(reader, message, f"remove the {key}, or the window", (*path, key))
    if "wait" in wanted and wanted.get("required", True):
        message = f"wait on {name}, which is required: it is waited for as long as it takes"
        declared.report(reader, message, "add required: false, or remove the wait", (*path, "wait"))


def _has_partitions(declared: Declared, cut: Partitionings, uid: str) -> bool:
    """Whether a node or, if it is a view, something under it has partitions (or should, but is broken)."""
    under = [uid, *reached(declared, uid)] if declared.is_transparent(uid) else [uid]
    return any(cut[node] is not None or node in declared.broken for node in under)


def _check_windows(declared: Declared, cut: Partitionings, reader: str, found: Mapping[str, Reach]) -> None:
    """Check what the SQL says with `t2.window('name')` against what is declared."""
    by_name = {declared.label(uid): uid for uid in found}
    own = declared.label(reader)
    for name in _windows(declared, reader):
        if name == own:
            if own not in declared.settings[reader].get("upstream", {}):
                _report_in_sql(
                    declared,
                    reader,
                    name,
                    f"self reference without lookback: the SQL reads t2.window('{own}')",
                    f"add meta: {{t2: {{upstream: {{{own}: {{lookback: 1}}}}}}}}",
                )
        elif name in by_name and cut[reader] is not None:
            _check_window(declared, cut, reader, by_name[name])


def _check_window(declared: Declared, cut: Partitionings, reader: str, upstream: str) -> None:
    name = declared.label(upstream)
    if not declared.is_source(upstream) and not _has_partitions(declared, cut, upstream):
        message = f"window on an unpartitioned upstream: {name} has no partitions"
        hint = f"read it with ref('{name}'), or give it event_time, batch_size and begin"
        _report_in_sql(declared, reader, name, message, hint)
    elif declared.settings[upstream].get("static"):
        message = f"window on an unpartitioned upstream: {name} is static"
        _report_in_sql(declared, reader, name, message, "read it with source(), or remove static")
    elif declared.is_transparent(upstream) and event_time(declared, upstream) is None:
        message = f"t2.window('{name}') filters by the event time of {name}, which has none"
        _report_in_sql(declared, reader, name, message, f"set event_time in the config of {name}")


def _windows(declared: Declared, uid: str) -> Iterator[str]:
    code = declared.nodes[uid].get("raw_code") or ""
    if "t2.window" in code:
        for _, first, _, table in WINDOW.findall(COMMENT.sub("", code)):
            yield f"{first}.{table}" if table else first


def _report_in_sql(declared: Declared, reader: str, name: str, message: str, hint: str) -> None:
    file = declared.location(reader)
    lines = declared.files.text(file).splitlines()
    for number, line in enumerate(lines, 1):
        if any(
            name == (f"{found[1]}.{found[3]}" if found[3] else found[1]) for found in WINDOW.findall(line)
        ):
            declared.report_at(f"{file}:{number}", message, hint)
            return
    declared.report_at(f"{file}:1", message, hint)


def _check_sources(declared: Declared, cut: Partitionings, reader: str, found: Mapping[str, Reach]) -> None:
    for uid in found:
        if (
            not declared.is_source(uid)
            or cut[uid]
            or uid in declared.broken
            or declared.settings[uid].get("static")
        ):
            continue
        lacks = "no batch_size" if event_time(declared, uid) else "neither event_time nor batch_size"
        declared.report(
            uid,
            f"source {declared.label(uid)} has {lacks}, but partitioned tables read it",
            "add config: {event_time: ..., meta: {t2: {batch_size: ..., begin: ...}}}, "
            "or meta: {t2: {static: true}} if it has no partitions on purpose",
        )
