"""One test of each kind on each warehouse; all of them are in the files beside it (`make test-adapters`)."""

from __future__ import annotations

from typing import Any

import pytest
from dbt.tests.adapter.basic.test_incremental import BaseIncremental
from dbt.tests.adapter.basic.test_snapshot_timestamp import BaseSnapshotTimestamp
from dbt.tests.adapter.grants.test_incremental_grants import BaseIncrementalGrants
from dbt.tests.adapter.hooks.test_model_hooks import BasePrePostModelHooks
from dbt.tests.util import get_manifest
from tests.dbt_package.adapter_suite import test_partitioned


@pytest.fixture(scope="class", params=["duckdb", "postgres"])
def dbt_profile_target(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.getfixturevalue(f"{request.param}_target")
    return found


class OnPostgres:
    @pytest.fixture(scope="class")
    def dbt_profile_target(self, postgres_target: dict[str, Any]) -> dict[str, Any]:
        return postgres_target


class TestIncremental(BaseIncremental):
    def test_incremental(self, project: Any) -> None:
        super().test_incremental(project)
        macros = get_manifest(project.project_root).macros
        assert "macro.t2.materialization_partitioned_duckdb" in macros


class TestSnapshotTimestamp(BaseSnapshotTimestamp):
    pass


class TestHooks(OnPostgres, BasePrePostModelHooks):
    pass


class TestIncrementalGrants(OnPostgres, BaseIncrementalGrants):
    pass


class TestPartitionedRollback(test_partitioned.TestRollback):
    pass


class TestPartitionedMerge(test_partitioned.TestMergeExcludeColumns):
    pass
