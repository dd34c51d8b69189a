"""What dbt-duckdb's own repository changes in the suite, and why."""

from __future__ import annotations

import pytest


class Types:
    """DuckDB's names of types; a time with a zone is written differently from Postgres."""

    @pytest.fixture
    def int_type(self) -> str:
        return "INT"

    @pytest.fixture
    def string_type(self) -> str:
        return "VARCHAR"

    @pytest.fixture
    def data_types(self, schema_int_type: str, int_type: str, string_type: str) -> list[list[str]]:
        return [
            ["1", schema_int_type, int_type],
            ["'1'", string_type, string_type],
            ["true", "bool", "BOOL"],
            ["timestamp '2013-11-03 00:00:00'", "TIMESTAMP", "TIMESTAMP"],
            ["ARRAY[1,2,3]", "INTEGER[]", "INTEGER[]"],
            ["'1'::numeric", "numeric", "DECIMAL"],
        ]


class NotNull:
    """DuckDB's own words for a null in a column that has none."""

    @pytest.fixture(scope="class")
    def expected_error_messages(self) -> list[str]:
        return ["NOT NULL constraint failed"]


class Hooks:
    """DuckDB has no users and hosts: only that each hook ran once, and its rows, are looked at."""

    def check_hooks(self, state: str, project: object, host: str | None, count: int = 1) -> None:
        rows = self.get_ctx_vars(state, count=count, project=project)
        assert [row["test_state"] for row in rows] == [state] * count
        assert {row["target_type"] for row in rows} == {"duckdb"}
