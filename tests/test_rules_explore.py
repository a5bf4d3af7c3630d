"""Bandit slots: the drawn items and their logged propensities."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from asked import ask, make, ranked, same_items
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anyrec.core.errors import ConfigError
from anyrec.pipeline.draws import DAY, seed_of, uniform
from anyrec.pipeline.rules.explore import chance_of_highest

STATE = [
    {"item_id": "i0", "impressions": 1000, "clicks": 40},
    {"item_id": "i1", "impressions": 10, "clicks": 1},
    {"item_id": "i2", "impressions": 5, "clicks": 0},
    {"item_id": "gone", "impressions": 5, "clicks": 5},
]
ROUNDS = 8_000


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(STATE))
    return str(path)


def played(rule, seed=0, rounds=ROUNDS, items=4, k=4):
    """Many users with the same list: the lists, and what was logged."""
    request = ask(
        {"item_id": [f"i{n}" for n in range(items)]}, {"user_id": [f"u{n}" for n in range(rounds)]}, seed=seed
    )
    before = ranked(np.tile(np.arange(items, 0, -1.0), (rounds, 1)))
    after = rule.apply(request, before, k)
    assert same_items(before, after)
    return after, request.logged


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0.3, "pool": 3}, {"method": "thompson", "prior_misses": 10}, {"method": "thompson", "state": True}],
)
def test_a_logged_propensity_is_the_frequency_of_the_drawn_item(options, state):
    options = {**options, "state": state} if "state" in options else options
    after, (first, second) = played(make("explore", positions=[1, 3], **options))
    for logged, place in ((first, 0), (second, 2)):
        assert logged.name == "propensity" and (after.items[logged.users, place] == logged.items).all()
    assert len(np.unique(first.values.round(12))) >= 2 or options == {"method": "thompson", "prior_misses": 10}
    for item in range(4):
        drawn = first.items == item
        if drawn.any():
            chance = first.values[drawn]
            assert np.ptp(chance) < 1e-12
            assert abs(drawn.mean() - chance[0]) < 5 * np.sqrt(chance[0] * (1 - chance[0]) / ROUNDS) + 1e-9
    # propensities of the second slot are conditional on the first: inverse weights count each candidate once
    weights = 1 / second.values
    assert abs(weights.mean() - len_of_pool(options, 2)) < 0.1


def len_of_pool(options, left):
    """E[1 / propensity] is how many can be drawn: those of the pool."""
    return min(options.get("pool", 20), left)


def test_draws_depend_on_the_seed_only():
    rule = make("explore", positions=[2], epsilon=0.5)
    one, _ = played(rule, 1, 100)
    assert (played(rule, 1, 100)[0].items == one.items).all() and (played(rule, 2, 100)[0].items != one.items).any()


@pytest.mark.parametrize("ids", [["u0", "", "u1", "ü"], [-1, 0, 1, 2**40]])
def test_the_numbers_of_a_user_do_not_depend_on_the_other_users(ids):
    everyone = uniform(7, pa.array(ids), 1, 3)
    for n, one in enumerate(ids):
        assert (uniform(7, pa.array(ids)[n : n + 1], 1, 3) == everyone[n]).all()
        assert (uniform(7, pa.array([one]), 1, 2) == everyone[n, :2]).all()
    others = np.concatenate([everyone, uniform(8, pa.array(ids), 1, 3), uniform(7, pa.array(ids), 2, 3)])
    assert len(np.unique(others)) == others.size


@pytest.mark.parametrize("ids", [np.arange(50_000), np.arange(50_000).astype(str)])
def test_the_numbers_of_similar_users_are_uniform_and_independent(ids):
    found = uniform(3, pa.array(ids), 1, 2)
    counts = np.histogram2d(*found.T, bins=10, range=[[0, 1]] * 2)[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    next_user = np.histogram2d(found[1:, 0], found[:-1, 0], bins=10, range=[[0, 1]] * 2)[0]
    assert stats.chisquare(next_user.ravel()).pvalue > 1e-3


def test_draws_are_the_same_all_day_unless_the_time_is_given():
    assert seed_of(0, None, 5) == seed_of(0, None, DAY - 1) != seed_of(0, None, DAY)
    assert len({seed_of(0, None, 0), seed_of(1, None, 0), seed_of(0, 0, 0), seed_of(0, 1, 0), seed_of(0, -1, 0)}) == 5


def test_with_epsilon_0_nothing_moves_and_the_propensity_is_1():
    after, (logged,) = played(make("explore", positions=[1], epsilon=0), rounds=10)
    assert (after.items == np.arange(4)).all() and (logged.values == 1).all()


def test_slots_past_the_list_or_past_k_draw_nothing():
    assert played(make("explore", positions=[5, 9], epsilon=1), rounds=3)[1] == []
    assert played(make("explore", positions=[3], epsilon=1), rounds=3, k=2)[1] == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 500), st.floats(0.5, 5000)), min_size=2, max_size=20))
def test_the_propensities_of_a_pool_add_up_to_1(rates):
    a, b = (np.tile(values, (len(rates), 1)) for values in np.array(rates).T)
    found = chance_of_highest(a, b, np.ones(a.shape, bool), np.arange(len(rates)))
    assert (found > 0).all() and found.sum() == pytest.approx(1, abs=2e-3)


def test_the_state_is_read_from_json_or_parquet_and_items_it_does_not_name_start_from_the_prior(state, tmp_path):
    path = tmp_path / "state.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(STATE), path)
    ids = {"item_id": ["i0", "i1", "i2", "i3"]}
    for name in (state, str(path)):
        a, b = make("explore", method="thompson", positions=[1], state=name, prior_misses=9)._rates(ask(ids))
        assert a.tolist() == [41, 2, 1, 1] and b.tolist() == [969, 18, 14, 9]


@pytest.mark.parametrize(
    "rows, said",
    [
        ([{"item_id": "i0", "impressions": 1, "clicks": 2}], "1 rows differ, the first is row 0"),
        ([{"item_id": "i0", "clicks": 2}], "it has no column 'impressions'"),
        ([{"item_id": "i0", "impressions": "many", "clicks": 2}], "not all values of 'impressions' are numbers"),
        ([{"impressions": 1}], "no column item_id"),
        ({"a": 1}, "expected a list"),
    ],
)
def test_an_invalid_state_is_refused(rows, said, tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=said):
        make("explore", method="thompson", positions=[1], state=str(path)).check(ask({"item_id": ["i0"]}).model)
