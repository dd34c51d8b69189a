"""Tables and sources as Dagster assets, their tests as asset checks.

One asset, one op a table: retries from failure, pools, backfill policies, the Gantt chart and the skipping of
what depends on a failed step are then Dagster's own. Everything here is paid for each time a code location
loads, 2,000 times over, so whatever tables have in common is made once (docs/decisions/001-definitions.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from t2.definitions._dagster.assets import Compute, assets_definition, quiet_preview_warnings
from t2.definitions._dagster.automation import never
from t2.definitions._dagster.tags import valid_tag_key
from t2.definitions.evaluations import policy
from t2.definitions.partitions import partition_mapping, partitions_def
from t2.project.model import Column, Project, Source, Table, Test, Upstream

NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]+")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def asset_key(key: str) -> dg.AssetKey:
    """Return Dagster's asset key [schema, name] of a table or source "schema/name"."""
    return dg.AssetKey(key.split("/"))


class Assets:
    """The assets of one project; `tables` finds a table by the name of its op."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.keys = {node.key: asset_key(node.key) for node in project.nodes()}
        self._backfill: dict[int, dg.BackfillPolicy] = {}

    @cached_property
    def tables(self) -> Mapping[str, Table | Source]:
        """Each table, and each source with tests, by the name of its op."""
        names: dict[str, Table | Source] = {}
        for node in self.project.nodes():
            name = base = NOT_A_NAME.sub("_", node.key.replace("/", "__"))
            suffix = 2
            while name in names:
                name, suffix = f"{base}_{suffix}", suffix + 1
            names[name] = node
        return names

    def definitions(self, compute: Compute) -> Iterator[dg.AssetsDefinition | dg.AssetSpec]:
        """Yield an executable asset for each table, an external one for each source, with their checks."""
        with quiet_preview_warnings():
            for name, node in self.tables.items():
                if isinstance(node, Table):
                    yield self._table(name, node, compute)
                else:
                    yield self._source(node)
                    if node.tests:
                        yield self._source_checks(name, node, compute)

    def _table(self, name: str, table: Table, compute: Compute) -> dg.AssetsDefinition:
        key = self.keys[table.key]
        spec = dg.AssetSpec(
            key,
            deps=list(self._deps(table)),
            description=table.description or None,
            metadata=self._metadata(table),
            group_name=_group(table.group),
            code_version=table.code_version,
            owners=_owners(table.owners),
            tags=_tags(table.tags, ("dbt", self.project.adapter, table.materialized)),
            partitions_def=partitions_def(table.partitioning),
            automation_condition=never(policy(table)),
        )
        return assets_definition(
            name=name,
            compute=compute,
            spec=spec,
            checks=[self._check(key, test, spec.partitions_def) for test in table.tests],
            backfill_policy=self._backfill_policy(table.backfill.partitions_per_run),
            pool=table.pool or self.project.pool,
        )

    def _source(self, source: Source) -> dg.AssetSpec:
        return dg.AssetSpec(
            self.keys[source.key],
            description=source.description or None,
            metadata=self._metadata(source),
            group_name=_group(source.source_name),
            owners=_owners(source.owners),
            tags=_tags(source.tags, ("dbt", self.project.adapter, "source")),
            partitions_def=partitions_def(source.partitioning),
        )

    def _source_checks(self, name: str, source: Source, compute: Compute) -> dg.AssetsDefinition:
        key = self.keys[source.key]
        cut = partitions_def(source.partitioning)
        checks = [self._check(key, test, cut) for test in source.tests]
        return assets_definition(
            name=f"{name}__checks", compute=compute, spec=None, checks=checks, pool=self.project.pool
        )

    def _deps(self, table: Table) -> Iterator[dg.AssetDep]:
        seen = set()
        for upstream in sorted(table.upstreams, key=_width, reverse=True):
            if upstream.key in seen:
                continue  # read both directly and through a view: the wider window holds the other
            seen.add(upstream.key)
            mapping = partition_mapping(
                table.partitioning,
                self.project.node(upstream.key).partitioning,
                upstream,
                itself=upstream.key == table.key,
            )
            yield dg.AssetDep(self.keys[upstream.key], partition_mapping=mapping)

    def _check(
        self, key: dg.AssetKey, test: Test, cut: dg.PartitionsDefinition[str] | None
    ) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(
            test.name,
            asset=key,
            description=test.description or (f"{test.kind} of {test.column}" if test.column else test.kind),
            blocking=test.blocking,
            metadata={
                "t2/kind": test.kind,
                "t2/file": test.file,
                **({"t2/column": test.column} if test.column else {}),
                **({} if test.held is None else {"t2/blocks": ", ".join(test.held) or "nothing"}),
                **({"t2/daily": f"{test.daily.at:%H:%M} {test.daily.timezone}"} if test.daily else {}),
            },
            partitions_def=cut,
        )

    def _metadata(self, node: Table | Source) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "dagster/relation_identifier": node.relation,
            "dagster/code_references": _file_link(self.project.root, node.file),
            "t2/file": node.file,
        }
        if isinstance(node, Table):
            metadata["t2/concurrency"] = node.runs_at_once
        if node.columns:
            metadata["dagster/column_schema"] = _column_schema(node.columns)
        return metadata

    def _backfill_policy(self, partitions: int) -> dg.BackfillPolicy:
        if partitions not in self._backfill:
            self._backfill[partitions] = dg.BackfillPolicy.multi_run(partitions)
        return self._backfill[partitions]


def _width(upstream: Upstream) -> tuple[int, int]:
    return upstream.lookback, upstream.back_seconds


def _column_schema(columns: Iterable[Column]) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(column.name, column.data_type or "?", description=column.description or None)
            for column in columns
        ]
    )


def _file_link(root: str, file: str) -> dg.CodeReferencesMetadataValue:
    path = str(Path(root) / file)
    return dg.CodeReferencesMetadataValue(
        code_references=[dg.LocalFileCodeReference(file_path=path, label=file)]
    )


def _group(name: str | None) -> str | None:
    return NOT_A_NAME.sub("_", name) if name else None


def _owners(owners: Iterable[str]) -> list[str]:
    """Return owners as Dagster takes them: an address, or a team with its prefix."""
    named = (owner.removeprefix("team:") for owner in owners)
    return [owner if EMAIL.fullmatch(owner) else f"team:{NOT_A_NAME.sub('_', owner)}" for owner in named]


def _tags(tags: Iterable[str], kinds: Iterable[str]) -> dict[str, str]:
    return {
        **{tag: "" for tag in tags if valid_tag_key(tag)},
        **{f"dagster/kind/{kind}": "" for kind in kinds},
    }
