"""Asking the screens and telling what they proved."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from t2.errors import DbtError
from t2.project.model import Source, Table, Test
from t2.runtime.nodes import NodeResult
from t2.runtime.screens.forms import Form, form
from t2.runtime.warm import Warm
from t2.runtime.windows import rows_of_test

Key = str | None

# More in one statement save nothing.
AT_ONCE = 100
# A test with wrong SQL among so many is found with seven; a warehouse that is gone fails all.
FAILED_STATEMENTS = 10


@dataclass(frozen=True)
class Proof:
    """A test passed on partitions: dbt's own SQL, run on each of them, would find nothing."""

    keys: tuple[Key, ...]
    result: NodeResult


@dataclass(frozen=True)
class _Question:
    """Whether a test finds nothing among `rows`, which would prove it for the partitions `keys`."""

    test: Test
    form: Form
    keys: tuple[Key, ...]
    rows: str

    @property
    def source(self) -> str:
        return self.form.source(self.rows)

    @property
    def sql(self) -> str:
        return f"select {self.form.counter} as failures from {self.source}"


def prove(
    warm: Warm, node: Table | Source, keys: Sequence[Key], tests: Iterable[Test]
) -> dict[str, list[Proof]]:
    """Return by unique id what could be proved of a table's tests on contiguous partitions.

    Partitions that are in none of a test's proofs are dbt's to test: the test cannot be screened, found
    something, or the screen's SQL failed.
    """
    found: dict[str, list[Proof]] = defaultdict(list)
    together, alone = [], []
    for test in tests:
        shape = form(warm, node, test)
        if shape is None:
            continue
        if not test.per_partition or keys[0] is None:
            together.append(_Question(test, shape, tuple(keys), shape.rows(None)))
        elif shape.of_rows:
            together.append(_of_partitions(warm, node, test, shape, tuple(keys)))
        else:
            alone += [_of_partitions(warm, node, test, shape, (key,)) for key in keys]
    left = _ask(warm, together + alone, found)
    # A failure somewhere in a range: most of its partitions have none.
    again = [
        _of_partitions(warm, node, question.test, question.form, (key,))
        for question in left
        if question.test.per_partition and len(question.keys) > 1
        for key in question.keys
    ]
    _ask(warm, again, found)
    return found


def _of_partitions(
    warm: Warm, node: Table | Source, test: Test, shape: Form, keys: tuple[Key, ...]
) -> _Question:
    first, last = keys[0], keys[-1]
    assert first is not None
    assert last is not None
    rows = rows_of_test(node, test, first, last, adapter=warm.adapter_type)
    return _Question(test, shape, keys, shape.rows(rows))


def _ask(warm: Warm, questions: Sequence[_Question], found: dict[str, list[Proof]]) -> list[_Question]:
    """Add the proofs of the questions to `found` and return the questions that are left.

    When a statement fails, halves of it are asked: one test with wrong SQL does not spoil the others'.
    """
    todo = [questions[start : start + AT_ONCE] for start in range(0, len(questions), AT_ONCE)]
    left: list[_Question] = []
    failed = 0
    while todo:
        asked = todo.pop()
        started = time.time()
        try:
            failures = _failures(warm, asked)
        except DbtError:  # dbt's own run of the test tells what is wrong with it
            failed += 1
            middle = len(asked) // 2
            if middle and failed <= FAILED_STATEMENTS:
                todo += [asked[:middle], asked[middle:]]
            else:
                left += asked
            continue
        share = (time.time() - started) / len(asked)
        for question, count in failures:
            if count == 0:
                found[question.test.unique_id].append(_proof(question, started, share))
            else:
                left.append(question)
    return left


def _failures(warm: Warm, questions: Sequence[_Question]) -> list[tuple[_Question, int]]:
    """Return each question with the number of failures that its test has."""
    scans: dict[str, list[_Question]] = defaultdict(list)
    for question in questions:
        scans[question.source].append(question)
    branches = list(scans.values())
    return [
        (question, int(row[f"t2_{place}"]))
        for row in warm.query(_statement(branches))
        for place, question in enumerate(branches[int(row["t2_branch"])])
    ]


def _statement(branches: Sequence[Sequence[_Question]]) -> str:
    """Return one row a scan, with its number and the failures of each of its questions."""
    width = max(len(branch) for branch in branches)
    selects = []
    for number, branch in enumerate(branches):
        counters = [question.form.counter for question in branch]
        counters += ["0"] * (width - len(branch))
        columns = ", ".join(f"{counter} as t2_{place}" for place, counter in enumerate(counters))
        selects.append(f"select {number} as t2_branch, {columns} from {branch[0].source}")
    return "\nunion all\n".join(selects)


def _proof(question: _Question, started: float, seconds: float) -> Proof:
    """Return the result that dbt's own run would have; its times are a share of the screen's."""
    result = NodeResult(
        unique_id=question.test.unique_id,
        status="pass",
        message="",
        started_at=datetime.fromtimestamp(started, timezone.utc),
        completed_at=datetime.now(timezone.utc),
        execution_seconds=seconds,
        warehouse_seconds=seconds,
        failures=0,
        compiled_code=question.sql,
    )
    return Proof(question.keys, result)
