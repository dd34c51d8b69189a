"""The places that configure one node, in dbt's order: project, folders, properties file, `config()` in SQL.

dbt merges `meta` one level deep only, so that a model's `meta.t2` hides its folder's. T2 reads the layers
again and merges them whole; the same layers say in which line a value was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from t2.project.files import SECTIONS, Files, child, construct, items, named, text

Path = tuple[str, ...]
META = ("meta", "t2")


@dataclass(frozen=True)
class Layer:
    """One place: the YAML mapping `tree`, or the SQL text `sql` with the `call`ed configuration."""

    file: str
    tree: Any = None
    sql: str = ""
    call: Mapping[str, Any] | None = None

    def value(self, path: Path) -> Any:
        """Return what the layer sets at a path, None if nothing."""
        if self.call is not None:
            return _descend(self.call, path)
        node = self.tree
        for name in path:
            found = child(node, name)
            if found is None:
                return None
            node = found[1]
        return construct(node)

    def find(self, path: Path) -> tuple[int, int]:
        """Return how many names of a path the layer sets, and the line of the last of them."""
        if self.call is not None:
            return self._find_in_sql(path)
        node, depth, line = self.tree, 0, 1
        for name in path:
            found = child(node, name)
            if found is None:
                break
            depth, line, node = depth + 1, found[0].start_mark.line + 1, found[1]
        return depth, line

    def _find_in_sql(self, path: Path) -> tuple[int, int]:
        depth = max((n for n in range(len(path) + 1) if _descend(self.call, path[:n]) is not None), default=0)
        start = line = 0
        lines = self.sql.splitlines()
        for name in path[:depth]:
            found = next((n for n in range(start, len(lines)) if re.search(_assigned(name), lines[n])), None)
            start = line = found if found is not None else line
        return depth, line + 1


def _assigned(name: str) -> str:
    return rf"""(?<!\w){re.escape(name)}['"]?\s*[:=]"""


def _descend(value: Any, path: Path) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


class Layers:
    """The layers of one node, lowest first, and where each setting was written."""

    def __init__(self, node: Mapping[str, Any], files: Files, root_project: str) -> None:
        self.node = node
        self.files = files
        self.root_project = root_project
        self._all: list[Layer] | None = None

    @property
    def file(self) -> str:
        """The node's own file, relative to the project's root."""
        return self._prefixed(self.node["package_name"], self.node["original_file_path"])

    def settings(self) -> Any:
        """Return the whole `meta.t2` of the node: all layers merged, what dbt rendered on top."""
        rendered = (self.node["config"].get("meta") or {}).get("t2")
        merged: Any = {}
        for layer in self._layers(sparing=True):
            merged = _merge(merged, layer.value(META))
        return _merge(merged, rendered)

    def where(self, *paths: Path) -> str:
        """Return `file:line` of the first path that is set, else of as much of it as is, else of the node."""
        best = (0, self._entry_line())
        for path in paths:
            for layer in reversed(self.all()):
                depth, line = layer.find(path)
                if depth > best[0]:
                    best = (depth, f"{layer.file}:{line}")
            if best[0] == len(path):
                break
        return best[1]

    def unrendered(self, settings: Any, path: Path = ()) -> Iterator[Path]:
        """Yield the paths of merged values with Jinja that dbt did not render, as their layer is hidden."""
        if isinstance(settings, Mapping):
            for name, value in settings.items():
                yield from self.unrendered(value, (*path, str(name)))
        elif isinstance(settings, str) and "{{" in settings:
            rendered = self.node["config"].get("meta") or {}
            if _descend(rendered, ("t2", *path)) != settings:
                yield path

    def all(self) -> list[Layer]:
        """Return all layers, lowest first."""
        if self._all is None:
            self._all = list(self._layers(sparing=False))
        return self._all

    def _layers(self, sparing: bool) -> Iterator[Layer]:
        """Yield the layers, lowest first; `sparing` leaves out files that do not mention T2."""
        package = self.node["package_name"]
        yield from self._project_levels(package)
        if not sparing or self.files.mentions_t2(self._properties_file()):
            yield from self._properties()
        call = self.node.get("config_call_dict")
        if call:
            yield Layer(self.file, sql=self.files.text(self.file), call=call)
        if package != self.root_project:
            yield from self._project_levels(self.root_project)

    def _project_levels(self, package: str) -> Iterator[Layer]:
        file = self._project_file(package)
        found = child(self.files.tree(file), SECTIONS[self.node["resource_type"]])
        for name in ("", *self.node["fqn"]):
            if found is not None and name:
                found = child(found[1], name)
            if found is None:
                return
            yield Layer(file, found[1])

    def _properties(self) -> Iterator[Layer]:
        for entry in self._entries():
            yield Layer(self._properties_file(), entry)
            config = child(entry, "config")
            if config is not None:
                yield Layer(self._properties_file(), config[1])

    def _entries(self) -> Iterator[Any]:
        """Yield the node's entries in its properties file: for a source the source's, then the table's."""
        kind, file = self.node["resource_type"], self._properties_file()
        name = self.node["source_name"] if kind == "source" else self.node["name"]
        entry = self.files.entry(file, SECTIONS[kind], name)
        if entry is None:
            return
        yield entry
        tables = child(entry, "tables") if kind == "source" else None
        if tables is not None:
            yield from (item for name, item in named(tables[1]) if name == self.node["name"])
        versions = child(entry, "versions")
        if versions is not None and self.node.get("version") is not None:
            for item in versions[1].value:
                if any(text(k) == "v" and text(v) == str(self.node["version"]) for k, v in items(item)):
                    yield item

    def _entry_line(self) -> str:
        entries = list(self._entries())
        if entries:
            return f"{self._properties_file()}:{entries[-1].start_mark.line + 1}"
        return f"{self.file}:1"

    def _properties_file(self) -> str:
        patch = self.node.get("patch_path")
        if patch:
            package, _, file = patch.partition("://")
            return self._prefixed(package, file)
        return self.file

    def _project_file(self, package: str) -> str:
        return self._prefixed(package, "dbt_project.yml")

    def _prefixed(self, package: str, file: str) -> str:
        folder = "" if package == self.root_project else self.files.packages.get(package, "")
        return f"{folder}/{file}" if folder else file


def _merge(low: Any, high: Any) -> Any:
    if high is None:
        return low
    if not (isinstance(low, Mapping) and isinstance(high, Mapping)):
        return high
    return {**low, **{name: _merge(low.get(name), value) for name, value in high.items()}}
