"""Rules in a real pipeline around a trained model."""

import numpy as np
import pyarrow.compute as pc
import pytest
from asked import NOW
from small import small_config, small_dataset

from anyrec.core.config import PipelineConfig
from anyrec.core.errors import AnyrecError, ConfigError
from anyrec.pipeline.pipeline import Pipeline
from anyrec.recommender import Recommender

CHEAP = {"type": "where", "where": {"item.continuous.price": {"lt": 45}}}
EVERY = [
    {"type": "freshness", "feature": "item.temporal.restocked", "half_life_days": 30},
    {"type": "boost", "where": {"item.categorical.tags": {"contains": "user.categorical.job"}}, "factor": 3},
    {"type": "diversity", "method": "dpp"},
    {"type": "diversity", "method": "mmr"},
    {"type": "diversity", "method": "max_per_category", "feature": "item.categorical.tags", "max": 20},
    {"type": "calibrate", "feature": "item.categorical.tags"},
    {"type": "quota", "feature": "item.categorical.tags", "at_most": {"nurse": 0.5}},
    {"type": "explore", "positions": [2], "epsilon": 1},
    {"type": "pin", "items": [{"item": "i003", "position": 1}]},
]


@pytest.fixture(scope="module")
def recommender():
    return Recommender.from_config(small_config(pipeline={})).fit(small_dataset(), progress=False)


def answer(recommender, rules, k=5, strict=True, **options):
    pipeline = Pipeline(
        PipelineConfig.model_validate({"rerank": {"rules": rules}, "strict": strict}), recommender.registry
    )
    pipeline.check(recommender.model)
    return pipeline.answer(recommender.model, options.pop("users", None), k, now=NOW, **options)


def lists(found):
    """Each user's items, in order."""
    return {
        user: [row["item_id"] for row in found.table.to_pylist() if row["user_id"] == user]
        for user in pc.unique(found.table["user_id"]).to_pylist()
    }


@pytest.mark.parametrize("k", [1, 5, 13])
def test_lists_have_k_items_if_k_are_eligible_and_reordering_rules_keep_the_length(recommender, k):
    price = np.nan_to_num(recommender.dataset.items.column("continuous.price").to_numpy(), nan=99)
    ids = recommender.dataset.ids("item").to_pylist()
    seen = recommender.model.seen
    found = lists(answer(recommender, [CHEAP, *EVERY], k))
    for row, user in enumerate(recommender.dataset.ids("user").to_pylist()):
        had = seen.items[seen.offsets[row] : seen.offsets[row + 1]]
        eligible = {ids[n] for n in np.setdiff1d(np.flatnonzero(price < 45), had)}
        assert len(found[user]) == min(k, len(eligible)) and set(found[user]) <= eligible


def test_the_history_rule_reads_types_and_times_of_a_saved_model(recommender, tmp_path):
    recommender = Recommender.from_config(small_config(training={"epochs": 1}, pipeline={})).fit(
        small_dataset(), progress=False
    )
    rules = [{"type": "history", "types": ["buy"]}]
    before = lists(answer(recommender, rules, 40, exclude_seen=False))
    recommender.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert lists(answer(loaded, rules, 40, exclude_seen=False)) == before
    bought = [
        row
        for row in small_dataset().interactions.to_pylist()
        if row["interaction_type"] == "buy" and row["user_id"] == "u000"
    ]
    assert set(before["u000"]) == set(recommender.dataset.ids("item").to_pylist()) - {row["item_id"] for row in bought}


def test_the_trace_has_propensities_and_moved_items(recommender):
    trace = answer(recommender, [EVERY[7]], users=["u000", "u001"], trace=True).trace.to_pylist()
    assert [row["score"] for row in trace if row["event"] == "logged" and row["by"] == "propensity"] == [0.05, 0.05]


def test_values_of_the_moment_decide(recommender):
    rule = {"type": "boost", "where": {"context.device": "phone", "item.continuous.price": {"lt": 45}}, "add": 100}
    plain = lists(answer(recommender, []))
    assert lists(answer(recommender, [rule], context={"device": "tv"})) == plain
    assert lists(answer(recommender, [rule], context={"device": "phone"})) != plain


def test_an_endpoint_that_does_not_answer_is_skipped_with_a_warning_and_with_strict_an_error(recommender):
    rule = {"type": "http", "url": "http://127.0.0.1:9/", "users": 1000}
    found = answer(recommender, [rule], strict=False)
    assert lists(found) == lists(answer(recommender, [])) and "did not answer" in found.warnings[0]
    with pytest.raises(AnyrecError, match="did not answer"):
        answer(recommender, [rule])


def test_faults_of_rules_have_their_place_in_the_config(recommender):
    rules = [
        {"type": "where", "where": {"item.continuous.prize": {"lt": 2}}},
        {"type": "freshness", "feature": "item.text.title", "half_life_days": 1},
    ]
    with pytest.raises(ConfigError) as caught:
        answer(recommender, rules)
    assert [fault.where for fault in caught.value.faults] == [
        "/pipeline/rerank/rules/0/where/item.continuous.prize",
        "/pipeline/rerank/rules/1/feature",
    ]
