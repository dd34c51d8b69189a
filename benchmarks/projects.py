"""The generated projects, prepared for both sides and kept between benchmarks."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import t2
from benchmarks import stock
from benchmarks.report import Settings
from benchmarks.synthetic import Flavour, Shape, load_raw, write

HISTORY_DAYS = 150


def shape(settings: Settings) -> Shape:
    """Return the size that is measured: its tables begin five months ago."""
    begin = datetime.now(timezone.utc).date() - timedelta(days=HISTORY_DAYS)
    return Shape(models=50, tests=300, begin=begin) if settings.quick else Shape(begin=begin)


def prepared(size: Shape, flavour: Flavour, work: Path) -> Path:
    """Return a project that is parsed and whose sources hold the last two days, made now if need be."""
    root = work / f"{flavour}-{size.label}"
    done = root / ".prepared"
    if not done.exists():
        write(size, flavour, root)
        load_raw(size, root, datetime.now(timezone.utc).date() - timedelta(days=2), days=4)
        if flavour == "stock":
            stock.prepare(root)
        done.touch()
    if flavour == "t2":
        # Does nothing unless T2 itself or its dbt package changed since.
        t2.load_project(root)
    return root
