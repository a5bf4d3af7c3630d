"""Filters and rules on ready lists, without a model."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from small import small_dataset

from anyrec import (
    AvailabilityRule,
    DemographicRule,
    DiversityRule,
    FreshnessRule,
    HistoryRule,
    Recommender,
    WhereRule,
    apply_rules,
)
from anyrec.core.errors import AnyrecError, ConfigError, DataError

ITEMS = [
    {
        "item_id": n,
        "categorical": {"genre": "jazz" if n < 3 else "folk"},
        "continuous": {"year": 2000 + n, "min_age": n * 9},
    }
    for n in range(6)
]
LISTS = [{"user_id": user, "item_id": n, "score": 1 - n / 10} for user in ("ann", "bob") for n in range(6)]
GENRE = "item.categorical.genre"


def shown(table):
    found = {}
    for row in table.to_pylist():
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def test_lists_without_rules_stay_as_they_are():
    assert shown(apply_rules(LISTS, ITEMS)) == {"ann": list(range(6)), "bob": list(range(6))}
    assert apply_rules(LISTS, ITEMS).column_names == ["user_id", "item_id", "score", "rank"]
    reversed_ = pd.DataFrame(LISTS).iloc[::-1].assign(rank=lambda frame: frame.item_id + 1)
    assert shown(apply_rules(reversed_, pd.json_normalize(ITEMS), k=2)) == {"bob": [0, 1], "ann": [0, 1]}
    unscored = [{"user_id": 1, "item_id": n} for n in (5, 2, 4)]
    assert shown(apply_rules(unscored, ITEMS)) == {1: [5, 2, 4]}


def test_objects_and_classes_are_the_same_rules():
    diverse = DiversityRule(method="max_per_category", feature=GENRE, max=1)
    options = {"type": "diversity", "method": "max_per_category", "feature": GENRE, "max": 1}
    first, second = (apply_rules(LISTS, ITEMS, rules=[rule], k=2) for rule in (diverse, options))
    assert first.equals(second) and shown(first)["ann"] == [0, 3]
    table = pa.Table.from_pandas(pd.json_normalize(ITEMS))
    assert apply_rules(pa.Table.from_pylist(LISTS), table, rules=[diverse], k=2).equals(first)


def test_filters_and_rules_read_records_histories_and_the_moment():
    users = [{"user_id": "ann", "continuous": {"age": 20}}, {"user_id": "bob", "continuous": {"age": 40}}]
    adult = DemographicRule(user="user.continuous.age", min="item.continuous.min_age")
    assert shown(apply_rules(LISTS, ITEMS, users, [adult])) == {"ann": [0, 1, 2], "bob": [0, 1, 2, 3, 4]}
    did = [{"user_id": "ann", "item_id": 0, "interaction_type": "buy"}, {"user_id": "bob", "item_id": 1}]
    assert shown(apply_rules(LISTS, ITEMS, rules=[HistoryRule()], interactions=did, k=2)) == {
        "ann": [1, 2],
        "bob": [0, 2],
    }
    others = [*did, {"user_id": "eve", "item_id": 1}, {"user_id": "ann", "item_id": 99}]
    assert shown(apply_rules(LISTS, ITEMS, rules=[HistoryRule()], interactions=others, k=2))["ann"] == [1, 2]
    bought = HistoryRule(types=["buy"], only=True)
    assert shown(apply_rules(LISTS, ITEMS, rules=[bought], interactions=did)) == {"ann": [0]}
    fresh = FreshnessRule(feature="item.continuous.year", half_life_days=30, unit="year", weight=100)
    moment = 1_104_537_600_000_000  # 2005
    assert shown(apply_rules(LISTS, ITEMS, rules=[fresh], now=moment, k=2))["ann"] == [5, 4]
    here = WhereRule(where={GENRE: {"eq": "context.genre"}})
    assert shown(apply_rules(LISTS, ITEMS, rules=[here], context={"genre": "folk"}))["bob"] == [3, 4, 5]
    stock = AvailabilityRule(items=[1, 2], mode="never")
    assert shown(apply_rules(LISTS, ITEMS, rules=[stock, here], context={"genre": "jazz"}))["ann"] == [0]


def test_mmr_reads_the_vectors_of_the_items():
    vectors = np.eye(6, 3, dtype=np.float32)[[0, 0, 0, 1, 1, 2]]
    rule = DiversityRule(method="mmr", relevance=0.1)
    assert shown(apply_rules(LISTS, ITEMS, rules=[rule], item_vectors=vectors, k=3))["ann"] == [0, 3, 5]
    with pytest.raises(ConfigError, match="rules/0/method: 'mmr' compares item vectors"):
        apply_rules(LISTS, ITEMS, rules=[rule])
    with pytest.raises(DataError, match=r"item_vectors: expected \(6, dim\)"):
        apply_rules(LISTS, ITEMS, rules=[rule], item_vectors=vectors[:3])


def test_the_result_is_that_of_a_model_s_pipeline():
    rules = [
        {"type": "where", "where": {"item.continuous.price": {"gt": 45}}},
        {"type": "diversity", "method": "max_per_category", "feature": "item.categorical.tags", "max": 9},
        {"type": "boost", "where": {"item.categorical.tags": {"overlaps": "user.categorical.job"}}, "factor": 3},
    ]
    data = small_dataset()
    plain = Recommender.from_config({"model": {"type": "popularity"}}).fit(data, progress=False)
    piped = plain.with_pipeline({"retrieve": {"k": 40}, "rerank": {"rules": rules}})
    lists = plain.recommend(None, 40, exclude_seen=False)
    wanted = piped.recommend(None, 5, exclude_seen=False)
    assert shown(apply_rules(lists, data, data, rules, k=5)) == shown(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LISTS, ITEMS[:3]), "`items` has no record of 3, 4, 5"),
        ((LISTS, ITEMS, [{"user_id": "ann"}]), "`users` has no record of 'bob'"),
        (([{"user_id": 1, "item_id": "a"}], ITEMS), "the ids of the lists are texts"),
        (([LISTS[0], LISTS[0]], ITEMS), "has the item 0 twice"),
        (([{"item_id": 1}], ITEMS), "the column user_id is missing"),
        (([{"user_id": 1, "item_id": 1, "score": "high"}], ITEMS), "lists.score: expected numbers"),
        ((["a"], ITEMS), "Give a table or a list of dicts"),
        ((LISTS, [1, 2]), "expected records; found ids"),
        ((LISTS, ITEMS, [{"user_id": 1}]), "the ids of the lists are texts, those of `users` whole numbers"),
        ((LISTS, ITEMS, None, [{"type": "wher"}]), "Did you mean 'where'"),
        ((LISTS, ITEMS, None, ["where"]), "rules/0: expected a rule or an object with a type"),
        ((LISTS, ITEMS, None, [{"type": "boost", "where": {GENRE: "jazz"}, "factr": 2}]), "rules/0"),
        (
            (LISTS, ITEMS, None, [DiversityRule(method="max_per_category", feature="item.x")]),
            "no item feature 'item.x'",
        ),
        ((LISTS, ITEMS, None, [HistoryRule(types=["buy"])]), "rules/0"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(AnyrecError, match=re.escape(message)):
        apply_rules(*arguments)


def test_invalid_options_of_a_rule_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'feature'"):
        FreshnessRule(featur="item.continuous.year", half_life_days=3)


def test_interactions_of_other_id_types_are_refused():
    with pytest.raises(DataError, match="the ids of the interactions are whole numbers, those of users texts"):
        apply_rules(LISTS, ITEMS, rules=[HistoryRule()], interactions=[{"user_id": 5, "item_id": 1}])
