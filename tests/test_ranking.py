"""Ranking metrics against a float64 loop over the definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.data.pairs import Pairs
from anyrec.evaluation.ranking import rank_targets, ranking_metrics


def metrics_by_loop(scores, targets, exclude, rankable, k):
    """Each metric from its definition, one user and one item at a time."""
    found = {name: [] for name in ("ndcg", "recall", "precision", "hit_rate", "map", "mrr", "auc")}
    for user, wanted in targets.items():
        ranks, left_out = [], exclude.get(user, ())
        ranked = [target for target in wanted if target not in left_out]  # a list cannot contain the others
        for target in ranked:
            rank = 1.0
            for item, score in enumerate(scores[user]):
                shown = (item in wanted or rankable[item]) and item not in left_out
                tie = (1.0 if item < target else 0.0) if item in wanted else 0.5  # held-out ones take successive places
                if item != target and shown:
                    rank += 1.0 if score > scores[user][target] else tie if score == scores[user][target] else 0.0
            ranks.append(rank)
        hits = sorted(rank for rank in ranks if rank <= k)
        best = sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
        found["ndcg"].append(sum(1 / math.log2(rank + 1) for rank in hits) / best)
        found["recall"].append(len(hits) / len(wanted))
        found["precision"].append(len(hits) / k)
        found["hit_rate"].append(1.0 if hits else 0.0)
        found["map"].append(sum((place + 1) / rank for place, rank in enumerate(hits)) / min(k, len(wanted)))
        found["mrr"].append(1 / hits[0] if hits else 0.0)
        others = [
            scores[user][item]
            for item in range(len(rankable))
            if item not in wanted and rankable[item] and item not in left_out
        ]
        orders = [
            1.0 if scores[user][t] > other else 0.5 for t in ranked for other in others if scores[user][t] >= other
        ]
        if ranked:
            found["auc"].append(sum(orders) / (len(ranked) * len(others)))
    return {name if name == "auc" else f"{name}@{k}": sum(v) / len(v) for name, v in found.items() if v}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), many=st.booleans(), ties=st.booleans())
def test_metrics_equal_a_loop_over_their_definitions(seed, many, ties):
    rng = np.random.default_rng(seed)
    users, items = 7, 30
    scores = rng.integers(0, 6, (users, items)).astype(float) if ties else rng.normal(size=(users, items))
    targets = {
        u: set(rng.choice(items, rng.integers(1, 9 if many else 2), replace=False).tolist()) for u in range(users - 1)
    }
    exclude = {u: set(rng.choice(items, 6).tolist()) for u in range(users)}
    rankable = rng.random(items) < 0.8

    def pairs(sets):
        flat = [(u, i) for u, chosen in sets.items() for i in chosen]
        return Pairs.of(np.array([u for u, _ in flat]), np.array([i for _, i in flat]), users)

    found = rank_targets(
        lambda rows: torch.tensor(scores[rows]), pairs(targets), pairs(exclude), rankable, batch_size=3
    )
    found = ranking_metrics(found, [5])
    assert found == pytest.approx(metrics_by_loop(scores, targets, exclude, rankable, 5), abs=1e-9)


def test_a_model_with_equal_scores_for_all_items_gets_the_middle_rank():
    ranks = rank_targets(lambda rows: torch.zeros(len(rows), 101), Pairs.of(np.array([0]), np.array([5]), 1)).ranks
    assert ranks.tolist() == [51.0]


def test_a_nan_score_is_ranked_last():
    scores = torch.tensor([[1.0, float("nan"), 0.0]])
    ranks = rank_targets(lambda rows: scores.clone(), Pairs.of(np.array([0]), np.array([1]), 1)).ranks
    assert ranks.tolist() == [3.0]


@pytest.mark.parametrize("sample", [None, 1])
def test_a_held_out_item_that_lists_exclude_is_a_miss_at_every_score_and_cutoff(sample):
    scores = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    targets = Pairs.of(np.array([0, 0, 1]), np.array([1, 2, 2]), 2)
    found = rank_targets(lambda rows: scores.clone(), targets, Pairs.of(np.array([0]), np.array([2]), 2), sample=sample)
    assert found.ranks.tolist() == [1.0, np.inf, 1.0] and 2 not in found.lists[0]
    metrics = ranking_metrics(found, [5])
    assert metrics["recall@5"] == 0.75 and metrics["hit_rate@5"] == 1.0 and metrics["auc"] == 1.0


def test_a_held_out_item_is_ranked_even_if_it_is_not_a_candidate():
    scores, target = torch.tensor([[3.0, 2.0, 1.0]]), Pairs.of(np.array([0]), np.array([1]), 1)
    ranks = rank_targets(lambda rows: scores.clone(), target, None, np.array([True, False, True])).ranks
    assert ranks.tolist() == [2.0]


def test_no_held_out_items_give_no_metrics():
    none = rank_targets(lambda rows: torch.zeros(0, 3), Pairs.of(np.empty(0, int), np.empty(0, int), 4))
    assert ranking_metrics(none, [10]) == {}


def test_held_out_items_that_tie_at_the_top_are_a_perfect_list():
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    top = Pairs.of(np.array([0, 0, 0]), np.array([0, 1, 2]), 1)
    found = ranking_metrics(rank_targets(lambda rows: scores.clone(), top), [2, 3])
    assert all(found[f"{name}@{k}"] == 1.0 for name in ("precision", "ndcg", "map", "mrr") for k in (2, 3))
