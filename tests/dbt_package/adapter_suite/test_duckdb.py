"""dbt's tests of incremental models, snapshots, hooks and contracts on DuckDB.

Left out, as in dbt-duckdb's own repository: grants (DuckDB has no users), foreign keys of incremental models
(a table that is referenced cannot be replaced), SQL headers with PostgreSQL's names of settings, hooks on
runs, which look at user and host, and unknown strategies, which dbt-duckdb notices at the second run only.
Left out because of DuckDB 2: microbatch, as the suite writes timestamps with an offset (`00:00:00-0`).
"""

from __future__ import annotations

from typing import Any

import pytest
from dbt.tests.adapter.basic.test_incremental import (
    BaseIncremental,
    BaseIncrementalNotSchemaChange,
)
from dbt.tests.adapter.basic.test_snapshot_check_cols import BaseSnapshotCheckCols
from dbt.tests.adapter.basic.test_snapshot_timestamp import BaseSnapshotTimestamp
from dbt.tests.adapter.constraints import test_constraints as constraints
from dbt.tests.adapter.hooks import test_model_hooks as hooks
from dbt.tests.adapter.incremental.test_incremental_merge_exclude_columns import BaseMergeExcludeColumns
from dbt.tests.adapter.incremental.test_incremental_on_schema_change import BaseIncrementalOnSchemaChange
from dbt.tests.adapter.incremental.test_incremental_predicates import BaseIncrementalPredicates
from dbt.tests.adapter.incremental.test_incremental_unique_id import BaseIncrementalUniqueKey
from dbt.tests.adapter.simple_snapshot.test_snapshot import BaseSimpleSnapshot, BaseSnapshotCheck
from dbt.tests.adapter.simple_snapshot.test_various_configs import (
    BaseSnapshotColumnNames,
    BaseSnapshotColumnNamesFromDbtProject,
    BaseSnapshotDbtValidToCurrent,
    BaseSnapshotInvalidColumnNames,
    BaseSnapshotMultiUniqueKey,
)
from tests.dbt_package.adapter_suite.on_duckdb import Hooks, NotNull, Types

pytestmark = pytest.mark.adapters


@pytest.fixture(scope="class")
def dbt_profile_target(duckdb_target: dict[str, Any]) -> dict[str, Any]:
    return duckdb_target


class TestIncremental(BaseIncremental):
    pass


class TestIncrementalNotSchemaChange(BaseIncrementalNotSchemaChange):
    pass


class TestMergeExcludeColumns(BaseMergeExcludeColumns):
    pass


class TestOnSchemaChange(BaseIncrementalOnSchemaChange):
    pass


class TestPredicates(BaseIncrementalPredicates):
    pass


class TestUniqueKey(BaseIncrementalUniqueKey):
    pass


class TestSimpleSnapshot(BaseSimpleSnapshot):
    pass


class TestSnapshotCheck(BaseSnapshotCheck):
    pass


class TestSnapshotCheckCols(BaseSnapshotCheckCols):
    pass


class TestSnapshotTimestamp(BaseSnapshotTimestamp):
    pass


class TestSnapshotColumnNames(BaseSnapshotColumnNames):
    pass


class TestSnapshotColumnNamesFromDbtProject(BaseSnapshotColumnNamesFromDbtProject):
    pass


class TestSnapshotDbtValidToCurrent(BaseSnapshotDbtValidToCurrent):
    pass


class TestSnapshotInvalidColumnNames(BaseSnapshotInvalidColumnNames):
    pass


class TestSnapshotMultiUniqueKey(BaseSnapshotMultiUniqueKey):
    pass


class TestHooks(Hooks, hooks.BasePrePostModelHooks):
    pass


class TestHooksInConfig(Hooks, hooks.BasePrePostModelHooksInConfig):
    pass


class TestHooksInConfigWithCount(Hooks, hooks.BasePrePostModelHooksInConfigWithCount):
    pass


class TestHooksInConfigKwargs(Hooks, hooks.BasePrePostModelHooksInConfigKwargs):
    pass


class TestHookRefs(Hooks, hooks.BaseHookRefs):
    pass


class TestHooksOnSeeds(hooks.BasePrePostModelHooksOnSeeds):
    pass


class TestHooksOnSnapshots(hooks.BasePrePostModelHooksOnSnapshots):
    pass


class TestDuplicateHooks(hooks.BaseDuplicateHooksInConfigs):
    pass


class TestTableColumnsEqual(Types, constraints.BaseTableConstraintsColumnsEqual):
    pass


class TestViewColumnsEqual(Types, constraints.BaseViewConstraintsColumnsEqual):
    pass


class TestIncrementalColumnsEqual(Types, constraints.BaseIncrementalConstraintsColumnsEqual):
    pass


class TestTableDdl(Types, constraints.BaseConstraintsRuntimeDdlEnforcement):
    pass


class TestIncrementalDdl(Types, constraints.BaseIncrementalConstraintsRuntimeDdlEnforcement):
    pass


class TestModelDdl(Types, constraints.BaseModelConstraintsRuntimeEnforcement):
    pass


class TestTableRollback(NotNull, constraints.BaseConstraintsRollback):
    pass


class TestIncrementalRollback(NotNull, constraints.BaseIncrementalConstraintsRollback):
    pass
