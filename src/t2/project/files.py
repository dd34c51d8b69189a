"""The project's own files, read for what dbt's manifest leaves out: line numbers and hidden layers.

Files are named relative to the project's root; a missing one reads as empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SECTIONS = {
    "model": "models",
    "seed": "seeds",
    "snapshot": "snapshots",
    "source": "sources",
    "test": "data_tests",
}


class Files:
    """Reads and keeps the files of one project."""

    def __init__(self, root: Path, install_path: str = "dbt_packages") -> None:
        self.root = root
        self.install_path = install_path
        self._texts: dict[str, str] = {}
        self._mentions: dict[str, bool] = {}
        self._trees: dict[str, Any] = {}
        self._entries: dict[str, dict[tuple[str, str], Any]] = {}

    def text(self, file: str) -> str:
        """Return a file's text, empty if it cannot be read."""
        if file not in self._texts:
            try:
                self._texts[file] = (self.root / file).read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                self._texts[file] = ""
        return self._texts[file]

    def tree(self, file: str) -> Any:
        """Return a YAML file's node tree, None if it is empty or cannot be read."""
        if file not in self._trees:
            try:
                self._trees[file] = yaml.compose(self.text(file), Loader=LOADER)
            except yaml.YAMLError:
                self._trees[file] = None
        return self._trees[file]

    def entry(self, file: str, section: str, name: str) -> Any:
        """Return the node of `- name: <name>` below a properties file's section, None if there is none."""
        if file not in self._entries:
            sections = [(text(key), value) for key, value in items(self.tree(file))]
            self._entries[file] = {(key, n): item for key, value in sections for n, item in named(value)}
        return self._entries[file].get((section, name))

    def mentions_t2(self, file: str) -> bool:
        """Whether a file can hold `meta.t2` at all: most cannot, and are never parsed a second time."""
        if file not in self._mentions:
            self._mentions[file] = re.search(r"\bt2\b", self.text(file)) is not None
        return self._mentions[file]

    @cached_property
    def packages(self) -> Mapping[str, str]:
        """The directories of the installed packages, by package name."""
        folders = {}
        for path in sorted(self.root.glob(f"{self.install_path}/*/dbt_project.yml")):
            folder = path.parent.relative_to(self.root).as_posix()
            for key, value in items(self.tree(f"{folder}/dbt_project.yml")):
                if text(key) == "name":
                    folders[text(value)] = folder
        return folders


def items(node: Any) -> list[tuple[Any, Any]]:
    """Return the key and value nodes of a mapping node, none for any other."""
    return list(node.value) if isinstance(node, yaml.MappingNode) else []


def named(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items of a sequence node that have a `name`."""
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        for key, value in items(item):
            if text(key) == "name":
                yield text(value), item


def text(node: Any) -> str:
    """Return a scalar node's text."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def child(node: Any, name: str) -> tuple[Any, Any] | None:
    """Return the key and value nodes of a mapping's entry, with or without dbt's `+`."""
    for key, value in items(node):
        if text(key) in (name, f"+{name}"):
            return key, value
    return None


def construct(node: Any) -> Any:
    """Return the Python value of a YAML node."""
    return yaml.constructor.SafeConstructor().construct_document(node)
