import json
import re
from datetime import date
from pathlib import Path

import pytest
from benchmarks.projects import prepared
from benchmarks.report import Figure, Settings, document
from benchmarks.table import markdown

from benchmarks import load, stock, synthetic, tick

SMALL = synthetic.Shape(models=50, tests=300, begin=date(2026, 1, 1))
TINY = synthetic.Shape(models=10, tests=30, sources=3, begin=date(2026, 1, 1))
KINDS = {"not_null", "unique", "accepted_values", "relationships"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("flavour", ["t2", "stock"])
def test_the_same_shape_gives_the_same_files(flavour: synthetic.Flavour) -> None:
    assert synthetic.files(SMALL, flavour) == synthetic.files(SMALL, flavour)


def test_another_seed_gives_another_project() -> None:
    other = synthetic.Shape(models=50, tests=300, begin=date(2026, 1, 1), seed=2)
    assert synthetic.files(SMALL, "t2") != synthetic.files(other, "t2")


def test_the_large_project_has_the_promised_size_and_depth() -> None:
    models = synthetic.models(synthetic.Shape())
    references = [len(model.parents) for model in models if model.parents]
    assert len(models) == len({model.name for model in models}) == 2000
    assert sum(len(model.tests) for model in models) == 12000
    assert max(model.depth for model in models) + 1 == 20
    assert 2.3 <= sum(references) / len(references) <= 2.6
    assert {kind for model in models for _, kind in model.tests} == KINDS
    assert {model.materialized for model in models} == {"partitioned", "incremental", "table", "view"}


def test_models_read_only_what_comes_before_them() -> None:
    seen: set[str] = set()
    for model in synthetic.models(SMALL):
        assert {parent.name for parent in model.parents} <= seen
        seen.add(model.name)


def test_only_the_probe_reads_the_last_source() -> None:
    readers = [name for name, text in synthetic.files(SMALL, "t2").items() if "stg_probe'" in text]
    assert [name for name in readers if name.endswith(".sql")] == ["models/hourly/probe.sql"]


def test_dbt_parses_the_small_stock_project(tmp_path: Path) -> None:
    synthetic.write(SMALL, "stock", tmp_path)
    stock.prepare(tmp_path)
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    kinds = [node["resource_type"] for node in manifest["nodes"].values()]
    assert (kinds.count("model"), kinds.count("test"), len(manifest["sources"])) == (50, 300, 40)


def test_a_planner_with_all_landed_is_idle(work: Path) -> None:
    assert len(tick.t2_ticks(prepared(TINY, "t2", work))) == tick.TICKS


def test_a_document_has_every_figure_with_its_machine_and_versions(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "shape", lambda _: TINY)
    monkeypatch.setattr(load, "LOADS", 1)
    monkeypatch.setattr(load, "WARM_UPS", 0)
    written = json.loads(json.dumps(document(load.figures(Settings(True, work)), quick=True)))
    assert set(written) == {"quick", "machine", "versions", "figures"}
    assert set(written["machine"]) == {"cpu", "cores", "memory_gib", "python", "platform"}
    assert set(written["versions"]) == {"dagster", "dagster-dbt", "dbt-core", "duckdb", "t2"}
    assert [figure["name"] for figure in written["figures"]] == ["load_wall", "load_cpu"]
    for figure in written["figures"]:
        assert set(figure) == {"name", "title", "unit", "t2", "stock", "ratio", "note", "detail"}
        assert figure["ratio"] == round(figure["stock"] / figure["t2"], 2)


def test_the_table_has_a_line_a_figure() -> None:
    figures = [Figure("a", "Load", "s", 2.0, 5000.0), Figure("b", "One dbt run", "s", None, 3.14159)]
    lines = markdown(document(figures, quick=False)).splitlines()
    assert lines[2:4] == ["| Load | 2 s | 5,000 s | 2,500x |", "| One dbt run | - | 3.14 s | - |"]
    assert re.search(r"\d+ cores, .* GiB; Python", lines[-1])
