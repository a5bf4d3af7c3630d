"""Trending learns, at past moments, how facts about items and users predict what users choose next."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from anyrec.core.contracts import TrainingMatrix
from anyrec.data.pairs import Pairs
from anyrec.interaction.conditional_logit import ChoiceSet, fit_conditional_logit
from anyrec.interaction.pair_log import EARLY, EARLY_HALF_LIVES, HALF_LIVES, SHORTEST, PairLog
from anyrec.interaction.trending import Trending
from anyrec.interaction.user_lifts import PRIOR_PAIRS, UserFeatures

USERS, ITEMS = 300, 60


def training(users, items, days, shape, table=None):
    """The training matrix of pairs; a pair that occurs twice has its latest time."""
    latest = {}
    for user, item, day in zip(users, items, days, strict=True):
        latest[user, item] = max(day, latest.get((user, item), -np.inf))
    pairs = sorted(latest)
    users, items = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    days = np.array([latest[pair] for pair in pairs], np.float64)
    matrix = sparse.csr_matrix((np.ones(len(pairs), np.float32), (users, items)), shape)
    return TrainingMatrix(matrix, users, items, days, pa.table({}), 0, table)


def drawn(seed=0, users=USERS, items=ITEMS, each=10, chances=None, table=None, span=3.0):
    """Users arrive one a day and choose `each` items within `span` days. chances: (day, user) -> (items,) weights."""
    random, found = np.random.default_rng(seed), []
    for user in range(users):
        weights = np.ones(items) if chances is None else chances(user)
        chosen = random.choice(items, each, replace=False, p=weights / weights.sum())
        found += [(user, item, user + day) for item, day in zip(chosen, random.uniform(0, span, each), strict=True)]
    chosen_by, chosen, days = zip(*found, strict=True)
    return training(chosen_by, chosen, days, (users, items), table)


def days_of(data):
    """(pairs,) the times of the training pairs."""
    assert data.days is not None
    return data.days


def fitted(data, **options):
    model = Trending(Trending.Params(**options))
    model.fit(data)
    return model


def scores(model, data, rows=None, history=None):
    rows = np.arange(data.matrix.shape[0]) if rows is None else np.asarray(rows)
    return model.score(rows, data.matrix[rows] if history is None else history)


def empty(rows, items=ITEMS):
    return sparse.csr_matrix((rows, items), dtype=np.float32)


def fashion(day):
    """An item is fashionable for 30 days, one after another."""
    return 0.1 + np.exp(-(((np.arange(ITEMS) * 5 - day) / 30) ** 2)) * 10


# the conditional logit


def choices(seed, users=40, items=12, shared=3, personal=2, weights=None):
    """Users choose one allowed item each, by the softmax of `weights`."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=shared + personal) if weights is None else weights
    a, b = random.normal(size=(items, shared)), random.normal(size=(users, items, personal))
    allowed = random.random((users, items)) < 0.8
    allowed[:, 0] = True
    odds = np.where(allowed, np.exp(a @ weights[:shared] + b @ weights[shared:]), 0.0)
    chosen = np.zeros((users, items))
    for user, row in enumerate(odds):
        chosen[user, random.choice(items, p=row / row.sum())] = 1.0
    return ChoiceSet(a.astype(np.float32), b.astype(np.float32), chosen.astype(np.float32), allowed)


def loss(sets, weights, penalty, prior):
    """The definition, in float64."""
    total, users = 0.0, 0
    for one in sets:
        shared = one.items.shape[1]
        value = np.where(one.allowed, one.items @ weights[:shared] + one.pairs @ weights[shared:], -np.inf)
        logs = value - np.log(np.exp(value).sum(1, keepdims=True))
        total -= (np.where(one.chosen > 0, logs, 0.0) * one.chosen).sum()
        users += len(one.chosen)
    return total / users + penalty * np.square(weights - prior).sum()


@given(seed=st.integers(0, 10**6), penalty=st.sampled_from([1e-3, 0.1, 10.0]), personal=st.integers(0, 2))
@settings(max_examples=15, deadline=None)
def test_the_weights_are_the_minimum_of_the_penalised_likelihood(seed, penalty, personal):
    sets = [choices(seed, personal=personal), choices(seed + 1, users=7, items=5, personal=personal)]
    prior = np.random.default_rng(seed).normal(size=3 + personal)
    found = fit_conditional_logit(sets, penalty, prior)
    least = loss(sets, found, penalty, prior)
    for place in range(3 + personal):
        for step in (-0.05, 0.05):
            assert loss(sets, found + step * np.eye(3 + personal)[place], penalty, prior) >= least


def test_the_weights_of_the_choices_are_found_again():
    planted = np.array([1.0, -0.5, 0.0, 2.0, -1.0])
    found = fit_conditional_logit([choices(0, users=4000, weights=planted)], 1e-6, np.zeros(5))
    np.testing.assert_allclose(found, planted, atol=0.15)


def test_a_large_penalty_keeps_the_prior():
    prior = np.array([0.3, 0.0, -1.0, 0.5, 0.0])
    np.testing.assert_allclose(fit_conditional_logit([choices(0)], 1e6, prior), prior, atol=1e-5)


# the state at a moment


def test_the_features_of_items_are_their_definitions():
    data = drawn(users=40, items=25)
    log = PairLog.of(data)
    order = sorted(range(len(data.items)), key=lambda n: (days_of(data)[n], data.users[n], data.items[n]))
    now, found = len(order), log.item_features(500)
    history = {}
    rows = []
    for place, pair in enumerate(order):
        user, item = data.users[pair], data.items[pair]
        rows.append((item, now - place, history.get(user, 0)))
        history[user] = history.get(user, 0) + 1
    for item in range(25):
        mine = [(age, position) for other, age, position in rows if other == item]
        ages = [age for age, _ in mine]
        expected = [sum(0.5 ** (age / (share * 500)) for age in ages) for share in HALF_LIVES]
        expected += [len(ages), max(ages, default=0) / (SHORTEST * 500), min(ages, default=now) / (SHORTEST * 500)]
        for share in EARLY_HALF_LIVES:
            expected.append(sum(0.5 ** (age / (share * 500)) for age, position in mine if position < EARLY))
        np.testing.assert_allclose(found[item], np.log1p(expected), rtol=1e-5)


def test_pairs_of_the_same_time_share_their_place_and_are_not_separated():
    data = training([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1.0, 2.0, 2.0, 2.0, 9.0], (5, 5))
    log = PairLog.of(data)
    np.testing.assert_array_equal(log.place, [0, 2, 2, 2, 4])
    assert [log.boundary(share) for share in (0.0, 0.2, 0.5, 0.7, 0.9)] == [0, 1, 1, 1, 4]


def test_the_end_of_a_history_is_weighted_by_the_users_later_pairs():
    data = drawn(users=12, items=20, each=6)
    positions = PairLog.of(data).positions()
    rows = np.array([3, 7, -1])
    extra = sparse.csr_matrix((np.ones(1, np.float32), ([2], [4])), (3, 20))
    matrix = (sparse.vstack([data.matrix[rows[:2]], empty(1, 20)]) + extra).tocsr()
    weights = positions.recency(rows, Pairs(matrix.indices, matrix.indptr), 20, 2.0)
    found = sparse.csr_matrix((weights, matrix.indices, matrix.indptr), (3, 20)).toarray()
    for at, user in enumerate((3, 7)):
        mine = np.flatnonzero(data.users == user)
        for pair in mine:
            later = (days_of(data)[mine] > days_of(data)[pair]).sum()
            assert found[at, data.items[pair]] == pytest.approx(0.5 ** (later / 2.0))
    assert found[2, 4] == 1.0  # a pair of a request is the newest


def test_lifts_are_their_definition():
    kinds = ["x", "y", None, "x"] * 30
    numbers = [None, 1.0, 2.0, float("nan")] * 30
    table = pa.table(
        {
            "user_id": [str(n) for n in range(120)],
            "categorical.kind": pa.array(kinds),
            "categorical.list": pa.array([["p", "q"], ["p"], [], None] * 30),
            "continuous.number": pa.array(numbers, pa.float64()),
            "text.name": pa.array(["same"] * 120),
            "categorical.rare": pa.array([str(n) for n in range(120)]),
        }
    )
    data = drawn(users=120, items=9, each=4)
    features = UserFeatures.of(table, 120)
    assert features.feature_count == 3  # kind, list, number: each value of `rare` has one user
    items = np.array([1, 4, 8])
    found = features.of_each(np.arange(120), features.lifts(data.matrix, items))
    dense = data.matrix.toarray()
    has = np.array([kind is not None for kind in kinds])
    for at, item in enumerate(items):
        for kind in ("x", "y"):
            mine = np.array([other == kind for other in kinds])
            share = dense[mine].sum() / dense[has].sum()
            expected = dense[has][:, item].sum() * share
            lift = np.log((dense[mine][:, item].sum() + PRIOR_PAIRS) / (expected + PRIOR_PAIRS))
            np.testing.assert_allclose(found[mine, at, 0], lift, rtol=1e-4)
        assert (found[~has, at, 0] == 0).all()
    assert (found[3::4, :, 1:] == 0).all()  # neither a list nor a number


def test_users_without_features_have_no_lifts():
    for table in (None, pa.table({"user_id": ["a"] * 8})):
        features = UserFeatures.of(table, 8)
        assert features.feature_count == 0 and features.values.shape == (8, 0)
        assert features.of_each(np.arange(3), np.zeros((0, 5), np.float32)).shape == (3, 5, 0)


# the model


def test_new_users_get_the_present_popularity():
    model = fitted(drawn(chances=fashion))
    found = model.score(np.array([-1]), empty(1))[0]
    assert set(np.argsort(-found)[:5]) <= set(range(48, 60))  # fashionable at day 300


def test_users_with_a_feature_get_what_such_users_choose():
    kinds = np.arange(USERS) % 3
    table = pa.table({"user_id": [str(n) for n in range(USERS)], "categorical.kind": [f"k{kind}" for kind in kinds]})
    model = fitted(drawn(chances=lambda user: 0.2 + 2.0 * (np.arange(ITEMS) % 3 == user % 3), table=table))
    found = model.score(np.arange(3), empty(3))
    for user in range(3):
        assert (np.argsort(-found[user])[:10] % 3 == user).all()
    assert np.ptp(found - found[:1]) > 0
    unknown = model.score(np.array([-1]), empty(1))
    assert np.isfinite(unknown).all() and np.ptp(unknown) < np.ptp(found)


def test_users_with_a_history_get_items_that_are_chosen_with_it():
    def taste(user):
        return 0.05 + 2.0 * (np.arange(ITEMS) % 3 == user % 3)

    data = drawn(users=400, chances=taste, span=200.0)
    found = scores(fitted(data), data, rows=range(300, 400)) - 100 * data.matrix[300:].toarray()
    top = np.argsort(-found, axis=1)[:, :5]
    assert (top % 3 == np.arange(300, 400)[:, None] % 3).mean() > 0.9


def test_the_order_within_a_history_counts():
    data = drawn(seed=1, chances=fashion, span=100.0)
    model = fitted(data)
    backwards = training(data.users, data.items, days_of(data)[::-1], data.matrix.shape)
    assert not np.allclose(scores(model, data), scores(fitted(backwards), data))


@given(scale=st.sampled_from([1e-6, 0.5, 1000.0]), shift=st.sampled_from([0.0, 12345.0]))
@settings(max_examples=6, deadline=None)
def test_the_unit_and_the_origin_of_time_do_not_matter(scale, shift):
    data = drawn(users=60, items=20, each=6)
    other = data._replace(days=days_of(data) * scale + shift)
    np.testing.assert_allclose(scores(fitted(other), other), scores(fitted(data), data), atol=1e-4)


@pytest.mark.parametrize("days", [None, np.zeros])
def test_without_an_order_in_time_it_is_popularity(days):
    data = drawn(users=50, items=20, each=5)
    data = data._replace(days=None if days is None else days(len(data.items)))
    found = fitted(data).score(np.array([-1, -1]), empty(2, 20))
    counts = np.asarray(data.matrix.sum(0)).ravel()
    assert (np.diff(counts[np.argsort(-found[0], kind="stable")]) <= 0).all()


@pytest.mark.parametrize("pairs", [[], [(0, 0)], [(0, 0), (1, 1)]])
def test_little_data_are_enough(pairs):
    users, items = ([pair[side] for pair in pairs] for side in (0, 1))
    data = training(users, items, range(len(pairs)), (3, 4))
    found = scores(fitted(data), data)
    assert found.shape == (3, 4) and np.isfinite(found).all()


def test_all_other_items_rank_below_the_candidates_by_recent_popularity(monkeypatch):
    monkeypatch.setattr("anyrec.interaction.trending.CANDIDATES", 5)
    data = drawn(chances=fashion)
    model = fitted(data)
    found = scores(model, data)
    chosen = np.isin(np.arange(ITEMS), model.candidates)
    assert 5 <= chosen.sum() < 25
    assert (found[:, chosen].min(1) > found[:, ~chosen].max(1)).all()
    recent = PairLog.of(data).item_features(len(data.items))[:, 3]
    order = np.argsort(-found[0], kind="stable")
    assert (np.diff(recent[order[~chosen[order]]]) <= 1e-6).all()


def test_the_same_data_give_the_same_model():
    first, second = (fitted(drawn(chances=fashion)).state() for _ in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_its_state_restores_it_and_a_damaged_state_is_refused():
    table = pa.table({"user_id": ["a"] * USERS, "categorical.kind": ["x", "y", "z"] * (USERS // 3)})
    data = drawn(chances=fashion, table=table)
    model, again = fitted(data), Trending()
    again.restore(model.state())
    np.testing.assert_array_equal(scores(again, data), scores(model, data))
    for name in ("popular", "similarity", "lifts", "lift_weights", "history_weights", "pair_keys", "value_features"):
        with pytest.raises(ValueError):
            Trending().restore({**model.state(), name: model.state()[name][:1]})
    with pytest.raises(ValueError):
        Trending().restore({**model.state(), "value_columns": model.state()["value_columns"] + 7})


@pytest.mark.parametrize("options", [{"penalty": 1e6}, {"l2": 1e6, "history_half_life": 1.0}])
def test_its_options_change_the_ranking(options):
    data = drawn(chances=fashion, span=100.0)
    assert not np.allclose(scores(fitted(data, **options), data), scores(fitted(data), data), atol=1e-3)
