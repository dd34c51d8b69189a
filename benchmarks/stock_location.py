"""The module that stock Dagster's code server loads; the project is in the environment."""

import os
from pathlib import Path

from benchmarks.stock import definitions

defs = definitions(Path(os.environ["BENCHMARK_PROJECT"]))
