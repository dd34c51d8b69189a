"""The warm process: variables, threads, forks, and what dbt leaves behind."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.runtime.projects import NOW, days

from t2.errors import NotFound
from t2.project.model import Project
from t2.runtime import warehouse
from t2.runtime.warm import Warm
from t2.runtime.windows import variables


def given(warm: Warm, name: str, key: str) -> dict:
    return variables(warm.project, warm.project.tables[f"main/{name}"], key, key, now=NOW)


def test_threads_keep_their_variables_apart(warm: Warm) -> None:
    warm.run("model.shop.orders")
    warm.run("model.shop.recent")

    def through(key: str) -> str:
        return str(warm.run("model.shop.through", variables=given(warm, "through", key)).compiled_code)

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(through, days(1, 6)))
    for key, code in zip(days(1, 6), codes, strict=True):
        assert code.startswith("with __dbt__cte__doubled as (")
        assert {day for day in days(1, 6) if f"cast('{day}' as date)" in code} == {key}


def test_an_ephemeral_model_keeps_nothing_of_the_run_before(warm: Warm) -> None:
    warm.run("model.shop.orders")
    warm.run("model.shop.recent")
    first = warm.run("model.shop.through", variables=given(warm, "through", "2024-01-02"))
    second = warm.run("model.shop.through", variables=given(warm, "through", "2024-01-05"))
    assert second.status == "success"
    assert str(second.compiled_code).startswith("with __dbt__cte__doubled as (")
    assert "2024-01-05 00:00:00" not in str(first.compiled_code)
    assert "2024-01-02" not in str(second.compiled_code)


def test_a_fork_of_a_loaded_process_runs_nodes(project: Project) -> None:
    warm = Warm.of(project)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer: object = None
        try:
            with warehouse.session(warm):
                result = warm.run("model.shop.orders", variables=given(warm, "orders", "2024-01-02"))
                answer = (result.status, result.rows_affected)
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(write, pickle.dumps(answer))
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pickle.load(pipe) == ("success", 2)
    os.waitpid(child, 0)


def test_nothing_is_written_into_the_projects_target(warm: Warm) -> None:
    target = Path(warm.project.root) / "target"
    before = {path for path in target.rglob("*") if "t2" not in path.relative_to(target).parts[:1]}
    warm.run("model.shop.orders")
    assert {path for path in target.rglob("*") if "t2" not in path.relative_to(target).parts[:1]} == before
    assert not (Path.cwd() / "target" / "compiled" / "shop").exists()


def test_a_test_keeps_its_own_where(warm: Warm) -> None:
    warm.run("model.shop.orders")
    unique_id = next(
        test.unique_id for test in warm.project.tables["main/orders"].tests if test.kind == "not_null"
    )
    result = warm.run(unique_id, where="ordered_on = '2024-01-02'")
    assert "where ordered_on = '2024-01-02'" in str(result.compiled_code)


def test_an_unknown_node_is_named(warm: Warm) -> None:
    with pytest.raises(NotFound, match=r"dbt knows no node model\.shop\.nothing"):
        warm.run("model.shop.nothing")


def test_dbts_globals_are_put_back(warm: Warm, capfd: pytest.CaptureFixture) -> None:
    """Regression: a dbtRunner in the same process takes the adapter, the flags and the logger away."""
    from dbt.cli.main import dbtRunner

    warm.run("model.shop.orders")
    warm.close()
    dbtRunner().invoke(["debug", "--config-dir"])
    capfd.readouterr()
    assert warm.run("model.shop.orders").status == "success"
    assert capfd.readouterr().out == ""
