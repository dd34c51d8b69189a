"""Partition keys to partition numbers, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2.planning.grid import Grid, Ints
from t2.project.model import Grain


def positions(grid: Grid | None, keys: Sequence[str] | NDArray[np.str_], count: int) -> Ints:
    """Return each key's partition number, -1 for keys that are none of the first `count` partitions.

    `grid` is None for an unpartitioned table, whose one key is "". Some 20 times faster than `Grid.index`
    key by key: a cold start reads millions of keys.
    """
    if grid is None:
        return np.where(np.asarray(keys, dtype="U1") == "", 0, -1)
    try:
        numbers = _numbers(grid, keys)
    except ValueError:  # some key is no date at all: of another tool, or of an older grain
        numbers = grid.indices([str(key) for key in keys])
    numbers[numbers >= count] = -1
    return numbers


def _numbers(grid: Grid, keys: Sequence[str] | NDArray[np.str_]) -> Ints:
    width = 16 if grid.grain is Grain.HOUR else 10
    text = np.asarray(keys, dtype=f"U{width + 1}")
    # NumPy also reads shorter and longer dates; a key has one spelling.
    if not (np.char.str_len(text) == width).all():
        raise ValueError("keys of another grain")
    instants = _instants(text.astype(f"U{width}"), grid.grain)
    first = _instants(np.array([grid.key(0)]), grid.grain)[0]
    if grid.grain in (Grain.MONTH, Grain.YEAR):
        unit = "M" if grid.grain is Grain.MONTH else "Y"
        coarse = instants.astype(f"datetime64[{unit}]")
        numbers = (coarse - first.astype(f"datetime64[{unit}]")).astype(np.int64)
        exact = coarse.astype("datetime64[D]") == instants
    else:
        step = {Grain.HOUR: 60, Grain.DAY: 1, Grain.WEEK: 7}[grid.grain]
        distance = (instants - first).astype(np.int64)
        numbers, exact = distance // step, distance % step == 0
    return np.where(exact & (numbers >= 0), numbers, -1).astype(np.int64)


def _instants(text: NDArray[Any], grain: Grain) -> NDArray[Any]:
    if grain is not Grain.HOUR:
        return text.astype("datetime64[D]")
    letters = np.array(text).view("U1").reshape(len(text), 16)
    if not (letters[:, 10] == "-").all():
        raise ValueError("keys in another format")
    letters[:, 10] = "T"
    return letters.view("U16").ravel().astype("datetime64[m]")
