"""dbt tests as T2 sees them: which table each belongs to, and what it looks at."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import time
from typing import Any, Literal

from t2.project.config import TEST, check, nearest
from t2.project.declared import Declared, Node
from t2.project.files import child, text
from t2.project.graph import COMMENT, Partitionings, reached
from t2.project.layers import META, Layer, Path
from t2.project.model import Daily, Test

ROW_WISE = ("not_null", "unique", "accepted_values", "relationships")
DEFAULT_THRESHOLDS = {"error_if": "!= 0", "warn_if": "!= 0", "fail_calc": "count(*)"}
SOURCE_MODEL = re.compile(r"""source\(\s*['"]([^'"]+)['"]\s*,\s*['"]([^'"]+)['"]""")


def tests(declared: Declared, cut: Partitionings, ordered: list[str]) -> dict[str, tuple[Test, ...]]:
    """Return each table's and source's tests, by unique id.

    A generic test belongs to the table it is written at, a singular test to the last of its parents in
    dependency order. A test of an ephemeral model belongs to the first table that reads it: the rows that
    it proves become data there, and a failure holds back that table's readers only.
    """
    place = {uid: number for number, uid in enumerate(ordered)}
    readers = _ephemeral_readers(declared, ordered)
    found = defaultdict(list)
    for uid, node in sorted(declared.manifest["nodes"].items()):
        if node["resource_type"] == "test":
            owner = _owner(declared, node, place)
            owner = readers.get(owner, owner) if owner else None
            if owner is not None and declared.materialized(owner) != "ephemeral":
                found[owner].append(_test(declared, uid, node, owner, cut))
    return {owner: _with_unique_names(items) for owner, items in found.items()}


def read_by(declared: Declared, checks: Mapping[str, tuple[Test, ...]]) -> dict[str, set[str]]:
    """Return what the tests of each node read, itself included, looking through ephemeral models."""
    found: dict[str, set[str]] = {}
    for uid, items in checks.items():
        todo = [
            parent
            for item in items
            for parent in declared.manifest["nodes"][item.unique_id]["depends_on"]["nodes"]
        ]
        reads = found.setdefault(uid, set())
        while todo:
            parent = todo.pop()
            if parent in declared.nodes and declared.materialized(parent) == "ephemeral":
                todo.extend(declared.parents(parent))
            elif parent in declared.nodes:
                reads.add(parent)
    return found


def _ephemeral_readers(declared: Declared, ordered: list[str]) -> dict[str, str]:
    """Return, for each ephemeral model, the first table in dependency order that reads it."""
    first: dict[str, str] = {}
    for uid in ordered:
        if declared.is_table(uid):
            for upstream in reached(declared, uid):
                if declared.materialized(upstream) == "ephemeral":
                    first.setdefault(upstream, uid)
    return first


def _owner(declared: Declared, node: Node, place: Mapping[str, int]) -> str | None:
    attached = node.get("attached_node")
    if attached in place:
        return str(attached)
    parents = [parent for parent in node["depends_on"]["nodes"] if parent in place]
    kwargs = (node.get("test_metadata") or {}).get("kwargs") or {}
    written_at = SOURCE_MODEL.search(str(kwargs.get("model", "")))
    if written_at:
        label = ".".join(written_at.groups())
        return next(
            (uid for uid in parents if declared.is_source(uid) and declared.label(uid) == label), None
        )
    tables = [uid for uid in parents if not declared.is_source(uid)]
    return max(tables or parents, key=place.__getitem__, default=None)


def _test(declared: Declared, uid: str, node: Node, owner: str, cut: Partitionings) -> Test:
    metadata = node.get("test_metadata")
    settings = _settings(declared, node, owner)
    scope = settings.get("scope")
    by_partition = metadata is not None or "t2.window(" in COMMENT.sub("", node.get("raw_code") or "")
    severity: Literal["error", "warn"] = (
        "warn" if str(node["config"]["severity"]).lower() == "warn" else "error"
    )
    return Test(
        unique_id=uid,
        name=_check_name(node["name"]),
        key=declared.key(owner),
        kind=_kind(metadata),
        severity=severity,
        column=node.get("column_name"),
        description=node.get("description") or "",
        per_partition=cut[owner] is not None and (by_partition if scope is None else scope != "table"),
        row_wise=_is_row_wise(declared, node),
        file=_file(declared, node),
        blocks=_blocks(declared, node, owner, severity, settings),
        daily=_daily(declared, node, owner, settings),
        screen=settings.get("screen", True),
        compared_by=_compared_by(declared, node, owner, settings) if cut[owner] else None,
    )


def _kind(metadata: Mapping[str, Any] | None) -> str:
    if metadata is None:
        return "singular"
    return (
        f"{metadata['namespace']}.{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
    )


def _is_row_wise(declared: Declared, node: Node) -> bool:
    """Whether it is dbt's own test with dbt's own thresholds: a project may replace it, or what it calls."""
    name = (node.get("test_metadata") or {}).get("name")
    macro = f"macro.dbt.test_{name}"
    called = declared.manifest["macros"].get(macro, {}).get("depends_on", {}).get("macros", ())
    packages = ("dbt", f"dbt_{declared.manifest['metadata']['adapter_type']}")
    return (
        name in ROW_WISE
        and macro in node["depends_on"]["macros"]
        and all(other.split(".")[1] in packages for other in called)
        and all(str(node["config"].get(key, value)) == value for key, value in DEFAULT_THRESHOLDS.items())
        and node["config"].get("limit") is None
    )


def _settings(declared: Declared, node: Node, owner: str) -> dict[str, Any]:
    settings = (node["config"].get("meta") or {}).get("t2")
    if settings is None:
        return {}

    def report(path: Path, message: str, hint: str | None) -> None:
        declared.report_at(_where(declared, node, owner, path), message, hint)

    return check(settings, TEST, report)


def _compared_by(declared: Declared, node: Node, owner: str, settings: Mapping[str, Any]) -> str | None:
    """Return the column, as SQL, by which a partition is compared with the rest of its table."""
    if settings.get("scope") != "keys":
        return None
    metadata = node.get("test_metadata")
    if _kind(metadata) == "unique" and node.get("attached_node") in (owner, None):
        return str((metadata or {})["kwargs"]["column_name"])
    where = _where(declared, node, owner, ("scope",))
    message = "meta.t2.scope is keys, which is for dbt's unique on a column of a table or source"
    declared.report_at(where, message, "write partition or table")
    return None


def _daily(declared: Declared, node: Node, owner: str, settings: Mapping[str, Any]) -> Daily | None:
    if settings.get("when") == "daily":
        return Daily(settings.get("at", time(6)), declared.settings[owner].get("timezone", "UTC"))
    if "at" in settings:
        where = _where(declared, node, owner, ("at",))
        declared.report_at(where, "meta.t2.at is for tests that run daily", "add when: daily, or remove it")
    return None


def _blocks(
    declared: Declared, node: Node, owner: str, severity: str, settings: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """Return the keys of the tables that a failure holds back, None for all."""
    wanted = settings.get("blocks", "all")
    if wanted == "none":
        return ()
    where = _where(declared, node, owner, ("blocks",)) if "blocks" in settings else ""
    if where and severity == "warn":
        message = f"meta.t2.blocks of {node['name']}, whose severity is warn: it holds back nothing"
        declared.report_at(where, message, "remove blocks, or give it severity error")
    if wanted == "all":
        return None
    below = _below(declared, owner)
    keys: dict[str, None] = {}
    for name in wanted:
        if name in below:
            keys.update(dict.fromkeys(below[name]))
            continue
        close = nearest(name, below)
        hint = f"did you mean {close}?" if close else f"its readers are {', '.join(sorted(below)) or 'none'}"
        declared.report_at(where, f"{name} does not read {declared.label(owner)}", hint)
    return tuple(keys)


def _below(declared: Declared, owner: str) -> dict[str, list[str]]:
    """Return, by name, what reads a node directly or through others, each with the tables it stands for."""
    readers: dict[str, list[str]] = defaultdict(list)
    for uid in declared.nodes:
        for parent in declared.parents(uid):
            readers[parent].append(uid)
    if declared.label(owner) in declared.settings[owner].get("upstream", {}):
        readers[owner].append(owner)
    found = _walk(readers[owner], lambda uid: readers[uid])
    return {declared.label(uid): _tables(declared, uid, readers) for uid in found}


def _tables(declared: Declared, uid: str, readers: Mapping[str, list[str]]) -> list[str]:
    """Return the key of a table; for a view or ephemeral model, those of the tables that read it."""
    reached = _walk([uid], lambda node: readers[node] if declared.is_transparent(node) else ())
    return sorted(declared.key(node) for node in reached if not declared.is_transparent(node))


def _walk(start: Iterable[str], onwards: Callable[[str], Iterable[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(start)
    while todo:
        uid = todo.pop()
        if uid not in found:
            found.add(uid)
            todo.extend(onwards(uid))
    return found


def _where(declared: Declared, node: Node, owner: str, path: Path) -> str:
    """Return the line of a test's setting: in the properties file of its table, or in its own SQL."""
    file = _file(declared, node)
    call = node.get("config_call_dict")
    if not file.endswith((".yml", ".yaml")):
        depth, line = Layer(file, sql=declared.files.text(file), call=call or {}).find(META + path)
        return f"{file}:{line if depth else 1}"
    kind = _kind(node.get("test_metadata"))
    for tree in _written_tests(declared.files.tree(file), kind):
        for layer in (Layer(file, tree), *(Layer(file, c[1]) for c in [child(tree, "config")] if c)):
            depth, line = layer.find(META + path)
            if depth == len(META + path):
                return f"{file}:{line}"
    return declared.layers(owner).where()


def _written_tests(tree: Any, kind: str) -> list[Any]:
    """Return the nodes of all generic tests of a kind below a YAML node."""
    found = []
    stack = [tree]
    while stack:
        node = stack.pop()
        pairs = node.value if node is not None and node.id == "mapping" else ()
        found += [value for key, value in pairs if text(key) == kind]
        stack += [value for _, value in pairs]
        stack += node.value if node is not None and node.id == "sequence" else ()
    return found


def _file(declared: Declared, node: Node) -> str:
    folder = (
        declared.files.packages.get(node["package_name"])
        if node["package_name"] != declared.root_project
        else ""
    )
    return f"{folder}/{node['original_file_path']}" if folder else str(node["original_file_path"])


def _check_name(name: str) -> str:
    """Return a test's name as a Dagster check name, which has letters, digits and underscores only."""
    if re.fullmatch(r"[A-Za-z0-9_]+", name):
        return name
    return f"{re.sub(r'[^A-Za-z0-9_]+', '_', name)}_{_short_hash(name)}"


def _with_unique_names(found: list[Test]) -> tuple[Test, ...]:
    taken: set[str] = set()
    named = []
    for test in found:
        name = f"{test.name}_{_short_hash(test.unique_id)}" if test.name in taken else test.name
        taken.add(name)
        named.append(replace(test, name=name))
    return tuple(named)


def _short_hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:8]
