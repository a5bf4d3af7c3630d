"""The cold-start protocols of the benchmarks: training data, histories, and the rank of the target."""

import datetime as dt
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.data.dataset import Dataset
from anyrec.data.order import time_order

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from cold_protocols import HISTORY_LENGTH, ColdCase, best_items, cold_items, cold_users, history_matrix, score

START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
FOLDS = ["validation", "test"]


@st.composite
def datasets(draw):
    """Draw a dataset with unordered ids, equal times, repeated pairs, and users and items without interactions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    users, items, rows = draw(st.integers(10, 30)), draw(st.integers(10, 40)), draw(st.integers(50, 400))
    user_ids, item_ids = rng.permutation(users), rng.permutation(items)
    times = [START + dt.timedelta(minutes=int(minute)) for minute in rng.integers(0, 50, rows)]
    return Dataset(
        pa.table({"user_id": user_ids}),
        pa.table({"item_id": item_ids}),
        pa.table(
            {
                "user_id": user_ids[rng.integers(0, users - 2, rows)],
                "item_id": item_ids[rng.integers(0, items - 2, rows)],
                "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            }
        ),
    )


def sequences(dataset):
    """Return each user's item rows in time order."""
    order = time_order(dataset)
    users, items = dataset.user_rows[order], dataset.item_rows[order]
    return {user: items[users == user].tolist() for user in np.unique(users).tolist()}


def history_of(case, place):
    return case.history[case.offsets[place] : case.offsets[place + 1]].tolist()


@settings(max_examples=40, deadline=None)
@given(datasets(), st.sampled_from(FOLDS))
def test_held_out_items_are_in_no_training_data_and_no_history(dataset, fold):
    case = cold_items(dataset, 0, fold)
    test_items = cold_items(dataset, 0, "test").candidates
    removed = np.union1d(case.candidates, test_items)
    assert not np.isin(dataset.item_rows[case.train], removed).any()
    assert not np.isin(case.history, removed).any()
    assert len(case.train) == (~np.isin(dataset.item_rows, removed)).sum()


@settings(max_examples=40, deadline=None)
@given(datasets(), st.sampled_from(FOLDS))
def test_the_target_is_the_latest_held_out_item_and_the_history_precedes_it(dataset, fold):
    case = cold_items(dataset, 0, fold)
    removed = set(np.union1d(case.candidates, cold_items(dataset, 0, "test").candidates).tolist())
    cold = set(case.candidates.tolist())
    expected = {}
    for user, items in sequences(dataset).items():
        places = [place for place, item in enumerate(items) if item in cold]
        if places:
            expected[user] = (items[places[-1]], [item for item in items[: places[-1]] if item not in removed])
    found = {int(user): (case.targets[i], history_of(case, i)) for i, user in enumerate(case.users)}
    assert found == expected


@settings(max_examples=40, deadline=None)
@given(datasets(), st.sampled_from(FOLDS))
def test_cold_users_are_not_trained_on_and_their_sixth_item_is_the_target(dataset, fold):
    case = cold_users(dataset, 0, fold)
    everyone = sequences(dataset)
    assert not np.isin(dataset.user_rows[case.train], case.users).any()
    assert case.candidates.tolist() == sorted({item for items in everyone.values() for item in items})
    for place, user in enumerate(case.users.tolist()):
        assert history_of(case, place) == everyone[user][:HISTORY_LENGTH]
        assert case.targets[place] == everyone[user][HISTORY_LENGTH]


@settings(max_examples=20, deadline=None)
@given(datasets(), st.sampled_from([cold_items, cold_users]))
def test_validation_and_test_share_no_user_or_item_and_validation_trains_on_neither(dataset, protocol):
    validation, test = protocol(dataset, 3, "validation"), protocol(dataset, 3, "test")
    if protocol is cold_items:
        assert not np.isin(validation.candidates, test.candidates).any()
    else:
        assert not np.isin(validation.users, test.users).any()
        assert not np.isin(dataset.user_rows[validation.train], test.users).any()
    assert not np.isin(validation.train, np.setdiff1d(np.arange(len(dataset.interactions)), test.train)).any()


@pytest.mark.parametrize("protocol", [cold_items, cold_users])
@settings(max_examples=20, deadline=None)
@given(dataset=datasets())
def test_held_out_rows_depend_on_the_seed_and_not_on_the_order_of_records(protocol, dataset):
    again = dataset.sorted()
    first, second = protocol(dataset, 1, "test"), protocol(again, 1, "test")
    assert first.train.tolist() == second.train.tolist()
    ids = [
        set(data.ids("item").take(pa.array(case.candidates)).to_pylist())
        for data, case in ((dataset, first), (again, second))
    ]
    assert ids[0] == ids[1]


def hand_made():
    """Return a case of two users and the items 2, 4, 5 and 7. Only the first user has a history."""
    return ColdCase(
        train=np.empty(0, np.int64),
        users=np.array([0, 1]),
        history=np.array([1, 5]),
        offsets=np.array([0, 2, 2]),
        targets=np.array([4, 7]),
        candidates=np.array([2, 4, 5, 7]),
    )


def test_a_tie_counts_half_a_place_and_the_history_is_not_ranked():
    table = np.array([[1.0, 1.0, 9.0, 0.0], [3.0, 2.0, 2.0, 2.0]])
    figures = score(hand_made(), lambda batch: table[batch], k=2)
    assert figures["rank"].tolist() == [1.5, 3.0]
    assert figures["ndcg@2"] == pytest.approx([1 / np.log2(2.5), 0.0])
    assert figures["recall@2"].tolist() == [1.0, 0.0]


def test_a_score_that_is_not_a_number_ranks_last():
    table = np.array([[0.0, np.nan, 9.0, -5.0], [0.0, 0.0, np.nan, 1.0]])
    assert score(hand_made(), lambda batch: table[batch])["rank"].tolist() == [3.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(datasets(), st.sampled_from([cold_items, cold_users]), st.integers(1, 7))
def test_ranks_are_those_of_a_plain_loop_for_every_batch_size(dataset, protocol, batch_size):
    case = protocol(dataset, 0, "test")
    table = np.random.default_rng(0).integers(0, 5, (len(case.users), len(case.candidates))).astype(np.float32)
    expected = []
    for place, target in enumerate(case.targets):
        out = set(history_of(case, place)) - {target}
        row = {
            item: value for item, value in zip(case.candidates.tolist(), table[place], strict=True) if item not in out
        }
        own = row.pop(target)
        values = np.array(list(row.values()))
        expected.append(1 + (values > own).sum() + (values == own).sum() / 2)
    assert score(case, lambda batch: table[batch], batch_size=batch_size)["rank"].tolist() == expected


@settings(max_examples=30, deadline=None)
@given(datasets(), st.sampled_from([cold_items, cold_users]), st.integers(1, 7))
def test_lists_hold_the_target_at_its_rank_and_no_item_of_the_history(dataset, protocol, batch_size):
    case = protocol(dataset, 0, "test")
    rng = np.random.default_rng(0)
    table = rng.permuted(np.tile(np.arange(len(case.candidates)), (len(case.users), 1)), axis=1)
    lists = best_items(case, lambda batch: table[batch], 5, batch_size)
    ranks = score(case, lambda batch: table[batch])["rank"]
    for place, target in enumerate(case.targets):
        listed = lists[place][lists[place] >= 0].tolist()
        assert len(listed) == min(5, len(set(case.candidates) - set(history_of(case, place)) | {target}))
        assert not set(listed) & (set(history_of(case, place)) - {target})
        assert (listed.index(target) + 1 if target in listed else 6) == min(ranks[place], 6)


def test_the_last_items_of_the_history_are_counted_from_the_end():
    case = ColdCase(
        *[np.empty(0)] * 1, np.array([0, 1]), np.array([3, 1, 2, 0]), np.array([0, 3, 4]), *[np.empty(0)] * 2
    )
    assert history_matrix(case, 4, last=2).toarray().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    assert history_matrix(case, 4).toarray().tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]
