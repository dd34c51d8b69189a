"""Pure: partition grids, upstream windows, verdicts and requests. No I/O, no clock of its own."""
