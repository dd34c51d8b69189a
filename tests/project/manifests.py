"""dbt manifests made by hand, for what needs no parse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from t2.project.manifest import SCHEMA

Node = dict[str, Any]


def manifest(*nodes: Node, macros: Iterable[Node] = ()) -> dict[str, Any]:
    """Return a manifest of models, seeds, tests and sources in the project `shop`."""
    return {
        "metadata": {
            "dbt_schema_version": SCHEMA,
            "dbt_version": "1.11.16",
            "project_name": "shop",
            "adapter_type": "duckdb",
        },
        "nodes": {node["unique_id"]: node for node in nodes if node["resource_type"] != "source"},
        "sources": {node["unique_id"]: node for node in nodes if node["resource_type"] == "source"},
        "macros": {macro["unique_id"]: macro for macro in macros},
        "groups": {},
    }


def model(
    name: str,
    reads: Sequence[str] = (),
    *,
    kind: str = "model",
    t2: object = None,
    code: str = "select 1",
    macros: Sequence[str] = (),
    **config: Any,
) -> Node:
    """Return a model (`partitioned` by days unless `config` says otherwise) that reads others by name."""
    daily = {"materialized": "partitioned", "event_time": "day", "batch_size": "day", "begin": "2024-01-01"}
    return {
        "unique_id": f"{kind}.shop.{name}",
        "resource_type": kind,
        "package_name": "shop",
        "name": name,
        "alias": name,
        "schema": "main",
        "database": "db",
        "relation_name": f'"db"."main"."{name}"',
        "original_file_path": f"models/{name}.sql",
        "fqn": ["shop", name],
        "raw_code": code,
        "columns": {},
        "checksum": {"name": "sha256", "checksum": "0"},
        "depends_on": {
            "nodes": [read if "." in read else f"model.shop.{read}" for read in reads],
            "macros": [f"macro.shop.{macro}" for macro in macros],
        },
        "config": {**daily, "meta": {"t2": t2} if t2 is not None else {}, **config},
    }


def view(name: str, reads: Sequence[str] = (), **more: Any) -> Node:
    """Return a view."""
    return model(name, reads, materialized="view", **more)


def ephemeral(name: str, reads: Sequence[str] = (), **more: Any) -> Node:
    """Return an ephemeral model."""
    return model(name, reads, materialized="ephemeral", **more)


def source(name: str, **t2: Any) -> Node:
    """Return the source table `raw.<name>`, daily unless `t2` says otherwise."""
    return {
        "unique_id": f"source.shop.raw.{name}",
        "resource_type": "source",
        "package_name": "shop",
        "name": name,
        "identifier": name,
        "source_name": "raw",
        "schema": "raw",
        "database": "db",
        "relation_name": f'"db"."raw"."{name}"',
        "original_file_path": "models/sources.yml",
        "fqn": ["shop", "raw", name],
        "columns": {},
        "config": {"event_time": "day", "meta": {"t2": t2 or {"batch_size": "day", "begin": "2024-01-01"}}},
    }


def check(name: str, *reads: str, code: str = "select 1", **config: Any) -> Node:
    """Return a singular test that reads models by name."""
    return {
        "unique_id": f"test.shop.{name}",
        "resource_type": "test",
        "package_name": "shop",
        "name": name,
        "original_file_path": f"tests/{name}.sql",
        "raw_code": code,
        "depends_on": {"nodes": [f"model.shop.{read}" for read in reads], "macros": []},
        "config": {"severity": "ERROR", "meta": {}, **config},
    }


def macro(name: str, sql: str, *calls: str) -> Node:
    """Return a macro of the project."""
    return {
        "unique_id": f"macro.shop.{name}",
        "package_name": "shop",
        "macro_sql": sql,
        "depends_on": {"macros": [f"macro.shop.{call}" for call in calls]},
    }
