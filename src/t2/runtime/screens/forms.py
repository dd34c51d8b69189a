"""What dbt would count for a test, in a form that a screen can count too."""

from __future__ import annotations

from dataclasses import dataclass

from t2.project.model import Source, Table, Test
from t2.runtime.screens.kinds import OF_PARTITIONS, OF_ROWS
from t2.runtime.screens.sql import ROWS, condition, tokens
from t2.runtime.warm import Warm


@dataclass(frozen=True)
class Form:
    """A test's SQL over ROWS, the relation whose rows they are, and the `where` of its configuration.

    `condition` is set where the SQL does no more than select the rows that fulfil it.
    `of_rows`: no failures in several partitions means none in each.
    """

    sql: str
    relation: str
    where: str | None
    condition: str | None
    of_rows: bool

    def rows(self, predicate: str | None) -> str:
        """Return what the test selects from: the text that dbt's own run of it would have in that place."""
        where = self.where
        if predicate:
            where = f"({where}) and ({predicate})" if where else predicate
        return f"(select * from {self.relation} where {where}) dbt_subquery" if where else self.relation

    @property
    def counter(self) -> str:
        """The aggregate over `source` that counts the failures."""
        return f"count(case when {self.condition} then 1 end)" if self.condition else "count(*)"

    def source(self, rows: str) -> str:
        """Return what to count in, for a `from`: the rows themselves or what dbt selects from them."""
        return rows if self.condition else f"(\n{self.sql.replace(ROWS, rows)}\n) dbt_internal_test"


def form(warm: Warm, node: Table | Source, test: Test) -> Form | None:
    """Return the form of a test of a table or source, None if only dbt can evaluate it."""
    of_rows = test.kind in OF_ROWS
    if not test.screen or not (of_rows or test.kind in OF_PARTITIONS):
        return None
    found = warm.test_sql(test.unique_id, node.unique_id, rows=ROWS)
    if found is None:
        return None
    sql, relation, where = found
    # A comment in `where` would go on behind its parenthesis.
    if tokens(sql) is None or "".join(tokens(where or "") or ()) != (where or ""):
        return None
    return Form(sql, relation, where, condition(sql), of_rows)
