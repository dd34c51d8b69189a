"""The code location of a dbt project that needs no Python file of its own.

`t2 dev` loads this module. T2_PROJECT_DIR names the project (else the working directory is one),
T2_PROFILES_DIR and T2_TARGET dbt's profile.
"""

from __future__ import annotations

import os

import t2

defs = t2.build_defs(
    os.environ.get("T2_PROJECT_DIR", "."),
    profiles_dir=os.environ.get("T2_PROFILES_DIR"),
    target=os.environ.get("T2_TARGET"),
)
