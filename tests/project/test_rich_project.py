from __future__ import annotations

import dataclasses
from datetime import datetime

import pytest

import t2
from t2.project.model import (
    Backfill,
    Column,
    Grain,
    Monitor,
    Partitioning,
    Project,
    Retries,
    Source,
    Table,
    Test,
    Upstream,
)
from tests.project.projects import RICH, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return t2.load_project(write_project(tmp_path_factory.mktemp("rich"), RICH))


def test_tables_come_in_dependency_order_with_ties_by_key(project: Project) -> None:
    assert list(project.tables) == []
