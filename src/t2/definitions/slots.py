"""Slots of Dagster's pools in SQLite, claimed and given back in a handful of statements.

The same rows as Dagster's own `claim_concurrency_slot` and `free_concurrency_slot_for_step` leave
(tests/definitions/test_pools.py holds both against each other) in a quarter of the time (decision 010):
Dagster opens a connection for each of sixteen statements. Each function is called in a transaction that has
the write lock already; Dagster's own lets two processes find the same slot free.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

# A step waits in `pending_steps`; it is assigned as many slots as are free, and then takes one of them.
QUEUE = """
insert or ignore into pending_steps (concurrency_key, run_id, step_key, priority, assigned_timestamp)
select :pool, :run, :step, :priority, case when
    (select count(*) from concurrency_slots where concurrency_key = :pool and deleted = 0)
    > (select count(*) from pending_steps where concurrency_key = :pool and assigned_timestamp is not null)
then current_timestamp end
"""
TAKE = """
update concurrency_slots set run_id = :run, step_key = :step
where id = (
    select id from concurrency_slots
    where concurrency_key = :pool and step_key is null and deleted = 0
    order by id limit 1
) and exists (
    select 1 from pending_steps
    where concurrency_key = :pool and run_id = :run and step_key = :step and assigned_timestamp is not null
) and not exists (
    select 1 from concurrency_slots where concurrency_key = :pool and run_id = :run and step_key = :step
)
"""
TAKEN = "select 1 from concurrency_slots where concurrency_key = :pool and run_id = :run and step_key = :step"
# A slot that was taken away while it was in use goes when it is given back.
DROP = "delete from concurrency_slots where run_id = :run and step_key = :step and deleted = 1"
GIVE = "update concurrency_slots set run_id = null, step_key = null where run_id = :run and step_key = :step"
WAITED = """
select concurrency_key from pending_steps
where run_id = :run and step_key = :step and assigned_timestamp is not null
"""
LEAVE = "delete from pending_steps where run_id = :run and step_key = :step"
NEXT = """
update pending_steps set assigned_timestamp = current_timestamp
where id = (
    select id from pending_steps where concurrency_key = :pool and assigned_timestamp is null
    order by priority desc, create_timestamp, id limit 1
)
"""


def claim(connection: Connection, pool: str, run_id: str, step_key: str, priority: int) -> bool:
    """Queue a step for a pool, or look after one that is queued; return whether it has a slot now."""
    step = {"pool": pool, "run": run_id, "step": step_key}
    connection.exec_driver_sql(QUEUE, {**step, "priority": priority})
    connection.exec_driver_sql(TAKE, step)
    return connection.exec_driver_sql(TAKEN, step).first() is not None


def free(connection: Connection, run_id: str, step_key: str) -> None:
    """Give the slots of a step back, and assign them to whoever comes next."""
    step = {"run": run_id, "step": step_key}
    for statement in (DROP, GIVE):
        connection.exec_driver_sql(statement, step)
    pools = connection.exec_driver_sql(WAITED, step).scalars().all()
    connection.exec_driver_sql(LEAVE, step)
    for pool in pools:
        connection.exec_driver_sql(NEXT, {"pool": pool})
