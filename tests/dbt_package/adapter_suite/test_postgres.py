"""dbt's tests of incremental models, snapshots, hooks, grants and contracts on PostgreSQL.

Nothing is left out that dbt-postgres runs itself for these.
"""

from __future__ import annotations

from typing import Any

import pytest
from dbt.tests.adapter.basic.test_incremental import (
    BaseIncremental,
    BaseIncrementalBadStrategy,
    BaseIncrementalNotSchemaChange,
)
from dbt.tests.adapter.basic.test_snapshot_check_cols import BaseSnapshotCheckCols
from dbt.tests.adapter.basic.test_snapshot_timestamp import BaseSnapshotTimestamp
from dbt.tests.adapter.constraints import test_constraints as constraints
from dbt.tests.adapter.grants.test_incremental_grants import BaseIncrementalGrants
from dbt.tests.adapter.grants.test_invalid_grants import BaseInvalidGrants
from dbt.tests.adapter.grants.test_model_grants import BaseModelGrants
from dbt.tests.adapter.grants.test_seed_grants import BaseSeedGrants
from dbt.tests.adapter.grants.test_snapshot_grants import BaseSnapshotGrants
from dbt.tests.adapter.hooks import test_model_hooks as hooks
from dbt.tests.adapter.hooks import test_run_hooks as run_hooks
from dbt.tests.adapter.incremental.test_incremental_merge_exclude_columns import BaseMergeExcludeColumns
from dbt.tests.adapter.incremental.test_incremental_microbatch import BaseMicrobatch
from dbt.tests.adapter.incremental.test_incremental_on_schema_change import BaseIncrementalOnSchemaChange
from dbt.tests.adapter.incremental.test_incremental_predicates import BaseIncrementalPredicates
from dbt.tests.adapter.incremental.test_incremental_unique_id import BaseIncrementalUniqueKey
from dbt.tests.adapter.simple_snapshot.new_record_check_mode import BaseSnapshotNewRecordCheckMode
from dbt.tests.adapter.simple_snapshot.new_record_dbt_valid_to_current import (
    BaseSnapshotNewRecordDbtValidToCurrent,
)
from dbt.tests.adapter.simple_snapshot.new_record_timestamp_mode import BaseSnapshotNewRecordTimestampMode
from dbt.tests.adapter.simple_snapshot.test_ephemeral_snapshot_hard_deletes import (
    BaseSnapshotEphemeralHardDeletes,
)
from dbt.tests.adapter.simple_snapshot.test_snapshot import BaseSimpleSnapshot, BaseSnapshotCheck
from dbt.tests.adapter.simple_snapshot.test_various_configs import (
    BaseSnapshotColumnNames,
    BaseSnapshotColumnNamesFromDbtProject,
    BaseSnapshotDbtValidToCurrent,
    BaseSnapshotInvalidColumnNames,
    BaseSnapshotMultiUniqueKey,
)

pytestmark = pytest.mark.adapters


@pytest.fixture(scope="class")
def dbt_profile_target(postgres_target: dict[str, Any]) -> dict[str, Any]:
    return postgres_target


class TestIncremental(BaseIncremental):
    pass


class TestIncrementalNotSchemaChange(BaseIncrementalNotSchemaChange):
    pass


class TestIncrementalBadStrategy(BaseIncrementalBadStrategy):
    pass


class TestMergeExcludeColumns(BaseMergeExcludeColumns):
    pass


class TestMicrobatch(BaseMicrobatch):
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


class TestHooks(hooks.BasePrePostModelHooks):
    pass


class TestHooksInConfig(hooks.BasePrePostModelHooksInConfig):
    pass


class TestHooksInConfigWithCount(hooks.BasePrePostModelHooksInConfigWithCount):
    pass


class TestHooksInConfigKwargs(hooks.BasePrePostModelHooksInConfigKwargs):
    pass


class TestHookRefs(hooks.BaseHookRefs):
    pass


class TestHooksOnSeeds(hooks.BasePrePostModelHooksOnSeeds):
    pass


class TestHooksOnSnapshots(hooks.BasePrePostModelHooksOnSnapshots):
    pass


class TestDuplicateHooks(hooks.BaseDuplicateHooksInConfigs):
    pass


class TestTableColumnsEqual(constraints.BaseTableConstraintsColumnsEqual):
    pass


class TestViewColumnsEqual(constraints.BaseViewConstraintsColumnsEqual):
    pass


class TestIncrementalColumnsEqual(constraints.BaseIncrementalConstraintsColumnsEqual):
    pass


class TestTableDdl(constraints.BaseConstraintsRuntimeDdlEnforcement):
    pass


class TestIncrementalDdl(constraints.BaseIncrementalConstraintsRuntimeDdlEnforcement):
    pass


class TestModelDdl(constraints.BaseModelConstraintsRuntimeEnforcement):
    pass


class TestTableRollback(constraints.BaseConstraintsRollback):
    pass


class TestIncrementalRollback(constraints.BaseIncrementalConstraintsRollback):
    pass


class TestTableSqlHeader(constraints.BaseTableContractSqlHeader):
    pass


class TestIncrementalSqlHeader(constraints.BaseIncrementalContractSqlHeader):
    pass


class TestQuotedColumn(constraints.BaseConstraintQuotedColumn):
    pass


class TestIncrementalForeignKey(constraints.BaseIncrementalForeignKeyConstraint):
    pass


class TestRunHooks(run_hooks.BasePrePostRunHooks):
    pass


class TestAfterRunHooks(run_hooks.BaseAfterRunHooks):
    pass


class TestIncrementalGrants(BaseIncrementalGrants):
    pass


class TestInvalidGrants(BaseInvalidGrants):
    pass


class TestModelGrants(BaseModelGrants):
    pass


class TestSeedGrants(BaseSeedGrants):
    pass


class TestSnapshotGrants(BaseSnapshotGrants):
    pass


class TestSnapshotNewRecordCheckMode(BaseSnapshotNewRecordCheckMode):
    pass


class TestSnapshotNewRecordTimestampMode(BaseSnapshotNewRecordTimestampMode):
    pass


class TestSnapshotNewRecordDbtValidToCurrent(BaseSnapshotNewRecordDbtValidToCurrent):
    pass


class TestSnapshotEphemeralHardDeletes(BaseSnapshotEphemeralHardDeletes):
    pass
