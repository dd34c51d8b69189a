"""Turn a benchmark document into the Markdown table of the README: python benchmarks/table.py FILE."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def markdown(document: dict[str, Any]) -> str:
    """Return the table, with the machine and the versions under it."""
    lines = ["| | T2 | stock Dagster + dbt | ratio |", "|---|---:|---:|---:|"]
    lines += [_line(figure) for figure in document["figures"]]
    return "\n".join([*lines, "", _caption(document)])


def _line(figure: dict[str, Any]) -> str:
    ratio = "-" if figure["ratio"] is None else f"{_number(figure['ratio'])}x"
    cells = [figure["title"], _value(figure, "t2"), _value(figure, "stock"), ratio]
    return "| " + " | ".join(cells) + " |"


def _value(figure: dict[str, Any], side: str) -> str:
    return "-" if figure[side] is None else f"{_number(figure[side])} {figure['unit']}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _caption(document: dict[str, Any]) -> str:
    host, versions = document["machine"], document["versions"]
    what = ", ".join(f"{name} {number}" for name, number in versions.items())
    quick = " Small projects (`--quick`)." if document["quick"] else ""
    return (
        f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']:g} GiB; Python {host['python']}, "
        f"{host['platform']}; {what}.{quick}"
    )


def main() -> None:
    """Print the table of a file."""
    parser = argparse.ArgumentParser(description="Render benchmark figures as Markdown.")
    parser.add_argument("file", type=Path)
    print(markdown(json.loads(parser.parse_args().file.read_text())))


if __name__ == "__main__":
    main()
