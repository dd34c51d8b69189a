"""dbt's private API, all of it: an upgrade of dbt breaks this folder and nothing else.

tests/runtime/test_dbt_assumptions.py holds each assumption. The warehouse server needs `duckdb` only.

dbt keeps flags, adapters and the event manager in globals: whoever ran dbt in this process before (a parse
through dbtRunner, another project) has replaced them, so each use puts its own back first.
"""
