from __future__ import annotations

from pathlib import Path

import pytest

from t2.errors import StorageError
from t2.ledger.ledger import Ledger
from t2.ledger.storage import locate


def located(home: Path, config: str | None = None) -> str:
    if config is not None:
        (home / "dagster.yaml").write_text(config)
    return locate(home).render_as_string(hide_password=False)


def test_without_configuration_the_log_is_in_the_home(tmp_path: Path) -> None:
    assert located(tmp_path) == f"sqlite:///{tmp_path}/history/runs/index.db"
    assert located(tmp_path, "telemetry: {enabled: false}") == f"sqlite:///{tmp_path}/history/runs/index.db"


def test_sqlite_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE", "/data")
    config = "storage: {sqlite: {base_dir: {env: BASE}}}"
    assert located(tmp_path, config) == "sqlite:////data/history/runs/index.db"


def test_postgres_by_its_parts_or_by_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "p@ss/word")
    parts = "{username: me, password: {env: PASSWORD}, hostname: db, db_name: d, params: {sslmode: require}}"
    config = f"storage: {{postgres: {{postgres_db: {parts}}}}}"
    assert located(tmp_path, config) == "postgresql://me:p%40ss%2Fword@db:5432/d?sslmode=require"
    config = "storage: {postgres: {postgres_url: 'postgresql://me@db/dagster'}}"
    assert located(tmp_path, config) == "postgresql://me@db/dagster"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("storage: {mysql: {mysql_url: x}}", "the storage 'mysql' is not supported"),
        ("event_log_storage: {module: m, class: C}", "`event_log_storage` is set separately"),
        (
            "storage: {sqlite: {base_dir: {env: T2_NOT_SET}}}",
            "the environment variable T2_NOT_SET is not set",
        ),
        ("storage: {postgres: {auth_provider: {gcp_wif: {}}}}", "`auth_provider` is not supported"),
    ],
)
def test_other_storage_is_refused_with_what_is_supported(tmp_path: Path, config: str, message: str) -> None:
    with pytest.raises(StorageError) as caught:
        located(tmp_path, config)
    assert caught.value.message == message
    assert caught.value.where == str(tmp_path / "dagster.yaml")


def test_a_ledger_never_makes_dagsters_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no Dagster event log yet"):
        Ledger(locate(tmp_path))
    assert list(tmp_path.iterdir()) == []
