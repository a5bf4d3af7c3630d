"""Sorting gives what numpy's slower functions give."""

import numpy as np
import pyarrow as pa
import pytest

from anyrec.data import sorting
from anyrec.data.dataset import Dataset
from anyrec.data.histories import add_history
from anyrec.data.order import has_clock, latest_of_pairs, time_order
from anyrec.data.pairs import Pairs
from anyrec.data.sorting import blocks_of_groups, distinct, order_by, order_of_groups
from anyrec.data.tables import COMPUTED


@pytest.mark.parametrize("groups", [1, 3, 1000, 70_000])
@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_order_by_is_lexsort(rows, groups, monkeypatch):
    monkeypatch.setattr(sorting, "BLOCK", 100)
    rng = np.random.default_rng(rows + groups)
    users, times = rng.integers(-1, groups, rows), rng.integers(-50, 50, rows)
    assert (order_by(users, times) == np.lexsort((times, users))).all()
    assert (order_of_groups(users) == np.argsort(users, kind="stable")).all()
    assert (order_by(users, np.arange(rows)) == np.argsort(users, kind="stable")).all()


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_blocks_hold_whole_groups_and_all_rows(size):
    groups = np.random.default_rng(0).integers(-1, 40, 500)
    ordered = np.sort(groups)
    blocks = list(blocks_of_groups(groups, size))
    assert [at for block in blocks for at in range(block.start, block.stop)] == list(range(500))
    assert all(ordered[block.stop - 1] < ordered[block.stop] for block in blocks[:-1])
    assert all(block.stop - block.start >= size for block in blocks[:-1])


def test_distinct_is_unique():
    for numbers in (np.array([3, -1, 3, 2, 2]), np.empty(0, np.int64)):
        assert (distinct(numbers) == np.unique(numbers)).all()


def test_pairs_by_part_are_those_of_numpy():
    rng = np.random.default_rng(1)
    users, items, parts = rng.integers(0, 20, 400), rng.integers(0, 9, 400), rng.integers(0, 4, 400).astype(np.int8)
    pairs, masks = Pairs.by_part(users, items, parts, 25)
    keys, place = np.unique(users << 32 | items, return_inverse=True)
    wanted = np.zeros(len(keys), np.uint8)
    np.bitwise_or.at(wanted, place, (1 << parts).astype(np.uint8))
    assert (pairs.keys() == keys).all() and (masks == wanted).all() and masks.dtype == np.uint8
    assert (Pairs.of(users, items, 25).keys() == keys).all()
    assert len(Pairs.by_part(*(np.empty(0, np.int64),) * 3, 2)[1]) == 0


@pytest.mark.parametrize("rows", [[], [4, 2], range(0, 300, 2), range(300)])
def test_the_order_of_some_rows_is_part_of_the_whole_order(log, rows):
    chosen = np.array(rows, np.int64)
    wanted = np.sort(chosen)
    wanted = wanted[np.lexsort((log.times[wanted], log.user_rows[wanted]))]
    assert (time_order(log, chosen) == wanted).all()
    last = {(log.user_rows[row], log.item_rows[row]): row for row in wanted}
    assert latest_of_pairs(log, chosen).tolist() == sorted(last.values())


def test_sorted_tables_and_other_features_keep_what_was_computed(log):
    before = {name: getattr(log, name) for name in COMPUTED}
    made = log.sorted()
    fresh = Dataset(made.users, made.items, made.interactions)
    assert (made.ids("user").to_pylist(), "user_rows" in vars(made)) == (sorted(log.ids("user").to_pylist()), True)
    for name in before:
        assert (getattr(made, name) == getattr(fresh, name)).all(), name
    again = made.with_features(users=add_history(made.users, made.ids("user"), ["text.name"]))
    assert again.features("user") == ["text.name"] and again.items is made.items
    assert all(vars(again)[name] is vars(made)[name] for name in COMPUTED)


def test_times_that_count_from_each_users_start_are_no_clock(log):
    assert has_clock(log)
    first = np.full(len(log.users), np.iinfo(np.int64).max)
    np.minimum.at(first, log.user_rows, log.times)
    since = log.interactions.set_column(2, "timestamp", [log.times - first[log.user_rows]])
    counted = Dataset(log.users, log.items, since.cast(log.interactions.schema))
    assert not has_clock(counted)


@pytest.fixture
def log():
    """300 interactions of 40 users and 9 items, whose records are in no order of their ids; many times coincide."""
    rng = np.random.default_rng(2)
    users, items = rng.permutation(40), rng.permutation(9)
    return Dataset.from_tables(
        pa.table({"user_id": users}),
        pa.table({"item_id": [f"i{item}" for item in items]}),
        pa.table(
            {
                "user_id": rng.integers(0, 40, 300),
                "item_id": [f"i{item}" for item in rng.integers(0, 9, 300)],
                "timestamp": pa.array(rng.integers(0, 40, 300) * 1_000_000, pa.timestamp("us", "UTC")),
            }
        ),
    )
