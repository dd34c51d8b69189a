"""How `materialized: partitioned` writes a partition: dbt's `incremental_strategy` and the rules of a merge.

The dbt package (`dbt/macros/partitioned/`) carries out what is declared here, and checks it again
where dbt runs without T2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2.project.config import nearest
from t2.project.declared import Declared
from t2.project.layers import META

PARTITIONED = "partitioned"
STRATEGIES = ("insert_overwrite", "append", "merge")
COMMUTATIVE = ("least", "greatest")


def check_strategies(declared: Declared) -> None:
    """Report strategies that do not exist and merges that cannot be done."""
    for uid in declared.nodes:
        if declared.materialized(uid) != PARTITIONED:
            _check_no_merge(declared, uid, "materialized: partitioned")
            continue
        strategy = _config(declared, uid).get("incremental_strategy") or STRATEGIES[0]
        if strategy not in STRATEGIES:
            close = nearest(str(strategy), STRATEGIES)
            hint = f"did you mean {close}?" if close else None
            message = f"incremental_strategy is {strategy!r}; partitioned tables know {', '.join(STRATEGIES)}"
            declared.report(uid, message, hint, ("incremental_strategy",))
        elif strategy == "merge":
            _check_merge(declared, uid)
        else:
            _check_no_merge(declared, uid, "incremental_strategy: merge")


def merges(declared: Declared, uid: str) -> bool:
    """Return whether partitions are merged by key into rows that they share."""
    strategy = _config(declared, uid).get("incremental_strategy")
    return declared.materialized(uid) == PARTITIONED and strategy == "merge"


def merges_in_order(declared: Declared, uid: str) -> bool:
    """Return whether a partition's result depends on those merged before it.

    It does not if every column that is no key is merged by least or greatest, or if the event time is part of
    the key: no two partitions share a row then. Columns that are not documented may be anything.
    """
    if not merges(declared, uid):
        return False
    config = _config(declared, uid)
    key = {name.lower() for name in _key(config)}
    if str(config.get("event_time")).lower() in key:
        return False
    rules = {name.lower(): rule for name, rule in _rules(declared, uid).items()}
    columns = {name.lower() for name in declared.nodes[uid].get("columns") or ()} - key
    return not columns or any(rules.get(column) not in COMMUTATIVE for column in columns)


def _check_no_merge(declared: Declared, uid: str, needed: str) -> None:
    if not declared.is_source(uid) and _rules(declared, uid):
        declared.report(uid, f"meta.t2.merge needs {needed}", "remove one of the two", (*META, "merge"))


def _check_merge(declared: Declared, uid: str) -> None:
    config = _config(declared, uid)
    key = _key(config)
    if not key:
        hint = "name the column or columns that identify a row"
        declared.report(uid, "a merge needs unique_key", hint, ("incremental_strategy",))
    if config.get("merge_update_columns") and config.get("merge_exclude_columns"):
        message = "merge_update_columns and merge_exclude_columns exclude each other"
        declared.report(
            uid, message, "keep one of them", ("merge_update_columns",), ("merge_exclude_columns",)
        )
    for name in _rules(declared, uid):
        if name.lower() in (column.lower() for column in key):
            message = f"meta.t2.merge.{name}: {name} is part of unique_key, which a merge never changes"
            declared.report(uid, message, None, (*META, "merge", name))
    _check_rendered(declared, uid)


def _check_rendered(declared: Declared, uid: str) -> None:
    """Report rules of a folder that a model's own `meta.t2` hides from dbt, and so from the macros."""
    rendered = (_config(declared, uid).get("meta") or {}).get("t2") or {}
    seen = rendered.get("merge") or {}
    if any(seen.get(name) != rule for name, rule in _rules(declared, uid).items()):
        message = "meta.t2.merge of a folder is hidden from dbt by the model's own meta.t2"
        hint = "write all of meta.t2.merge where the model's meta.t2 is"
        declared.report(uid, message, hint, (*META, "merge"))


def _config(declared: Declared, uid: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = declared.nodes[uid]["config"]
    return config


def _key(config: Mapping[str, Any]) -> list[str]:
    key = config.get("unique_key")
    return [key] if isinstance(key, str) else list(key or ())


def _rules(declared: Declared, uid: str) -> Mapping[str, str]:
    rules: Mapping[str, str] = declared.settings[uid].get("merge") or {}
    return rules
