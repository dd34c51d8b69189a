"""Dagster's tables are made by one process, before others open them."""

import os
import subprocess
import sys
from pathlib import Path

from t2.runtime.home import has_storage, open_home


def test_a_new_home_has_no_storage_until_it_is_made(tmp_path: Path):
    """Regression: processes that made it at the same time left a file that nothing could open again."""
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    home = open_home(tmp_path, {})
    assert not has_storage(home)

    environ = {**os.environ, "DAGSTER_HOME": str(home.dagster)}
    subprocess.run([sys.executable, "-m", "t2.definitions.storage"], env=environ, check=True)

    assert has_storage(home)
    (home.dagster / "storage/schedules/schedules.db").write_bytes(b"")
    assert not has_storage(home)


def test_a_storage_that_is_not_sqlites_is_there(tmp_path: Path):
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    home = open_home(tmp_path, {})
    home.config.write_text("storage:\n  postgres:\n    postgres_url: postgresql://nowhere/nothing\n")
    assert has_storage(home)
