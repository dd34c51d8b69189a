"""The module that stock Dagster loads for the backfill benchmark; the project is in the environment."""

import os
from pathlib import Path

from benchmarks.stock_year import definitions
from benchmarks.year import Calendar

project = Path(os.environ["BENCHMARK_PROJECT"])
defs = definitions(project, Calendar(int(project.name.rpartition("-")[2])).end)
