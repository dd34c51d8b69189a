from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import t2
from t2.project.model import Project

sys.path.insert(0, str(Path(__file__).parent))

import projects


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return t2.load_project(projects.write(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance
