"""Run checks again, without building anything: what `t2 check` does, as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from t2.definitions.runs import LocalRuns
from t2.planning.grid import Grid
from t2.project.model import Project, Source, Table

# So that progress is told now and then, and a run's page stays readable.
PARTITIONS_PER_RUN = 100


@dataclass(frozen=True)
class CheckResult:
    """One evaluation. `held`: the keys of the tables that it holds back, None all that read the partition."""

    check: str
    partition: str | None
    passed: bool
    severity: str
    failed_rows: int | None
    message: str
    held: tuple[str, ...] | None
    run: str

    @property
    def blocks(self) -> bool:
        """Whether it holds back anything."""
        return self.held != ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as the API and `--format json` give it."""
        held = {"held": "all" if self.held is None else list(self.held)}
        return {**asdict(self), **held}


OnRun = Callable[[str | None, str | None, int, int], None]


def recheck(
    project: Project,
    key: str,
    spans: Sequence[tuple[int, int]],
    checks: Sequence[str],
    *,
    on_run: OnRun | None = None,
) -> list[CheckResult]:
    """Evaluate checks of a table or source on partitions, and tell Dagster.

    `spans` are first and last partition numbers, (0, 0) for a table without. The runs are executed in this
    process, on the project's instance, whose planner sees the results. `on_run` is told the first and last
    partition, the number of the run and how many there are. Raises T2Error if a run ends without results.
    """
    node = project.node(key)
    parts = list(_parts(spans))
    found: list[CheckResult] = []
    with LocalRuns(project) as runs:
        for number, (first, last) in enumerate(parts, 1):
            grid = Grid.of(node.partitioning) if node.partitioning else None
            low, high = (grid.key(first), grid.key(last)) if grid else (None, None)
            if on_run is not None:
                on_run(low, high, number, len(parts))
            run_id, evaluations = runs.check(key, checks, low, high)
            found += [_result(node, evaluation, run_id) for evaluation in evaluations]
    return found


def _parts(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for low, high in spans:
        for first in range(low, high + 1, PARTITIONS_PER_RUN):
            yield first, min(first + PARTITIONS_PER_RUN - 1, high)


def _result(node: Table | Source, evaluation: dg.AssetCheckEvaluation, run_id: str) -> CheckResult:
    test = next(test for test in node.tests if test.name == evaluation.check_name)
    rows: Any = evaluation.metadata.get("t2/failing_rows")
    fails = not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR
    return CheckResult(
        check=evaluation.check_name,
        partition=evaluation.partition,
        passed=evaluation.passed,
        severity=evaluation.severity.value.lower(),
        failed_rows=None if rows is None else int(rows.value),
        message=evaluation.description or "",
        held=test.held if fails else (),
        run=run_id,
    )
