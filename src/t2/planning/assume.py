"""States that might be: a table has landed, or has failed for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np

from t2.planning.state import Active, State, TableState

# More than any number of retries.
OFTEN = 1_000_000


def landed(state: State, key: str, code_version: str, now: datetime) -> State:
    """Return the state in which all partitions of a table or source that are due have landed by `now`."""
    past, event = state.tables[key], state.cursor + 1
    new = (past.landed_id == 0) | past.blocked
    return _with(
        state,
        key,
        replace(
            past,
            landed_id=np.where(new, event, past.landed_id),
            as_of=np.where(new, event, past.as_of),
            landed_at=np.where(new, now.timestamp(), past.landed_at),
            code=np.where(new, state.code_id(code_version), past.code).astype(np.int32),
            blocked=np.zeros(past.count, np.bool_),
            active=np.where(new, Active.NO, past.active).astype(np.int8),
            failed_id=np.where(new, 0, past.failed_id),
            barred={},
        ),
    )


def failed(state: State, key: str, code_version: str, now: datetime) -> State:
    """Return the state in which what has not landed of a table has failed at `now`, its retries used up."""
    past, event = state.tables[key], state.cursor + 1
    lost = (past.landed_id == 0) | past.blocked
    return _with(
        state,
        key,
        replace(
            past,
            failed_id=np.where(lost, event, past.failed_id),
            failed_as_of=np.where(lost, event, past.failed_as_of),
            failed_at=np.where(lost, now.timestamp(), past.failed_at),
            failed_code=np.where(lost, state.code_id(code_version), past.failed_code).astype(np.int32),
            failures=np.where(lost, OFTEN, past.failures).astype(np.int32),
            active=np.where(lost, Active.NO, past.active).astype(np.int8),
        ),
    )


def _with(state: State, key: str, past: TableState) -> State:
    return replace(state, tables={**state.tables, key: past}, cursor=state.cursor + 1)
