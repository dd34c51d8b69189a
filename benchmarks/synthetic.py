"""Synthetic dbt projects of any size, in a T2 flavour and a stock one that do the same work.

    python benchmarks/synthetic.py OUT --models 2000 --tests 12000 --flavour t2

A project has sources, staging views over them, hourly tables, daily tables that read hourly and daily
ones, and reports over the days: about 20 layers, 2.5 references a model. Every row keeps its `id` on its way
down, so that joins match and all tests pass. The last source, the probe, is read by one view and one table
that nobody else reads: what its landing sets off is one partition of one table.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

from t2.runtime.parsing import install_package

Flavour = Literal["t2", "stock"]

CATEGORIES = ("alpha", "beta", "gamma", "delta")
DOMAINS = ("sales", "finance", "product", "marketing", "ops", "support", "risk", "people")
Mix = Literal["deep", "day"]

# (layer, share of the models, levels). "deep" has many hourly tables and a long way down; "day" has so few of
# them that a day is 4,000 materializations at 2,000 models.
LAYERS: dict[Mix, tuple[tuple[str, float, int], ...]] = {
    "deep": (("stg", 0.10, 1), ("hourly", 0.45, 10), ("daily", 0.30, 7), ("report", 0.15, 2)),
    "day": (("stg", 0.20, 1), ("hourly", 0.06, 3), ("daily", 0.55, 8), ("report", 0.19, 2)),
}
MATERIALIZED = {
    "stg": (("view", 1),),
    "hourly": (("partitioned", 7), ("incremental", 2), ("view", 1)),
    "daily": (("partitioned", 7), ("incremental", 2), ("view", 1)),
    "report": (("table", 7), ("view", 3)),
}
EVENT_TIME = {"hour": "event_hour", "day": "event_day"}
FILE_OF_SCHEMA = 25
PROBE = "probe"


@dataclass(frozen=True)
class Shape:
    """The size of a project; the same shape always gives the same files.

    `begin` is every table's first day. `rows` is the rows an hour of a source holds. `mix` names `LAYERS`.
    """

    models: int = 2000
    tests: int = 12000
    sources: int = 40
    begin: date = date(2026, 1, 1)
    rows: int = 3
    seed: int = 1
    mix: Mix = "deep"

    @property
    def label(self) -> str:
        """Return a directory name that tells shapes apart."""
        return f"{self.mix}-{self.models}-{self.tests}-{self.sources}-{self.begin}-{self.rows}-{self.seed}"


@dataclass(frozen=True)
class Model:
    """One model; `grain` is None for reports, `tests` are (column, kind) pairs."""

    name: str
    layer: str
    depth: int
    materialized: str
    group: str
    grain: str | None
    parents: tuple[Model, ...] = ()
    source: str | None = None
    tests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def event_time(self) -> str | None:
        """Return the column that its partitions are cut by."""
        return EVENT_TIME[self.grain] if self.grain else None


def source_names(shape: Shape) -> list[str]:
    """Return the sources; the last one is the probe."""
    return [*(f"raw_{number:03d}" for number in range(shape.sources - 1)), f"raw_{PROBE}"]


def models(shape: Shape) -> list[Model]:
    """Return the models in dependency order, the probe's two last."""
    rng = random.Random(shape.seed)
    levels: list[list[Model]] = []
    for layer, count, depth in _layer_sizes(shape.mix, shape.models - 2):
        for level in range(depth):
            size = count * (level + 1) // depth - count * level // depth
            start = count * level // depth
            levels.append([_model(rng, shape, layer, start + i, levels) for i in range(size)])
    everything = [model for level in levels for model in level] + _probe(shape)
    _spread_tests(everything, shape.tests)
    return everything


def _layer_sizes(mix: Mix, total: int) -> list[tuple[str, int, int]]:
    layers = LAYERS[mix]
    counts = [max(1, round(total * share)) for _, share, _ in layers]
    counts[1] += total - sum(counts)
    return [(name, n, min(depth, n)) for (name, _, depth), n in zip(layers, counts, strict=True)]


def _model(rng: random.Random, shape: Shape, layer: str, number: int, levels: list[list[Model]]) -> Model:
    kinds, weights = zip(*MATERIALIZED[layer], strict=True)
    is_staging = layer == "stg"
    return Model(
        name=f"{layer}_{number:04d}",
        layer=layer,
        depth=len(levels),
        materialized=rng.choices(kinds, weights)[0],
        group=rng.choice(DOMAINS),
        grain={"stg": "hour", "hourly": "hour", "daily": "day", "report": None}[layer],
        parents=() if is_staging else _parents(rng, layer, levels),
        source=source_names(shape)[number % (shape.sources - 1)] if is_staging else None,
    )


def _parents(rng: random.Random, layer: str, levels: list[list[Model]]) -> tuple[Model, ...]:
    """Pick 2.5 parents on average: one of the level above, the others of the five levels above."""
    wanted = rng.choices((1, 2, 3, 4), (15, 35, 35, 15))[0]
    near = [model for level in levels[-5:] for model in level if _readable(layer, model)]
    first = rng.choice([model for model in levels[-1] if _readable(layer, model)] or near)
    others = rng.sample(near, min(wanted, len(near)))
    return (first, *[model for model in others if model is not first][: wanted - 1])


def _readable(layer: str, model: Model) -> bool:
    return model.layer in {"stg": (), "hourly": ("stg", "hourly"), "report": ("daily",)}.get(
        layer, ("stg", "hourly", "daily")
    )


def _probe(shape: Shape) -> list[Model]:
    view = Model(f"stg_{PROBE}", "stg", 0, "view", DOMAINS[0], "hour", source=source_names(shape)[-1])
    return [view, Model(PROBE, "hourly", 1, "partitioned", DOMAINS[0], "hour", (view,))]


def _spread_tests(everything: list[Model], total: int) -> None:
    """Give every model the same number of tests, the first ones one more, in the order of `_pool`."""
    for number, model in enumerate(everything):
        share = total // len(everything) + (number < total % len(everything))
        pool = _pool(model)
        if share > len(pool):
            raise SystemExit(f"{total} tests on {len(everything)} models: at most {len(pool)} a model")
        model.tests.extend(pool[:share])


def _pool(model: Model) -> list[tuple[str, str]]:
    return [
        ("id", "not_null"),
        ("id", "unique"),
        ("category", "accepted_values"),
        ("parent_id", "relationships"),
        ("amount", "not_null"),
        (model.event_time or "event_day", "not_null"),
        ("quantity", "not_null"),
        ("parent_id", "not_null"),
        ("category", "not_null"),
    ]


def files(shape: Shape, flavour: Flavour) -> dict[str, str]:
    """Return the project's files by relative path, but for `profiles.yml`, which names the warehouse."""
    everything = models(shape)
    out = {
        "dbt_project.yml": _project_yml(flavour, shape),
        "models/sources.yml": _sources_yml(shape, flavour),
        "models/groups.yml": _groups_yml(),
    }
    for model in everything:
        out[f"models/{model.layer}/{model.name}.sql"] = _sql(model, shape, flavour)
    for start in range(0, len(everything), FILE_OF_SCHEMA):
        out[f"models/schema_{start // FILE_OF_SCHEMA:03d}.yml"] = _schema_yml(
            everything[start : start + FILE_OF_SCHEMA]
        )
    return out


def write(shape: Shape, flavour: Flavour, root: Path) -> None:
    """Write a project with its profile; the warehouse is `warehouse.duckdb` beside it."""
    for name, text in {**files(shape, flavour), "profiles.yml": _profiles_yml(root)}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if flavour == "t2":
        install_package(root)


def load_raw(shape: Shape, root: Path, start: date, days: int) -> None:
    """Fill the sources of a project's warehouse with `rows` rows an hour from `start` on, for `days` days."""
    import duckdb

    first = (start - shape.begin).days * 24
    with duckdb.connect(str(root / "warehouse.duckdb")) as connection:
        connection.execute("create schema if not exists raw")
        for source in source_names(shape):
            connection.execute(
                f"""
                create or replace table raw.{source} as
                select
                    n as id,
                    {list(CATEGORIES)!r}[n % {len(CATEGORIES)} + 1] as category,
                    (n * 37) % 10000 as amount,
                    (n * 13) % 50 as quantity,
                    timestamp '{shape.begin}' + to_hours(n // {shape.rows}) as event_hour
                from range({first * shape.rows}, {(first + 24 * days) * shape.rows}) as numbers(n)
                """
            )


def _project_yml(flavour: Flavour, shape: Shape) -> str:
    stock = f'vars: {{start: "{shape.begin}", end: "9999-01-01"}}\n' if flavour == "stock" else ""
    return (
        "name: synthetic\nprofile: synthetic\nversion: '1.0'\nmodel-paths: [models]\n"
        "flags:\n  send_anonymous_usage_stats: false\n  require_generic_test_arguments_property: true\n"
    ) + stock


def _profiles_yml(root: Path) -> str:
    path = json.dumps(str(root.resolve() / "warehouse.duckdb"))
    return (
        "synthetic:\n  target: dev\n  outputs:\n    dev:\n      type: duckdb\n"
        f"      path: {path}\n      schema: analytics\n      threads: 1\n"
    )


def _groups_yml() -> str:
    return "groups:\n" + "".join(
        f"  - {{name: {name}, owner: {{name: {name}, email: {name}@example.com}}}}\n" for name in DOMAINS
    )


def _sources_yml(shape: Shape, flavour: Flavour) -> str:
    # Landings are reported from outside: what is measured is not how often somebody looks.
    t2 = f'{{t2: {{batch_size: hour, begin: "{shape.begin}", monitor: {{enabled: false}}}}}}'
    meta = t2 if flavour == "t2" else f'{{begin: "{shape.begin}"}}'
    config = f"{{event_time: event_hour, meta: {meta}}}"
    return "sources:\n  - name: raw\n    schema: raw\n    tables:\n" + "".join(
        f"      - {{name: {name}, config: {config}}}\n" for name in source_names(shape)
    )


def _schema_yml(chunk: list[Model]) -> str:
    return "models:\n" + "".join(_schema_of(model) for model in chunk)


def _schema_of(model: Model) -> str:
    lines = [
        f"  - name: {model.name}",
        f"    description: A {model.layer} model of {model.group}.",
        "    columns:",
    ]
    columns = ["id", "parent_id", "category", "amount", "quantity", model.event_time or "event_day"]
    for column in columns:
        lines.append(f"      - name: {column}")
        kinds = [kind for tested, kind in model.tests if tested == column]
        if kinds:
            lines += ["        data_tests:", *[f"          - {_test(model, kind)}" for kind in kinds]]
    return "\n".join(lines) + "\n"


def _test(model: Model, kind: str) -> str:
    if kind == "accepted_values":
        values = ", ".join(CATEGORIES)
        return f"accepted_values: {{arguments: {{values: [{values}]}}, config: {{severity: warn}}}}"
    if kind == "relationships":
        parent = f"ref('{model.parents[0].name}')" if model.parents else f"source('raw', '{model.source}')"
        return f'relationships: {{arguments: {{to: "{parent}", field: id}}}}'
    return kind


def _sql(model: Model, shape: Shape, flavour: Flavour) -> str:
    if model.layer == "stg":
        return _config(model, shape, flavour) + _staging_select(model)
    parents = ",\n".join(
        f"p{n} as (select * from {_read(model, parent, flavour)})" for n, parent in enumerate(model.parents)
    )
    select = _report_select(model) if model.layer == "report" else _row_select(model)
    return f"{_config(model, shape, flavour)}with {parents}\n{select}"


def _config(model: Model, shape: Shape, flavour: Flavour) -> str:
    config = {"materialized": model.materialized, "group": model.group}
    if flavour == "t2" and model.event_time:
        config["event_time"] = model.event_time
    if model.materialized in ("partitioned", "incremental"):
        config |= _partition_config(model, shape, flavour)
    return "{{ config(" + ", ".join(f"{key}={value!r}" for key, value in config.items()) + ") }}\n"


def _partition_config(model: Model, shape: Shape, flavour: Flavour) -> dict[str, str]:
    delete_insert = {"incremental_strategy": "delete+insert", "unique_key": str(model.event_time)}
    if flavour == "stock":
        return {"materialized": "incremental", **delete_insert, "meta": {"grain": model.grain}}  # type: ignore[dict-item]
    partitions = {"batch_size": str(model.grain), "begin": shape.begin.isoformat()}
    if model.materialized == "incremental":
        return {**partitions, **delete_insert}
    return {**partitions, "incremental_strategy": "insert_overwrite"}


def _read(model: Model, parent: Model, flavour: Flavour) -> str:
    if model.materialized not in ("partitioned", "incremental"):
        return f"{{{{ ref('{parent.name}') }}}}"
    if flavour == "t2":
        return f"{{{{ t2.window('{parent.name}') }}}}"
    column = parent.event_time
    window = f"{column} >= '{{{{ var(\"start\") }}}}' and {column} < '{{{{ var(\"end\") }}}}'"
    return f"{{{{ ref('{parent.name}') }}}} where {window}"


def _staging_select(model: Model) -> str:
    return (
        "select id, id as parent_id, category, amount / 100.0 as amount, quantity, event_hour\n"
        f"from {{{{ source('raw', '{model.source}') }}}}\n"
    )


def _row_select(model: Model) -> str:
    others = range(1, len(model.parents))
    amount = " + ".join(["p0.amount", *[f"coalesce(p{n}.amount, 0)" for n in others]])
    joins = "".join(f"left join p{n} on p{n}.id = p0.id\n" for n in others)
    parent_time = model.parents[0].event_time
    same = parent_time == model.event_time
    time = f"p0.{parent_time}" if same else f"cast(p0.{parent_time} as date) as {model.event_time}"
    return (
        f"select p0.id, p0.id as parent_id, p0.category, {amount} as amount, p0.quantity, {time}\n"
        f"from p0\n{joins}"
    )


def _report_select(model: Model) -> str:
    others = range(1, len(model.parents))
    joins = "".join(f"left join p{n} on p{n}.id = p0.id\n" for n in others)
    return (
        "select min(p0.id) as id, min(p0.id) as parent_id, p0.category, sum(p0.amount) as amount, "
        f"sum(p0.quantity) as quantity, p0.event_day\nfrom p0\n{joins}group by p0.category, p0.event_day\n"
    )


def main() -> None:
    """Write a project and its raw data of the last two days."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/synthetic.py", description="Write a synthetic dbt project."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=int, default=Shape.models)
    parser.add_argument("--tests", type=int, default=Shape.tests)
    parser.add_argument("--seed", type=int, default=Shape.seed)
    parser.add_argument("--begin", type=date.fromisoformat, default=Shape.begin)
    parser.add_argument("--flavour", choices=("t2", "stock"), default="t2")
    options = parser.parse_args()
    shape = Shape(options.models, options.tests, begin=options.begin, seed=options.seed)
    write(shape, options.flavour, options.out)
    load_raw(shape, options.out, datetime.now().date() - timedelta(days=2), days=3)


if __name__ == "__main__":
    main()
