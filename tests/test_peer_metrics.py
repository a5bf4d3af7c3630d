"""Our metrics against ranx's and RecTools's figures for the same lists, user by user (made by benchmarks/peers.py).

What differs by definition is held to its difference, as docs/metrics.md tells it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from anyrec.data.pairs import Pairs
from anyrec.evaluation.list_metrics import CatalogueStatistics, list_metrics
from anyrec.evaluation.ranking import METRICS, Ranking, metrics_by_user

HERE = Path(__file__).parent
CASE = json.loads((HERE / "data" / "peer_metrics.json").read_text())
KS = CASE["ks"]
list_lengths = np.array([len(row) for row in CASE["lists"]])
held_out_counts = np.array([len(row) for row in CASE["targets"]])


def flat(rows):
    """A list of items a user -> (pairs,) users and items."""
    return np.repeat(np.arange(len(rows)), [len(row) for row in rows]), np.array([i for row in rows for i in row])


def ranking():
    users, items = flat(CASE["targets"])
    places = [{item: place + 1 for place, item in enumerate(row)} for row in CASE["lists"]]
    ranks = np.array([places[user].get(item, np.inf) for user, item in zip(users, items, strict=True)])
    longest = list_lengths.max()
    lists = np.array([row + [-1] * (longest - len(row)) for row in CASE["lists"]])
    everyone = np.arange(len(lists))
    return Ranking(users, items, ranks, everyone, lists, np.full(len(lists), CASE["num_items"]))


def catalogue():
    users, items = flat(CASE["history"])
    return CatalogueStatistics(
        counts=np.bincount(items, minlength=CASE["num_items"]),
        num_users=len(CASE["history"]),
        rankable=np.ones(CASE["num_items"], bool),
        traits=sparse.csr_matrix(np.array(CASE["categories"], float)),
        history=Pairs.of(users, items, len(CASE["history"])),
    )


@pytest.fixture(scope="module")
def ours():
    return metrics_by_user(ranking(), KS) | list_metrics(ranking(), catalogue(), KS)


def theirs(peer, name):
    return np.array(CASE[peer][name], float)


def same(mine, other):
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", ["recall", "precision", "ndcg", "hit_rate", "mrr"])
@pytest.mark.parametrize("peer", ["ranx", "rectools"])
def test_accuracy_equals_that_of_a_peer(ours, peer, name, k):
    same(ours[f"{name}@{k}"], theirs(peer, f"{name}@{k}"))


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("peer", ["ranx", "rectools"])
def test_map_equals_that_of_a_peer_if_at_most_k_items_were_held_out(ours, peer, k):
    few = held_out_counts <= k
    assert few.any()
    same(ours[f"map@{k}"][few], theirs(peer, f"map@{k}")[few])
    same(ours[f"map@{k}"] * np.minimum(held_out_counts, k) / held_out_counts, theirs(peer, f"map@{k}"))


@pytest.mark.parametrize("k", KS)
def test_map_is_the_greater_of_the_two_in_rectools(ours, k):
    same(ours[f"map@{k}"], np.maximum(theirs("rectools", f"map@{k}"), theirs("rectools", f"map_divide_by_k@{k}")))


@pytest.mark.parametrize("k", KS)
def test_rectools_divides_ndcg_by_the_ideal_of_k_held_out_items_by_default(ours, k):
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    shrunk = ours[f"ndcg@{k}"] * ideal[np.minimum(held_out_counts, k) - 1] / ideal[-1]
    same(shrunk, theirs("rectools", f"ndcg_default@{k}"))


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", ["novelty", "popularity", "coverage"])
def test_list_metrics_equal_those_of_rectools(ours, name, k):
    same(ours[f"{name}@{k}"], theirs("rectools", f"{name}@{k}"))


@pytest.mark.parametrize("k", KS)
def test_diversity_equals_that_of_rectools_but_is_nan_for_a_list_of_one_item(ours, k):
    several = np.minimum(list_lengths, k) > 1
    same(ours[f"diversity@{k}"][several], theirs("rectools", f"diversity@{k}")[several])
    assert np.isnan(ours[f"diversity@{k}"][~several]).all()
    same(theirs("rectools", f"diversity@{k}")[~several], 0.0)


@pytest.mark.parametrize("k", KS)
def test_serendipity_equals_that_of_rectools_except_for_short_lists_and_unseen_items(ours, k):
    """RecTools divides by the list's length, and gives an item that nobody had the popularity rank N + 1."""
    nobody = np.flatnonzero(catalogue().counts == 0)
    hits = [set(row[:k]) & set(wanted) for row, wanted in zip(CASE["lists"], CASE["targets"], strict=True)]
    cold = np.array([len(hit.intersection(nobody)) for hit in hits])
    mine = ours[f"serendipity@{k}"]
    plain = (cold == 0) & (list_lengths >= k)
    same(mine[plain], theirs("rectools", f"serendipity@{k}")[plain])
    same((mine * k + cold / CASE["num_items"]) / np.minimum(list_lengths, k), theirs("rectools", f"serendipity@{k}"))


def test_the_case_contains_the_situations_in_which_the_definitions_differ():
    wanted = [set(row) for row in CASE["targets"]]
    assert (list_lengths < max(KS)).any() and (list_lengths == max(KS)).any()
    assert any(row.isdisjoint(listed) for row, listed in zip(wanted, CASE["lists"], strict=True))
    assert held_out_counts.min() == 1 and held_out_counts.max() == 6
    assert (np.array(CASE["categories"]).sum(1) == 0).any()
    counts = catalogue().counts
    assert len(np.unique(counts)) == len(counts) and counts.min() == 0
    assert any(np.argmin(counts) in row.intersection(listed) for row, listed in zip(wanted, CASE["lists"], strict=True))


def test_every_metric_is_explained_in_the_documents(ours):
    text = (HERE.parent / "docs" / "metrics.md").read_text()
    names = {name.partition("@")[0] for name in ours}
    assert names >= set(METRICS)
    assert sorted(name for name in names if f"| {name}" not in text) == []
