"""Screens: one query that proves many of a table's tests at once.

A screen may only say "passed". It counts what dbt's own test would count, on the same rows: each test's SQL
is rendered by dbt's macros, and where it only selects rows by a condition it shares one scan with others.
What a screen does not prove goes to dbt, which alone finds failures. docs/tests.md says which tests can be
screened, docs/decisions/006-screens.md what that saves.
"""

from t2.runtime.screens.screen import Proof, prove

__all__ = ["Proof", "prove"]
