"""Splits: the parts that they hold out, and that the order of the file's rows does not decide them."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.core.config import DataConfig, SplitConfig
from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions, training_weights
from anyrec.data.leaks import drop_leaks, leak_share
from anyrec.data.split import save_split, split_interactions


def dataset(users, items, times=None, **columns):
    table = {"user_id": pa.array(users), "item_id": pa.array(items), **columns}
    if times is not None:
        start = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
        table["timestamp"] = pa.array([start + dt.timedelta(days=t) for t in times], pa.timestamp("us", "UTC"))
    return Dataset(
        pa.table({"user_id": sorted(set(users))}), pa.table({"item_id": sorted(set(items))}), pa.table(table)
    )


def test_leave_last_out_tests_the_last_and_validates_the_one_before():
    data = dataset(["a", "a", "a", "b", "b", "c"], list("xyzxyz"), [3, 1, 2, 9, 8, 1])
    split, _ = split_interactions(data, SplitConfig(protocol="leave_last_out"), 0)
    assert split.test.tolist() == [0, 3]
    assert split.validation.tolist() == [2]
    assert split.train.tolist() == [1, 4, 5]


def test_ties_in_time_keep_the_order_of_the_file():
    data = dataset(["a"] * 3, list("xyz"), [1, 1, 1])
    split, _ = split_interactions(data, SplitConfig(protocol="leave_last_out"), 0)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0], [1], [2])


def test_without_timestamps_leave_last_out_is_skipped_with_a_warning():
    split, notes = split_interactions(dataset(["a"] * 5, list("vwxyz")), SplitConfig(protocol="leave_last_out"), 0)
    assert split.protocol == "random"
    assert "no interaction has a timestamp" in notes[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_a_split_covers_every_interaction_once_and_leaves_each_user_one_to_train_on(seed):
    rng = np.random.default_rng(seed)
    data = dataset(
        [f"u{u}" for u in rng.integers(0, 12, 80)],
        [f"i{i}" for i in rng.integers(0, 9, 80)],
        rng.integers(0, 20, 80).tolist(),
    )
    for protocol in ("leave_last_out", "random", "none"):
        split, _ = split_interactions(data, SplitConfig(protocol=protocol), seed)
        assert sorted([*split.train, *split.validation, *split.test]) == list(range(80))
        assert set(data.user_rows[split.train]) == set(data.user_rows)


def many(seed, users=30, items=12, rows=400):
    rng = np.random.default_rng(seed)
    return dataset(
        [f"u{u:02}" for u in rng.integers(0, users, rows)],
        [f"i{i:02}" for i in rng.integers(0, items, rows)],
        rng.integers(0, 300, rows).tolist(),
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_split_by_time_trains_on_nothing_later_than_its_test(seed):
    data = many(seed)
    split, _ = split_interactions(data, SplitConfig(protocol="global_time"), seed)
    times = data.column("timestamp").cast(pa.int64()).to_numpy()
    assert times[split.train].max() < times[split.validation].min()
    assert times[split.validation].max() < times[split.test].min()
    assert len(split.train) + len(split.validation) + len(split.test) == 400
    assert len(split.test) >= 40  # a tenth, and what shares the moment of the cut


def test_clock_times_make_the_split_global_and_counts_from_one_date_do_not():
    assert split_interactions(many(0), SplitConfig(), 0)[0].protocol == "global_time"
    own = dataset(["a", "a", "b", "b", "c", "c"], list("xyxyxy"), [0, 1, 0, 1, 0, 1])
    split, notes = split_interactions(own, SplitConfig(), 0)
    assert split.protocol == "leave_last_out" and "only order each user's own" in notes[0]
    split, notes = split_interactions(own, SplitConfig(protocol="global_time"), 0)
    assert split.protocol == "leave_last_out" and "do not compare between users" in notes[0]


def test_an_explicit_negative_after_the_cut_is_in_no_part():
    times = list(range(20))
    data = dataset(["a", "b"] * 10, list("wxyz") * 5, times, label=pa.array([1] * 19 + [0], pa.int8()))
    labels = label_interactions(data, DataConfig())
    split, _ = split_interactions(data, SplitConfig(protocol="global_time"), 0, labels.positive)
    assert 19 not in [*split.train, *split.validation, *split.test]


@pytest.mark.parametrize("protocol", ["cold_users", "cold_items"])
def test_cold_users_and_items_are_never_trained_on(protocol):
    data = many(1)
    split, _ = split_interactions(data, SplitConfig(protocol=protocol, test=0.2), 3)
    rows = data.user_rows if protocol == "cold_users" else data.item_rows
    assert len(split.test) and len(split.validation)
    assert not set(rows[split.train]) & set(rows[split.test])
    assert not set(rows[split.train]) & set(rows[split.validation])
    assert not set(rows[split.validation]) & set(rows[split.test])


def test_leave_last_n_tests_the_last_n():
    data = dataset(["a"] * 6 + ["b"] * 2, list("uvwxyzuv"), [1, 2, 3, 4, 5, 6, 1, 2])
    split, _ = split_interactions(data, SplitConfig(protocol="leave_last_n", last_n=2), 0)
    assert split.test.tolist() == [4, 5] and split.validation.tolist() == [2, 3]
    assert split.train.tolist() == [0, 1, 6, 7]


def test_a_split_by_user_over_clock_times_warns_of_learning_from_the_future():
    data = dataset(["a"] * 9 + ["b"] * 9 + ["c"] * 9, list("uvwxyzrst") * 3, list(range(27)))
    _, notes = split_interactions(data, SplitConfig(protocol="leave_last_out"), 0)
    assert any("learns from the future" in note for note in notes)
    _, notes = split_interactions(data, SplitConfig(protocol="global_time"), 0)
    assert not any("future" in note for note in notes)


def test_a_saved_split_can_be_read_and_is_refused_with_other_data(tmp_path):
    data = many(0)
    split, _ = split_interactions(data, SplitConfig(), 0)
    save_split(split, data, tmp_path)
    again, _ = split_interactions(data, SplitConfig(file=str(tmp_path / "split.parquet")), 99)
    assert again.name == split.name
    with pytest.raises(DataError, match="another data set"):
        split_interactions(many(1), SplitConfig(file=str(tmp_path / "split.parquet")), 0)


def test_the_random_split_does_not_depend_on_the_order_of_the_file():
    rng = np.random.default_rng(0)
    users, items = [f"u{u}" for u in rng.integers(0, 9, 60)], [f"i{i}" for i in range(60)]
    order = rng.permutation(60)
    one = dataset(users, items)
    two = dataset([users[i] for i in order], [items[i] for i in order])
    config = SplitConfig(protocol="random")
    first, second = split_interactions(one, config, 7)[0], split_interactions(two, config, 7)[0]
    assert {items[row] for row in first.test} == {items[order[row]] for row in second.test}


def test_only_positives_are_held_out():
    data = dataset(["a"] * 4, list("wxyz"), [1, 2, 3, 4], label=pa.array([1, 1, 1, 0], pa.int8()))
    labels = label_interactions(data, DataConfig())
    split, _ = split_interactions(data, SplitConfig(protocol="leave_last_out"), 0, labels.positive)
    assert split.test.tolist() == [2]
    assert 3 in split.train


@pytest.mark.parametrize(
    ("options", "positive", "negative", "weight"),
    [
        ({}, [1, 1, 0, 1], [0, 0, 1, 0], [1, 2, 0, 1]),
        ({"min_rating": 3.0}, [0, 1, 0, 1], [1, 0, 1, 0], [0, 2, 0, 1]),
        ({"positive_types": {"buy": 2.0}}, [1, 0, 0, 1], [0, 0, 1, 0], [2, 0, 0, 1]),
    ],
)
def test_labels_ratings_and_types_decide_in_that_order(options, positive, negative, weight):
    data = dataset(
        list("aaaa"),
        list("wxyz"),
        interaction_type=pa.array(["buy", "view", "buy", None]),
        rating=pa.array([1.0, 5.0, 5.0, 1.0]),
        label=pa.array([None, None, 0, 1], pa.int8()),
        weight=pa.array([1.0, 2.0, 1.0, None]),
    )
    labels = label_interactions(data, DataConfig(**options))
    assert labels.positive.tolist() == [bool(p) for p in positive]
    assert labels.negative.tolist() == [bool(n) for n in negative]
    assert labels.weight.tolist() == weight


def test_an_older_positive_weighs_half_after_its_half_life():
    data, config = dataset(list("aa"), list("xy"), [0, 10]), DataConfig(half_life_days=10)
    labels = training_weights(label_interactions(data, config), data, np.arange(2), config, [])
    assert (labels.weight / labels.weight.max()).tolist() == [0.5, 1.0]


def test_a_list_that_holds_the_held_out_items_is_dropped_with_its_share():
    data = dataset(["a"] * 3 + ["b"] * 3, list("xyzyzx"), [1, 2, 3, 1, 2, 3])
    data.users = data.users.append_column("temporal.liked", pa.array([list("xyz"), list("zy")]))
    data.users = data.users.append_column("temporal.before", pa.array([["x"], ["y"]]))
    split, _ = split_interactions(data, SplitConfig(protocol="leave_last_out"), 0)
    held_out = np.concatenate([split.validation, split.test])
    assert leak_share(data, "user", "item", "temporal.liked", held_out) == 0.75
    mended, warnings = drop_leaks(data, split, DataConfig())
    assert "temporal.liked" not in mended.users.column_names
    assert "temporal.before" in mended.users.column_names
    assert "75%" in warnings[0]
    kept, warnings = drop_leaks(data, split, DataConfig(drop_leaks=False))
    assert "temporal.liked" in kept.users.column_names
    assert warnings


def test_a_text_that_names_the_held_out_item_is_a_leak():
    data = dataset(["a"] * 3, ["film-x", "film-y", "film-z"], [1, 2, 3])
    data.users = data.users.append_column("text.bio", pa.array(["I adored FILM-Z and film-y"]))
    split, _ = split_interactions(data, SplitConfig(), 0)
    _, warnings = drop_leaks(data, split, DataConfig())
    assert "text.bio" in warnings[0] and "100%" in warnings[0]
