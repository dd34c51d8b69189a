"""Dagster's private API, all of it: an upgrade of Dagster breaks this folder and nothing else.

Each assumption made here has its test in tests/definitions/test_dagster_assumptions.py. What the daemon and
gRPC need is imported where it is used: that takes a second, and few processes need it.
"""
