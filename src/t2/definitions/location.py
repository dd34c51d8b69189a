"""The code location of a dbt project that needs no Python file of its own.

`t2 dev` loads this module; T2_PROJECT_DIR names the project, else the working directory is one.
"""

from __future__ import annotations

import os

import t2

defs = t2.build_defs(os.environ.get("T2_PROJECT_DIR", "."))
