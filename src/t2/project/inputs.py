"""Everything that a parse depends on, as one fingerprint: files, versions and environment variables.

Each file is read and hashed each time (11 MB in 2,000 files take 0.1 s): cheaper than a memo is safe.
An environment variable counts when some file names it literally, `env_var('NAME')`.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from t2.errors import ConfigError

PATHS = {
    "model-paths": ["models"],
    "seed-paths": ["seeds"],
    "snapshot-paths": ["snapshots"],
    "macro-paths": ["macros"],
    "test-paths": ["tests"],
    "analysis-paths": ["analyses"],
    "docs-paths": [],
    "function-paths": ["functions"],
}
SINGLE = (
    "dbt_project.yml",
    "packages.yml",
    "dependencies.yml",
    "package-lock.yml",
    "selectors.yml",
    ".dbtignore",
)
ENVIRONMENT = ("DBT_TARGET", "DBT_PROFILE")
ENV_VAR = re.compile(rb"""env_var\(\s*['"]([^'"]+)['"]""")


def find_project(path: Path) -> Path:
    """Return the directory of the dbt project that holds `path`; ConfigError if there is none."""
    start = path.resolve()
    for folder in (start, *start.parents):
        if (folder / "dbt_project.yml").is_file():
            return folder
    raise ConfigError(
        f"no dbt_project.yml in {start} or above it",
        hint="go to a dbt project, or name one with --project-dir",
    )


def project_settings(root: Path) -> Mapping[str, Any]:
    """Return dbt_project.yml as it is written, empty if it is not YAML: dbt says what is wrong with it."""
    try:
        text = (root / "dbt_project.yml").read_text("utf-8")
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def install_path(settings: Mapping[str, Any]) -> str:
    """Return the directory of the installed packages, relative to the project's root."""
    return str(settings.get("packages-install-path") or "dbt_packages")


def fingerprint(root: Path, settings: Mapping[str, Any], profiles_dir: Path, target: str | None) -> str:
    """Return the hash of all that influences what dbt and T2 read from a project."""
    whole = hashlib.sha256()
    variables = set(ENVIRONMENT)
    for name, file in _files(root, settings, profiles_dir):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        whole.update(f"{name}\0{len(content)}\0".encode())
        whole.update(content)
        if b"env_var" in content:
            variables.update(found.decode() for found in ENV_VAR.findall(content))
    environment = [(name, os.environ.get(name)) for name in sorted(variables)]
    whole.update(repr((target, environment, _versions(), _own_code())).encode())
    return whole.hexdigest()


def modified(root: Path, settings: Mapping[str, Any], profiles_dir: Path) -> dict[str, tuple[int, int]]:
    """Return the time of change (ns) and the size of each file that a fingerprint is taken of, by name."""
    found = {}
    for name, file in _files(root, settings, profiles_dir):
        try:
            state = file.stat()
        except OSError:
            continue
        found[name] = (state.st_mtime_ns, state.st_size)
    return found


def _files(root: Path, settings: Mapping[str, Any], profiles_dir: Path) -> Iterator[tuple[str, Path]]:
    yield "profiles.yml", profiles_dir / "profiles.yml"
    for name in SINGLE:
        yield name, root / name
    folders = {folder for key, default in PATHS.items() for folder in _folders(settings, key, default)}
    for folder in sorted({*folders, install_path(settings)}):
        yield from _walk(str(root / folder), folder)


def _folders(settings: Mapping[str, Any], key: str, default: list[str]) -> list[str]:
    found = settings.get(key)
    return [str(item) for item in found] if isinstance(found, list) else default


def _walk(folder: str, name: str) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder in a fixed order; links to packages elsewhere are followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in ("__pycache__", "target"):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{name}/{entry.name}")
        else:
            yield f"{name}/{entry.name}", Path(entry.path)


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    """Return the installed dbt distributions with their versions, from the names of their metadata."""
    found = (path.name for entry in sys.path if entry for path in Path(entry).glob("dbt_*.dist-info"))
    return (*sorted(set(found)), f"python {sys.version_info[0]}.{sys.version_info[1]}")


@lru_cache(maxsize=1)
def _own_code() -> str:
    """Return a hash of the code that reads projects: entries of another version of T2 are never used."""
    whole = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()
