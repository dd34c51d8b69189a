"""Which profiles.yml and target dbt will use, found without dbt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from t2.errors import DbtError


def find_profiles(root: Path, profiles_dir: Path | None) -> Path:
    """Return the directory of profiles.yml: the one asked for, $DBT_PROFILES_DIR, the project's, ~/.dbt.

    DbtError if there is no profiles.yml.
    """
    named = profiles_dir or os.environ.get("DBT_PROFILES_DIR")
    if named:
        folder = Path(named).expanduser().resolve()
    else:
        folder = root if (root / "profiles.yml").is_file() else Path.home() / ".dbt"
    if not (folder / "profiles.yml").is_file():
        hint = "write one there or in the project, or name its directory with --profiles-dir"
        raise DbtError(f"dbt has no profile: {folder / 'profiles.yml'} does not exist", hint=hint)
    return folder


def find_target(settings: Mapping[str, Any], profiles_dir: Path, target: str | None) -> str:
    """Return the target's name: the one that is asked for, $DBT_TARGET, the profile's, `default`."""
    if target or os.environ.get("DBT_TARGET"):
        return target or os.environ["DBT_TARGET"]
    try:
        profiles = yaml.safe_load((profiles_dir / "profiles.yml").read_text("utf-8")) or {}
    except (OSError, yaml.YAMLError):
        return "default"
    name = render(str(os.environ.get("DBT_PROFILE") or settings.get("profile")))
    profile = profiles.get(name) if isinstance(profiles, dict) else None
    return render(str(profile.get("target") or "default")) if isinstance(profile, dict) else "default"


def render(text: str) -> str:
    """Return a text with its `env_var()` calls rendered; as it is when one of them is not set."""
    if "{{" not in text:
        return text
    from jinja2 import Environment, TemplateError

    def env_var(name: str, default: str | None = None) -> str:
        if name not in os.environ and default is None:
            raise TemplateError(f"{name} is not set")
        return os.environ.get(name, default or "")

    try:
        return Environment(autoescape=False).from_string(text).render(env_var=env_var)
    except TemplateError:
        return text
