"""dbt's tests of incremental models with `materialized: partitioned` in place of `incremental`.

The rows get a date, which they lack, and all of the data is one window. Left out, because partitioned tables
differ on purpose: keys that are null or come twice (`BaseIncrementalUniqueKey` wants them kept, T2 refuses
them), microbatch and delete+insert (other strategies), the statement that makes a table with its constraints
(it makes an empty table first), and grants (the test wants `incremental`; test_dbt_features.py has its own).
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from dbt.tests.adapter.basic.test_incremental import BaseIncremental
from dbt.tests.adapter.constraints import test_constraints as constraints
from dbt.tests.adapter.hooks.test_model_hooks import BasePrePostModelHooks
from dbt.tests.adapter.incremental.test_incremental_merge_exclude_columns import BaseMergeExcludeColumns
from dbt.tests.adapter.incremental.test_incremental_on_schema_change import BaseIncrementalOnSchemaChange

pytestmark = pytest.mark.adapters

DATE = "cast('2019-01-01' as date) as date_day"
# The suite's models ask this; for a partitioned table the window says what to read, so it is always false.
IS_INCREMENTAL = """
{% macro is_incremental() %}
  {% do return(execute and load_relation(this) is not none and not should_full_refresh()) %}
{% endmacro %}
"""


@pytest.fixture(scope="class", params=["duckdb", "postgres"])
def dbt_profile_target(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.getfixturevalue(f"{request.param}_target")
    return found


def partitioned(files: dict[str, str], dated: str) -> dict[str, str]:
    """Return models that are partitioned, with a date in each SELECT that matches `dated`."""
    found = {}
    for name, original in files.items():
        text = re.sub(
            r"""materialized(\s*=\s*)(['"])incremental\2""", r"materialized\1\2partitioned\2", original
        )
        text = re.sub(dated, rf"\g<0>, {DATE}", text)
        text = text.replace("'2019-01-01' as date_day", DATE)
        found[name] = re.sub(r"(name: date_day\s+data_type:) text", r"\1 date", text)
    return found


class Windowed:
    """One window with all the data."""

    strategy = "insert_overwrite"
    event_time = "date_day"

    @pytest.fixture(scope="class")
    def project_config_update(self) -> dict[str, Any]:
        config = {"event_time": self.event_time, "batch_size": "year", "begin": "1900-01-01"}
        settings = {**config, "incremental_strategy": self.strategy}
        return {
            "vars": {"t2_start": "1900-01-01", "t2_end": "2100-01-01"},
            "models": {f"+{name}": value for name, value in settings.items()},
        }

    @pytest.fixture(scope="class")
    def macros(self) -> dict[str, str]:
        return {"is_incremental.sql": IS_INCREMENTAL}


class TestIncremental(Windowed, BaseIncremental):
    strategy = "merge"
    event_time = "some_date"

    @pytest.fixture(scope="class")
    def project_config_update(self) -> dict[str, Any]:
        found: dict[str, Any] = Windowed.project_config_update.__wrapped__(self)
        found["models"]["+unique_key"] = "id"
        return {"name": "incremental", **found}

    @pytest.fixture(scope="class")
    def models(self) -> dict[str, str]:
        return partitioned(BaseIncremental.models.__wrapped__(self), "no select")


class TestMergeExcludeColumns(Windowed, BaseMergeExcludeColumns):
    strategy = "merge"

    @pytest.fixture(scope="class")
    def models(self) -> dict[str, str]:
        return partitioned(BaseMergeExcludeColumns.models.__wrapped__(self), "'[a-z]+' as color")

    @pytest.fixture(scope="class")
    def seeds(self) -> dict[str, str]:
        ((name, text),) = BaseMergeExcludeColumns.seeds.__wrapped__(self).items()
        head, *rows = text.strip().splitlines()
        return {name: "\n".join([f"{head},date_day", *(f"{row},2019-01-01" for row in rows)])}


class TestOnSchemaChange(Windowed, BaseIncrementalOnSchemaChange):
    strategy = "merge"

    @pytest.fixture(scope="class")
    def models(self) -> dict[str, str]:
        models = BaseIncrementalOnSchemaChange.models.__wrapped__(self)
        return partitioned(models, r"(?i)\bselect id(?=\s*,)")


class TestColumnsEqual(Windowed, constraints.BaseIncrementalConstraintsColumnsEqual):
    # These write models of their own, which are tables.
    test__constraints_wrong_column_data_types = None
    test__constraints_correct_column_data_types = None

    @pytest.fixture(scope="class")
    def models(self) -> dict[str, str]:
        models = constraints.BaseIncrementalConstraintsColumnsEqual.models.__wrapped__(self)
        return partitioned(models, "no select")


class TestRollback(Windowed, constraints.BaseIncrementalConstraintsRollback):
    @pytest.fixture(scope="class")
    def models(self) -> dict[str, str]:
        return partitioned(
            constraints.BaseIncrementalConstraintsRollback.models.__wrapped__(self), "no select"
        )

    @pytest.fixture(scope="class")
    def null_model_sql(self) -> str:
        text = constraints.BaseIncrementalConstraintsRollback.null_model_sql.__wrapped__(self)
        return partitioned({"": text}, "no select")[""]

    @pytest.fixture(scope="class")
    def expected_error_messages(self, dbt_profile_target: dict[str, Any]) -> list[str]:
        if dbt_profile_target["type"] == "duckdb":
            return ["NOT NULL constraint failed"]
        return ['null value in column "id"', "violates not-null constraint"]


class TestHooks(Windowed, BasePrePostModelHooks):
    @pytest.fixture(scope="class")
    def dbt_profile_target(self, postgres_target: dict[str, Any]) -> dict[str, Any]:
        """The test looks at user and host, which DuckDB has not."""
        return postgres_target

    @pytest.fixture(scope="class")
    def project_config_update(self) -> dict[str, Any]:
        found: dict[str, Any] = Windowed.project_config_update.__wrapped__(self)
        hooks = BasePrePostModelHooks.project_config_update.__wrapped__(self)["models"]["test"]
        found["models"] = {**found["models"], "+materialized": "partitioned", "test": hooks}
        return found

    @pytest.fixture(scope="class")
    def models(self) -> dict[str, str]:
        return {"hooks.sql": f"select 1 as id, {DATE}"}
