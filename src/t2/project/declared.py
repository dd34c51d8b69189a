"""The nodes of a dbt manifest with their checked settings, and the problems found on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2.errors import Problem
from t2.project.config import SOURCE, TABLE, check
from t2.project.files import Files
from t2.project.layers import META, Layers, Path

Node = Mapping[str, Any]

TABLE_KINDS = ("model", "seed", "snapshot")


class Declared:
    """All models, seeds, snapshots and sources by dbt's unique id.

    `settings` are the parsed values under `meta.t2`. `broken` nodes have a problem already that would make
    others follow from it.
    """

    def __init__(self, manifest: Mapping[str, Any], files: Files) -> None:
        self.manifest = manifest
        self.files = files
        self.root_project: str = manifest["metadata"]["project_name"]
        self.nodes: dict[str, Node] = {
            **{uid: node for uid, node in manifest["nodes"].items() if node["resource_type"] in TABLE_KINDS},
            **manifest["sources"],
        }
        self.problems: list[Problem] = []
        self.broken: set[str] = set()
        self._layers: dict[str, Layers] = {}
        self.settings = {uid: self._check(uid) for uid in self.nodes}

    def _check(self, uid: str) -> dict[str, Any]:
        layers = self.layers(uid)
        settings = layers.settings()
        for path in layers.unrendered(settings):
            message = f"meta.t2.{'.'.join(path)} holds Jinja that a deeper meta.t2 hides from dbt"
            self.report(
                uid, message, "write the value plainly here, or repeat it where meta.t2 is set", META + path
            )
            return {}

        def report(path: Path, message: str, hint: str | None) -> None:
            self.report(uid, message, hint, META + path)
            if path and path[0] in ("batch_size", "begin", "timezone", "static"):
                self.broken.add(uid)

        return check(settings, SOURCE if self.is_source(uid) else TABLE, report)

    def layers(self, uid: str) -> Layers:
        """Return the places that configure a node."""
        if uid not in self._layers:
            self._layers[uid] = Layers(self.nodes[uid], self.files, self.root_project)
        return self._layers[uid]

    def report(self, uid: str, message: str, hint: str | None, *paths: Path) -> None:
        """Add a problem, at the line of the first of the `paths` below `config` that is set."""
        self.report_at(self.layers(uid).where(*paths), message, hint)

    def report_at(self, where: str, message: str, hint: str | None) -> None:
        """Add a problem at `file:line`, once."""
        problem = Problem(where, message, hint)
        if problem not in self.problems:
            self.problems.append(problem)

    def is_source(self, uid: str) -> bool:
        """Whether a node is a source."""
        return bool(self.nodes[uid]["resource_type"] == "source")

    def materialized(self, uid: str) -> str:
        """Return how a node is materialized; the kind for seeds, snapshots and sources."""
        node = self.nodes[uid]
        return (
            str(node["config"]["materialized"])
            if node["resource_type"] == "model"
            else str(node["resource_type"])
        )

    def is_transparent(self, uid: str) -> bool:
        """Whether readers look through a node to what is under it: views and ephemeral models."""
        return self.materialized(uid) in ("view", "ephemeral")

    def is_table(self, uid: str) -> bool:
        """Whether a node is a table or view in the warehouse that T2 builds."""
        return not self.is_source(uid) and self.materialized(uid) != "ephemeral"

    def parents(self, uid: str) -> list[str]:
        """Return the unique ids of the models, seeds, snapshots and sources that a node's SQL reads."""
        found = (self.nodes[uid].get("depends_on") or {}).get("nodes", ())
        return [parent for parent in found if parent in self.nodes]

    def label(self, uid: str) -> str:
        """Return the name that authors use: `source.table` for sources, else the model's."""
        node = self.nodes[uid]
        return f"{node['source_name']}.{node['name']}" if self.is_source(uid) else str(node["name"])

    def key(self, uid: str) -> str:
        """Return the key "schema/name", the name being the relation's."""
        node = self.nodes[uid]
        name = str(node["identifier"] if self.is_source(uid) else node["alias"])
        return f"{node['schema']}/{node['name'] if '/' in name else name}"

    def location(self, uid: str) -> str:
        """Return a node's own file, relative to the project's root."""
        return self.layers(uid).file
