"""Loading a project: from the store when nothing changed, else with a parse by dbt in a process of its own.

This module imports neither dbt nor Dagster; `python -m t2.runtime.parsing` is that other process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from t2.errors import ConfigError, DbtError, Problem, ProjectError, T2Error
from t2.project.inputs import find_project, fingerprint, install_path, project_settings
from t2.project.model import Project
from t2.project.profile import find_profiles, find_target
from t2.project.store import MANIFEST, Store

__all__ = ["find_project", "install_dependencies", "install_package", "load_project"]

PACKAGE = Path(__file__).parent.parent / "dbt"
ERROR = "error.json"
ATTEMPTS = 3
CHANGED = 3
FLAGS = (
    *("--quiet", "--no-use-colors", "--log-level-file", "none"),
    *("--no-send-anonymous-usage-stats", "--no-version-check"),
)


def load_project(
    path: str | Path = ".",
    *,
    profiles_dir: str | Path | None = None,
    target: str | None = None,
    on_parse: Callable[[], None] | None = None,
) -> Project:
    """Return the project that holds `path`, parsed again only if something it depends on changed.

    `on_parse` is called before dbt parses, which takes seconds to minutes. Raises ProjectError with all the
    problems of the project, DbtError if dbt cannot parse it, ConfigError if there is none.
    """
    root = find_project(Path(path))
    install_package(root)
    store = Store(root)
    for _ in range(ATTEMPTS):
        settings = project_settings(root)
        profiles = find_profiles(root, Path(profiles_dir) if profiles_dir else None)
        found = fingerprint(root, settings, profiles, target)
        project = store.get(found)
        if project is None:
            if on_parse is not None:
                on_parse()
            project = _parse_once(store, found, settings, profiles, target)
        if project is not None:
            return replace(project, profiles_dir=str(profiles))
    raise DbtError("the project's files keep changing while dbt parses them", hint="try again")


def _parse_once(
    store: Store, found: str, settings: Mapping[str, Any], profiles: Path, target: str | None
) -> Project | None:
    """Parse, unless another process did while this one waited; None if files changed during the parse."""
    with store.lock() as lock:
        project = store.get(found)
        if project is not None:
            return project
        _check_packages(store.root, settings)
        with store.workplace() as folder:
            request = {
                "root": str(store.root),
                "profiles_dir": str(profiles),
                "target": target,
                "name": find_target(settings, profiles, target),
                "fingerprint": found,
                "install_path": install_path(settings),
                "folder": str(folder),
            }
            if not _run_parse(request, lock):
                return None
        store.sweep()
        return store.get(found)


def _run_parse(request: Mapping[str, Any], lock: int) -> bool:
    """Run the parse in a process that keeps the lock even if this one is killed; False if files changed."""
    command = [sys.executable, "-m", "t2.runtime.parsing", json.dumps(request)]
    ended = subprocess.run(command, capture_output=True, text=True, pass_fds=(lock,), check=False)
    try:
        error = json.loads((Path(request["folder"]) / ERROR).read_text("utf-8"))
    except OSError:
        error = None
    if error is not None:
        raise _error(error)
    if ended.returncode not in (0, CHANGED):
        output = "\n".join((ended.stderr or ended.stdout).strip().splitlines()[-20:])
        raise DbtError(f"dbt ended with exit code {ended.returncode} while it parsed:\n{output}")
    return ended.returncode == 0


def _error(error: Mapping[str, Any]) -> T2Error:
    if "problems" in error:
        return ProjectError([Problem(**problem) for problem in error["problems"]])
    return DbtError(error["message"], hint=error["hint"], where=error["where"])


def install_package(root: Path) -> bool:
    """Make T2's dbt package part of the project; return whether anything had to be done.

    It is copied to `<packages-install-path>/t2` when it is missing or different.
    """
    target = root / install_path(project_settings(root)) / "t2"
    if not (PACKAGE / "dbt_project.yml").is_file():
        raise ConfigError(f"T2's dbt package is missing: {PACKAGE}", hint="install t2 again")
    if _content(target) == _content(PACKAGE):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".t2-", dir=target.parent) as folder:
        fresh, old = Path(folder) / "new", Path(folder) / "old"
        shutil.copytree(PACKAGE, fresh, ignore=shutil.ignore_patterns("__pycache__"))
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if _content(target) != _content(PACKAGE):
                raise
    return True


def _content(folder: Path) -> str | None:
    """Return a hash of a directory's files, None if there is no such directory."""
    if not folder.is_dir():
        return None
    whole = hashlib.sha256()
    for file in sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ):
        whole.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def install_dependencies(root: Path) -> bool:
    """Run `dbt deps` if the project lists packages; return whether it does. DbtError with dbt's message."""
    if not any((root / name).is_file() for name in ("packages.yml", "dependencies.yml")):
        return False
    script = "import sys; from dbt.cli.main import cli; cli(sys.argv[1:])"
    command = [sys.executable, "-c", script, *FLAGS[2:], "deps", "--project-dir", str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if ended.returncode != 0:
        raise DbtError((ended.stdout + ended.stderr).strip(), hint="dbt deps could not install the packages")
    return True


def _check_packages(root: Path, settings: Mapping[str, Any]) -> None:
    """Raise if packages are listed and not installed: dbt counts directories, and T2's own would hide one."""
    import yaml

    listed = 0
    for name in ("packages.yml", "dependencies.yml"):
        if (root / name).is_file():
            with contextlib.suppress(yaml.YAMLError):  # dbt says what is wrong with it
                found = yaml.safe_load((root / name).read_text("utf-8"))
                listed += len(found.get("packages") or ()) if isinstance(found, dict) else 0
    folder = root / install_path(settings)
    installed = sum(path.parent.name != "t2" for path in folder.glob("[!.]*/dbt_project.yml"))
    if listed > installed:
        packages = "1 package is" if listed == 1 else f"{listed} packages are"
        raise DbtError(f"{packages} listed and {installed} are installed", hint="run t2 deps")


def main(request: Mapping[str, Any]) -> int:
    """Parse a project as `_parse_once` asks and write the store's entry, or the error beside it."""
    folder = Path(request["folder"])
    try:
        return 0 if _write_entry(request, folder) else CHANGED
    except ProjectError as error:
        problems = [vars(problem) for problem in error.problems]
        (folder / ERROR).write_text(json.dumps({"problems": problems}), "utf-8")
        return 2
    except T2Error as error:
        plain = {"message": error.message, "hint": error.hint, "where": error.where}
        (folder / ERROR).write_text(json.dumps(plain), "utf-8")
        return 2


def _write_entry(request: Mapping[str, Any], folder: Path) -> bool:
    """Parse and write the entry; False if the files are not those that the fingerprint was taken from."""
    from t2.project.manifest import read_manifest

    root = Path(request["root"])
    profiles = Path(request["profiles_dir"])
    store = Store(root)
    target_path = store.folder / "dbt" / re.sub(r"\W", "_", request["name"])
    manifest = _dbt_parse(root, str(profiles), request["target"], target_path)
    if fingerprint(root, project_settings(root), profiles, request["target"]) != request["fingerprint"]:
        return False
    project = read_manifest(
        manifest,
        root=root,
        now=datetime.now(timezone.utc),
        install_path=request["install_path"],
        profiles_dir=request["profiles_dir"],
        target=request["name"],
        fingerprint=request["fingerprint"],
        path=store.path(request["fingerprint"]),
    )
    shutil.copyfile(target_path / "partial_parse.msgpack", folder / MANIFEST)
    store.put(project, folder)
    return True


def _dbt_parse(root: Path, profiles_dir: str, target: str | None, target_path: Path) -> Mapping[str, Any]:
    """Return dbt's manifest; the partial parse is kept in `target_path`, apart from the author's own."""
    from dbt.cli.main import dbtRunner

    _start_from_the_authors_parse(root, target_path)
    options = {
        "--project-dir": str(root),
        "--profiles-dir": profiles_dir,
        "--target-path": str(target_path),
        "--log-path": str(target_path),
        **({"--target": target} if target else {}),
    }
    os.chdir(root)
    result = dbtRunner().invoke(
        [*FLAGS, "parse", "--no-write-json", *(text for option in options.items() for text in option)]
    )
    if not result.success:
        raise _dbt_error(result.exception, profiles_dir)
    # not writable_manifest(): the same nodes, but at 2,000 models it costs 3 s more
    manifest: Mapping[str, Any] = result.result.to_dict(omit_none=False)
    return manifest


def _start_from_the_authors_parse(root: Path, target_path: Path) -> None:
    own, authors = (folder / "partial_parse.msgpack" for folder in (target_path, root / "target"))
    if authors.is_file() and not own.is_file():
        target_path.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(authors, own)


def _dbt_error(exception: BaseException | None, profiles_dir: str) -> DbtError:
    message = "\n".join(line.rstrip() for line in str(exception).strip().splitlines() if line.strip())
    hint = None
    if type(exception).__name__ == "DbtProfileError" or "profile" in message.lower():
        hint = f"T2 looked in {Path(profiles_dir) / 'profiles.yml'}"
    elif "dbt deps" in message:
        hint = "run t2 deps"
    where = re.search(r"\(([\w./ -]+\.(?:sql|py|ya?ml|md|csv))\)", message)
    line = re.search(r"^\s*line (\d+)$", message, re.MULTILINE)
    at = f"{where[1]}:{line[1] if line else 1}" if where else None
    return DbtError(message, hint=hint, where=at)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
