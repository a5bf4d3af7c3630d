"""Every metric of lists against a float64 loop over its definition."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from anyrec.data.pairs import Pairs
from anyrec.evaluation.list_metrics import CatalogueStatistics, gini, list_metrics
from anyrec.evaluation.ranking import Ranking


class Case:
    """Lists of 0 to 6 items, padded with -1; some items without a category, some users without a history."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.items, trained = int(rng.integers(3, 13)), int(rng.integers(1, 7))
        users = np.flatnonzero(rng.random(trained) < 0.7)
        self.users = users if len(users) else np.array([0])
        self.rankable = rng.random(self.items) < 0.8
        self.traits = (rng.random((self.items, 4)) < 0.35).astype(float)
        self.history = [np.flatnonzero(rng.random(self.items) < rng.choice([0, 0.5])) for _ in range(trained)]
        self.length = int(rng.integers(1, 7))
        self.lists = [rng.permutation(self.items)[: rng.integers(0, self.length + 1)] for _ in self.users]
        self.wanted = [np.sort(rng.permutation(self.items)[: rng.integers(1, 4)]) for _ in self.users]
        self.counts = [sum(item in row for row in self.history) for item in range(self.items)]

    def ranking(self):
        lists = np.full((len(self.users), self.length), -1)
        for row, listed in zip(lists, self.lists, strict=True):
            row[: len(listed)] = listed
        items = np.concatenate(self.wanted)
        users = np.repeat(self.users, [len(row) for row in self.wanted])
        return Ranking(users, items, np.full(len(items), np.inf), self.users, lists, np.full(len(lists), self.items))

    def catalogue(self):
        users = np.repeat(np.arange(len(self.history)), [len(row) for row in self.history])
        pairs = Pairs.of(users, np.concatenate(self.history), len(self.history))
        traits = sparse.csr_matrix(self.traits)
        return CatalogueStatistics(np.array(self.counts), len(self.history), self.rankable, traits, pairs)


def by_loop(case, k):
    """Each metric from its definition, one user and one item at a time."""
    found = {name: [] for name in ("novelty", "popularity", "serendipity", "diversity", "calibration")}
    ranked = [item for item in range(case.items) if case.rankable[item]]
    others = [item for item in range(case.items) if not case.rankable[item]]
    order = [*sorted(ranked, key=lambda item: -case.counts[item]), *sorted(others, key=lambda item: -case.counts[item])]
    number = max(1, len(ranked))
    for user, whole, wanted in zip(case.users, case.lists, case.wanted, strict=True):
        listed = whole[:k]
        n = max(1, len(listed))
        found["novelty"].append(sum(-math.log2(max(1, case.counts[i]) / len(case.history)) for i in listed) / n)
        found["popularity"].append(sum(case.counts[item] for item in listed) / n)
        gains = [
            max(0.0, (number + 1 - place) / number - (number + 1 - (order.index(item) + 1)) / number)
            for place, item in enumerate(listed, 1)
            if item in wanted
        ]
        found["serendipity"].append(sum(gains) / k)
        gaps = [
            1 - cosine(case.traits[listed[a]], case.traits[listed[b]])
            for a in range(len(listed))
            for b in range(a + 1, len(listed))
        ]
        found["diversity"].append(sum(gaps) / len(gaps) if gaps else math.nan)
        found["calibration"].append(divergence(mix(case, case.history[user]), mix(case, listed)))
    shown = [sum(item in row[:k] for row in case.lists) for item in ranked]
    found["coverage"] = sum(count > 0 for count in shown) / number
    found["gini"] = gini_by_loop(shown)
    return {f"{name}@{k}": value for name, value in found.items()}


def cosine(a, b):
    norms = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def mix(case, items):
    """Each item spends one unit of attention evenly on its categories; the shares of all that was spent."""
    weights = [0.0] * case.traits.shape[1]
    for item in items:
        for category, has in enumerate(case.traits[item]):
            weights[category] += has / max(1.0, sum(case.traits[item]))
    return [weight / sum(weights) for weight in weights] if sum(weights) else None


def divergence(had, got):
    if had is None or got is None:
        return math.nan
    return sum(p * math.log(p / (0.99 * q + 0.01 * p)) for p, q in zip(had, got, strict=True) if p > 0)


def gini_by_loop(counts):
    """Half the mean absolute difference between two of them, drawn with replacement, relative to their mean."""
    if not sum(counts):
        return 0.0
    gaps = sum(abs(a - b) for a in counts for b in counts)
    return gaps / (2 * len(counts) * sum(counts))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1_000_000), k=st.integers(1, 8))
def test_metrics_of_lists_equal_a_loop_over_their_definitions(seed, k):
    case = Case(seed)
    found = list_metrics(case.ranking(), case.catalogue(), [1, k])
    expected = by_loop(case, 1) | by_loop(case, k)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)


def test_without_categories_nothing_is_said_of_diversity_or_calibration():
    case = Case(1)
    found = list_metrics(case.ranking(), replace(case.catalogue(), traits=None), [3])
    assert found.keys() == {"novelty@3", "popularity@3", "serendipity@3", "coverage@3", "gini@3"}


def test_no_users_give_empty_figures():
    none = np.empty(0, np.int64)
    ranking = Ranking(none, none, np.empty(0), none, np.empty((0, 5), np.int64), none)
    found = list_metrics(ranking, Case(1).catalogue(), [3])
    assert found.pop("coverage@3") == found.pop("gini@3") == 0.0
    assert all(np.shape(values) == (0,) for values in found.values())


@pytest.mark.parametrize(("counts", "expected"), [([], 0.0), ([0, 0], 0.0), ([3, 3, 3], 0.0), ([0, 0, 0, 8], 0.75)])
def test_gini_of_known_shares(counts, expected):
    assert gini(np.array(counts)) == pytest.approx(expected)
