"""Code versions: a hash of everything in the project that decides what a table's data looks like.

Descriptions, tags, tests and owners are not in it: changing them builds nothing again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from t2.project.declared import Declared, Node
from t2.project.files import child, construct
from t2.project.model import Partitioning

CONFIG = (
    *("materialized", "incremental_strategy", "unique_key", "event_time", "on_schema_change"),
    *("merge_update_columns", "merge_exclude_columns", "incremental_predicates"),
)
SNAPSHOT_CONFIG = ("strategy", "updated_at", "check_cols", "hard_deletes", "dbt_valid_to_current")
CONFIG_CALL = re.compile(r"\{\{-?\s*config\s*\(")
VAR = re.compile(r"""\bvar\(\s*['"](\w+)['"]""")


class CodeVersions:
    """Computes code versions; the hashes of macros are shared between tables."""

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.macros = declared.manifest["macros"]
        self._hashes = {uid: _hash(macro["macro_sql"]) for uid, macro in self.macros.items()}

    def of(self, uid: str, partitioning: Partitioning | None) -> str:
        """Return the 16 hexadecimal digits of a table's code version."""
        nodes = [uid, *self._ephemeral_parents(uid)]
        macros = sorted(set(self._closure(m for n in nodes for m in self._called(n))))
        codes = [_without_config(self.declared.nodes[node].get("raw_code") or "") for node in nodes]
        return _hash(
            json.dumps(
                {
                    "code": [codes[0], *sorted(codes[1:])],
                    "macros": [self._hashes[macro] for macro in macros],
                    "config": self._config(uid, partitioning),
                    "seed": self._seed(self.declared.nodes[uid]),
                    "vars": self._vars([*codes, *(self.macros[macro]["macro_sql"] for macro in macros)]),
                },
                sort_keys=True,
                default=str,
            )
        )

    def _config(self, uid: str, partitioning: Partitioning | None) -> dict[str, Any]:
        node = self.declared.nodes[uid]
        config = node["config"]
        settings = self.declared.settings[uid]
        names = CONFIG + (SNAPSHOT_CONFIG if node["resource_type"] == "snapshot" else ())
        return {
            **{name: config.get(name) for name in names},
            "hooks": [[h["sql"] for h in config.get(hook) or ()] for hook in ("pre-hook", "post-hook")],
            "contract": (node.get("contract") or {}).get("checksum"),
            "merge": settings.get("merge"),
            "cut": partitioning and [partitioning.grain, partitioning.begin, partitioning.timezone],
            "upstream": {name: _rows(wanted) for name, wanted in settings.get("upstream", {}).items()},
        }

    def _seed(self, node: Node) -> str | None:
        """Return a seed's checksum; dbt's is of the path alone when the file is over 1 MB."""
        if node["resource_type"] != "seed":
            return None
        if node["checksum"]["name"] != "path":
            return str(node["checksum"]["checksum"])
        return _hash(self.declared.files.text(self.declared.location(node["unique_id"])))

    def _ephemeral_parents(self, uid: str) -> list[str]:
        found: dict[str, None] = {}
        stack = self.declared.parents(uid)
        while stack:
            parent = stack.pop()
            if parent not in found and self.declared.materialized(parent) == "ephemeral":
                found[parent] = None
                stack += self.declared.parents(parent)
        return list(found)

    def _called(self, uid: str) -> list[str]:
        return list((self.declared.nodes[uid].get("depends_on") or {}).get("macros", ()))

    def _closure(self, macros: Iterable[str]) -> Iterator[str]:
        """Yield the macros and all they call, without those of dbt and its adapter."""
        seen = set()
        stack = list(macros)
        while stack:
            uid = stack.pop()
            if uid in seen or uid not in self.macros or not self._counts(self.macros[uid]["package_name"]):
                continue
            seen.add(uid)
            yield uid
            stack += self.macros[uid]["depends_on"]["macros"]

    def _counts(self, package: str) -> bool:
        return package == self.declared.root_project or package in self.declared.files.packages

    def _vars(self, codes: list[str]) -> dict[str, list[Any]]:
        """Return what dbt_project.yml says for the variables that the code names."""
        names = {name for code in codes for name in VAR.findall(code)}
        declared = child(self.declared.files.tree("dbt_project.yml"), "vars") if names else None
        values = construct(declared[1]) if declared else {}
        scopes = [values, *(value for value in values.values() if isinstance(value, dict))]
        return {name: [scope[name] for scope in scopes if name in scope] for name in sorted(names)}


def _rows(wanted: Mapping[str, Any]) -> Any:
    """Return which rows of a parent are read: what else is said of it changes no data."""
    lookback = wanted.get("lookback", 0)
    others = {key: wanted[key] for key in ("shift", "window") if wanted.get(key) not in (None, 0, "overlap")}
    return [str(lookback), others] if others or isinstance(lookback, timedelta) else lookback


def _without_config(code: str) -> str:
    """Return the SQL without its `config()` call, whose values are hashed by name."""
    match = CONFIG_CALL.search(code)
    if not match:
        return code
    depth, quote = 1, ""
    for position in range(match.end(), len(code)):
        character = code[position]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            end = code.find("}}", position)
            return code[: match.start()] + code[end + 2 :] if end > 0 else code
    return code


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
