"""The Automation tab's rows on PostgreSQL, whose upsert is another statement."""

from __future__ import annotations

import dagster as dg
from tests.postgres import postgres, postgres_server

from t2.definitions._dagster import automation
from t2.definitions._dagster.evaluation_store import EvaluationStore

__all__ = ["postgres", "postgres_server"]

KEY = dg.AssetKey(["main", "totals"])


def test_an_evaluation_replaces_the_one_of_its_tick(postgres: str) -> None:
    def evaluation(mark: str, *, requested: bool) -> automation.Evaluation:
        return automation.node(mark, "T2: eager", automation.whole(KEY, there=requested), None)

    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": postgres}}}) as instance:
        store = EvaluationStore(instance)
        assert store.is_there()
        store.put(1, [evaluation("a", requested=False)])
        store.put(2, [evaluation("b", requested=False)])
        store.put(2, [evaluation("c", requested=True)])
        assert dict(store.marks([KEY, dg.AssetKey(["main", "other"])])) == {KEY: "c"}
        assert instance.schedule_storage is not None
        kept = instance.schedule_storage.get_auto_materialize_asset_evaluations(KEY, limit=10)
        told = [(one.evaluation_id, one.get_evaluation_with_run_ids().num_requested) for one in kept]
        assert told == [(2, 1), (1, 0)]
