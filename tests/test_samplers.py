"""Negatives: never an item that the user has, drawn with the declared probabilities, in the requested number."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anyrec.core.discovery import discover
from anyrec.data import positives as module
from anyrec.data.positives import Positives
from anyrec.training.loop import Batches

REGISTRY = discover()
NAMES = REGISTRY.names("sampler")


def world(seed, users=9, items=12, dense=True):
    """Users who have between none and all of the items.

    Returns the items of each user, (users, items) which pairs these are, and which of them are positives.
    """
    rng = np.random.default_rng(seed)
    share = rng.choice([0.0, 0.2, 0.8, 0.95, 1.0], users)
    has = rng.random((users, items)) < share[:, None]
    liked = has & (rng.random((users, items)) < rng.choice([0.3, 1.0]))
    others = has & (~liked | (rng.random((users, items)) < 0.2))  # a pair can be both
    before = module.TABLE_BYTES
    module.TABLE_BYTES = before if dense else 0
    try:
        return Positives(*pairs(liked), users, items, pairs(others)), has, liked
    finally:
        module.TABLE_BYTES = before


def pairs(table):
    return tuple(torch.from_numpy(part) for part in np.nonzero(table))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_membership_is_correct_by_table_and_by_search(seed, dense):
    positives, has, liked = world(seed, dense=dense)
    users, items = torch.arange(9), torch.arange(12)
    assert torch.equal(positives.contains(users, items), torch.from_numpy(has))
    assert positives.popularity.tolist() == positives.repeats.tolist() == liked.sum(0).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 8), max_size=20))
def test_cells_are_filled_at_each_users_items_and_nowhere_else(seed, chosen):
    positives, has, _ = world(seed)
    users = torch.tensor(chosen, dtype=torch.int64)
    cells = positives.fill(users, torch.full((len(chosen), 12), torch.nan), -5.0, 0.0)
    assert torch.equal(cells, torch.from_numpy(np.where(has[chosen].reshape(-1, 12), -5.0, 0.0)).float())
    valid = positives.fill(users, torch.empty(len(chosen), 12, dtype=torch.bool), False, True)
    assert torch.equal(valid, torch.from_numpy(~has[chosen].reshape(-1, 12)))
    some = positives.fill(users, torch.empty(len(chosen), 5, dtype=torch.bool), False, True, first=4)
    assert torch.equal(some, valid[:, 4:9])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hard"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), dense=st.booleans())
def test_no_valid_negative_is_ever_an_item_that_its_user_has(name, seed, dense):
    positives, has, liked = world(seed, dense=dense)
    if not liked.any():
        return
    cls = REGISTRY.get("sampler", name)
    options = {"block": 4} if name in ("in_batch", "mixed") else {}
    sampler = cls(positives, cls.Params(**options))
    rows, columns = np.nonzero(liked)
    chosen = np.random.default_rng(seed).integers(0, len(rows), 16)
    users, items = torch.from_numpy(rows[chosen]), torch.from_numpy(columns[chosen])
    drawn = sampler.sample(users, items, 5, torch.Generator().manual_seed(seed))
    wide = drawn.items.repeat_interleave(16 // drawn.items.shape[0], 0).numpy()
    valid = drawn.valid.numpy()
    assert valid.shape == wide.shape
    assert not (has[rows[chosen]][np.arange(16)[:, None], wide] & valid).any()
    if name in ("uniform", "popularity"):
        assert drawn.items.shape == (16, 5)
        assert (valid.all(1) == ~has[rows[chosen]].all(1)).all()


def test_uniform_negatives_are_uniform_over_the_items_that_the_user_does_not_have():
    positives, has, _ = world(3)
    for user in range(9):
        others = np.flatnonzero(~has[user])
        if len(others) < 2:
            continue
        drawn, _ = positives.draw_outside(torch.full((4000,), user), 5, torch.Generator().manual_seed(user))
        counts = np.bincount(drawn.flatten().numpy(), minlength=12)
        assert counts[has[user]].sum() == 0
        assert stats.chisquare(counts[others]).pvalue > 1e-4


def test_popularity_negatives_are_proportional_to_the_power_of_the_count():
    rng = np.random.default_rng(0)
    items = torch.from_numpy(rng.choice(20, 400, p=np.arange(1, 21) / 210))
    positives = Positives(torch.arange(400), items, 401, 20)
    cls = REGISTRY.get("sampler", "popularity")
    sampler = cls(positives, cls.Params(alpha=0.5))
    fresh = torch.full((3000,), 400)  # a user who has nothing: no draw collides
    counts = np.bincount(
        sampler.sample(fresh, fresh, 4, torch.Generator().manual_seed(1)).items.flatten().numpy(), minlength=20
    )
    expected = (positives.popularity.double() + 1e-3).sqrt().numpy()
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-4


@pytest.mark.parametrize("skew", [1, 40])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform", {}),
        ("popularity", {"alpha": 1.0}),
        ("shared", {"size": 12}),
        ("shared", {"size": 12, "alpha": 0.5}),
        ("in_batch", {"block": 8}),
        ("in_batch", {"block": 2}),
        ("mixed", {"block": 8, "uniform": 4}),
    ],
)
def test_log_q_is_the_log_of_the_mean_number_of_draws_in_batches_of_training(name, options, skew):
    """A Monte Carlo estimate over epochs of shuffled samples, in which some pairs are repeated `skew` times."""
    rng = np.random.default_rng(0)
    users = torch.from_numpy(rng.integers(0, 30, 60))
    items = torch.from_numpy(np.minimum(rng.geometric(0.15, 60) - 1, 11))
    times = torch.from_numpy(rng.choice([1, skew], 60, p=[0.8, 0.2]))
    users, items = users.repeat_interleave(times), items.repeat_interleave(times)
    positives = Positives(users, items, 30, 12)
    cls = REGISTRY.get("sampler", name)
    sampler = cls(positives, cls.Params(**options))
    batches, generator = Batches(len(users), 64, sampler.group_size), torch.Generator().manual_seed(1)
    drawn_as, rows, expected = np.zeros((30, 12)), np.zeros(30), np.zeros((30, 12))
    for _ in range(1200 if skew == 1 else 250):
        for batch in batches.epoch(generator):
            who = users[batch.rows]
            drawn = sampler.sample(who, items[batch.rows], 4, generator)
            wide = drawn.items.repeat_interleave(len(who) // len(drawn.items), 0)
            often = drawn.log_q.repeat_interleave(len(who) // len(drawn.log_q), 0).expand_as(wide).exp()
            owner = who.unsqueeze(1).expand_as(wide)[drawn.valid].numpy()
            places = owner, wide[drawn.valid].numpy()
            np.add.at(drawn_as, places, 1)
            expected[places] = often[drawn.valid].numpy()
            np.add.at(rows, who.numpy(), 1)
    seen = drawn_as > 400
    assert seen.sum() > 30
    ratio = (drawn_as / np.maximum(rows, 1)[:, None])[seen] / expected[seen]
    assert abs(ratio.mean() - 1) < 0.02
    assert np.abs(ratio - 1).max() < 0.3
