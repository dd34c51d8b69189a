"""From dbt's manifest, in its JSON form, to a Project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from t2.errors import DbtError, ProjectError
from t2.project.bigquery import check_bigquery, writes_in_turn
from t2.project.checks import read_by, tests
from t2.project.config import EMAIL
from t2.project.declared import Declared, Node
from t2.project.files import Files
from t2.project.fingerprint import CodeVersions
from t2.project.graph import comparisons, order, upstreams
from t2.project.model import (
    Backfill,
    Column,
    Cron,
    LateData,
    Monitor,
    Partitioning,
    Project,
    Retries,
    Source,
    Table,
    Test,
    Upstream,
)
from t2.project.partitions import event_time, partitionings
from t2.project.strategies import check_strategies, merges, merges_in_order

SCHEMA = "https://schemas.getdbt.com/dbt/manifest/v12.json"


def read_manifest(
    manifest: Mapping[str, Any],
    *,
    root: Path,
    now: datetime,
    install_path: str = "dbt_packages",
    profiles_dir: str = "",
    target: str = "",
    fingerprint: str = "",
    path: str = "",
) -> Project:
    """Return what a manifest declares.

    The project's own files below `root` are read for what the manifest leaves out: hidden folder settings and
    line numbers. `now` (aware) is what `begin` may not be later than. Raises ProjectError with all problems,
    DbtError if the manifest is of another version.
    """
    _check_version(manifest)
    declared = Declared(manifest, Files(root, install_path))
    sources, tables = _nodes(declared, now)
    if declared.problems:
        raise ProjectError(declared.problems)
    return Project(
        name=declared.root_project,
        root=str(root),
        profiles_dir=profiles_dir,
        target=target,
        adapter=manifest["metadata"]["adapter_type"],
        fingerprint=fingerprint,
        manifest=path,
        dbt_version=manifest["metadata"]["dbt_version"],
        tables={table.key: table for table in tables},
        sources={source.key: source for source in sources},
    )


def _check_version(manifest: Mapping[str, Any]) -> None:
    found = manifest.get("metadata", {}).get("dbt_schema_version")
    if found != SCHEMA:
        raise DbtError(
            f"the manifest has the schema {found!r}; T2 reads {SCHEMA}",
            hint="T2 needs dbt-core 1.11: run `pip install 'dbt-core>=1.11,<1.12'`",
        )


def _nodes(declared: Declared, now: datetime) -> tuple[list[Source], list[Table]]:
    _check_keys(declared)
    check_strategies(declared)
    cut = partitionings(declared, now)
    check_bigquery(declared, cut)
    ordered = order(declared)
    checks = tests(declared, cut, ordered)
    compared = comparisons(declared, read_by(declared, checks))
    if not declared.problems:
        ordered = order(declared, compared)
    versions = CodeVersions(declared)
    sources, tables = [], []
    for uid in ordered:
        if declared.is_source(uid):
            sources.append(_source(declared, uid, cut[uid], checks.get(uid, ())))
            continue
        reads = upstreams(declared, cut, uid)
        if declared.is_table(uid):
            table = _table(declared, uid, cut[uid], reads, checks.get(uid, ()), versions.of(uid, cut[uid]))
            direct = {upstream.key for upstream in reads}
            waits = (declared.key(other) for other in compared.get(uid, ()))
            tables.append(replace(table, compares_with=tuple(key for key in waits if key not in direct)))
    return sorted(sources, key=lambda source: source.key), tables


def _check_keys(declared: Declared) -> None:
    first: dict[str, str] = {}
    for uid in declared.nodes:
        if not declared.is_source(uid) and not declared.is_table(uid):
            continue
        other = first.setdefault(declared.key(uid), uid)
        if other != uid:
            message = f"two tables with the key {declared.key(uid)}: {other} and {uid}"
            declared.report(uid, message, "give one of them another schema or alias", ("alias",), ("schema",))


def _table(
    declared: Declared,
    uid: str,
    partitioning: Partitioning | None,
    reads: tuple[Upstream, ...],
    checks: tuple[Test, ...],
    code_version: str,
) -> Table:
    node, settings = declared.nodes[uid], declared.settings[uid]
    group = node["config"].get("group")
    return Table(
        key=declared.key(uid),
        unique_id=uid,
        name=node["name"],
        schema=node["schema"],
        database=node["database"],
        kind=node["resource_type"],
        materialized=declared.materialized(uid),
        relation=node["relation_name"],
        file=declared.location(uid),
        code_version=code_version,
        partitioning=partitioning,
        upstreams=reads,
        tests=checks,
        columns=_columns(node),
        description=node.get("description") or "",
        tags=_tags(node),
        group=group,
        owners=settings.get("owner") or _group_owners(declared, group),
        automation=_automation(settings),
        backfill=_backfill(
            settings, declared.materialized(uid), in_turn=writes_in_turn(declared, uid, partitioning)
        ),
        retries=_retries(settings),
        late_data=_late_data(settings.get("late_data", {})),
        isolation=settings.get("isolation", "run"),
        pool=settings.get("pool"),
        event_time=event_time(declared, uid),
        merges=merges(declared, uid),
        merges_in_order=merges_in_order(declared, uid),
    )


def _source(
    declared: Declared, uid: str, partitioning: Partitioning | None, checks: tuple[Test, ...]
) -> Source:
    node, settings = declared.nodes[uid], declared.settings[uid]
    return Source(
        key=declared.key(uid),
        unique_id=uid,
        name=node["name"],
        schema=node["schema"],
        database=node["database"],
        source_name=node["source_name"],
        relation=node["relation_name"],
        file=declared.location(uid),
        partitioning=partitioning,
        tests=checks,
        columns=_columns(node),
        description=node.get("description") or node.get("source_description") or "",
        tags=_tags(node),
        owners=settings.get("owner", ()),
        loaded_at=node.get("loaded_at_field"),
        monitor=_monitor(settings.get("monitor", {})),
        event_time=event_time(declared, uid),
    )


def _columns(node: Node) -> tuple[Column, ...]:
    return tuple(
        Column(column["name"], column.get("data_type"), column.get("description") or "")
        for column in node["columns"].values()
    )


def _tags(node: Node) -> tuple[str, ...]:
    return tuple(sorted(set(node.get("tags") or ())))


def _group_owners(declared: Declared, group: str | None) -> tuple[str, ...]:
    """Return the emails of a dbt group's owner, else the group as a team."""
    for found in declared.manifest["groups"].values() if group else ():
        if found["name"] == group:
            emails = found["owner"].get("email") or ()
            emails = [emails] if isinstance(emails, str) else emails
            return tuple(email for email in emails if EMAIL.fullmatch(email)) or (f"team:{group}",)
    return ()


def _automation(settings: Mapping[str, Any]) -> Literal["eager", "manual"] | Cron:
    policy: Literal["eager", "manual"] | Cron = settings.get("automation", "eager")
    if isinstance(policy, Cron) and not policy.timezone:
        return replace(policy, timezone=settings.get("timezone", "UTC"))
    return policy


def _backfill(settings: Mapping[str, Any], materialized: str, *, in_turn: bool) -> Backfill:
    """Return the limits; only `partitioned` keeps several builds of one table apart."""
    wanted = settings.get("backfill", {})
    concurrency = wanted.get("concurrency", 1 if in_turn else 4) if materialized == "partitioned" else 1
    return Backfill(wanted.get("partitions_per_run", 1), concurrency)


def _retries(settings: Mapping[str, Any]) -> Retries:
    wanted = settings.get("retries", {})
    return Retries(wanted.get("attempts", 1), wanted.get("wait", 30))


def _late_data(wanted: Mapping[str, Any]) -> LateData:
    return LateData(wanted.get("within"), wanted.get("action", "rerun"))


def _monitor(wanted: Mapping[str, Any]) -> Monitor:
    return Monitor(
        every_seconds=wanted.get("every", 30),
        grace_seconds=wanted.get("grace", 0),
        sql=wanted.get("sql"),
        enabled=wanted.get("enabled", True),
    )
