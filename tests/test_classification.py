"""Classification: figures against scikit-learn and plain loops; which pairs of a split are measured."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from small import START, small_config, small_dataset

from anyrec.core.config import Component
from anyrec.core.errors import DataError, ModelError
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.evaluation.classification import (
    _random_negatives,
    auc,
    best_threshold,
    classification,
    classify,
    labelled_pairs,
)
from anyrec.recommender import Recommender

ROWS = st.lists(
    st.tuples(st.booleans(), st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))), min_size=1, max_size=60
)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, threshold=st.integers(-3, 3).map(float))
def test_all_metrics_equal_those_of_scikit_learn(rows, threshold):
    labels, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = classification(labels, scores, threshold)
    called = scores >= threshold
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, called), abs=1e-12)
    assert found.precision == pytest.approx(metrics.precision_score(labels, called, zero_division=0), abs=1e-12)
    assert found.recall == pytest.approx(metrics.recall_score(labels, called, zero_division=0), abs=1e-12)
    assert found.f1 == pytest.approx(metrics.f1_score(labels, called, zero_division=0), abs=1e-12)
    matrix = metrics.confusion_matrix(labels, called, labels=[False, True])
    assert [[found.true_negatives, found.false_positives], [found.false_negatives, found.true_positives]] == (
        matrix.tolist()
    )
    if len(set(labels)) == 2:
        assert found.auc == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert found.auc is None
    assert found.as_dict()["support"] == {"positives": int(labels.sum()), "negatives": int((~labels).sum())}


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_the_best_threshold_has_the_best_f1_and_is_the_greatest_of_equal_ones(rows):
    labels, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    by_loop = {score: metrics.f1_score(labels, scores >= score, zero_division=0) for score in set(scores.tolist())}
    best = max(by_loop.values())
    chosen = best_threshold(labels, scores)
    assert by_loop[chosen] == pytest.approx(best, abs=1e-12)
    assert all(f1 < best - 1e-12 for score, f1 in by_loop.items() if score > chosen)


def test_a_nan_score_is_the_lowest_and_no_rows_are_an_error():
    labels = np.array([True, True, False])
    found = classification(labels, np.array([0.5, np.nan, -np.inf]), 0.5)
    assert (found.true_positives, found.false_negatives, found.true_negatives) == (1, 1, 1)
    assert auc(labels, np.array([0.5, np.nan, 0.1])) == 0.5
    assert np.isfinite(best_threshold(np.array([False, True]), np.array([0.1, np.nan])))
    with pytest.raises(DataError, match="nothing to measure"):
        classification(np.empty(0, bool), np.empty(0), 0.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), interacted=st.booleans())
def test_random_negatives_are_items_without_an_interaction_of_the_user(seed, interacted):
    rng = np.random.default_rng(seed)
    had = rng.random((6, 9)) < rng.random((6, 1))
    had[0] = True  # this user had all that there is to draw
    had[:, 8] = not interacted
    dataset = world(had)
    users = rng.integers(0, 6, 500)
    keys = _random_negatives(dataset, users, interacted, rng)
    drawn_users, drawn = keys >> 32, keys & 0xFFFFFFFF
    assert not had[drawn_users, drawn].any()
    occurs = had.any(0) if interacted else np.ones(9, bool)
    assert occurs[drawn].all()
    able = (~had & occurs).any(1)
    assert not able[0]
    assert drawn_users.tolist() == users[able[users]].tolist()


def test_random_negatives_are_drawn_uniformly():
    had = np.zeros((2, 5), bool)
    had[0, [0, 3]] = had[1, 2] = True
    keys = _random_negatives(world(had), np.repeat([0, 1], 9000), False, np.random.default_rng(0))
    counts = np.bincount((keys >> 32) * 5 + (keys & 0xFFFFFFFF), minlength=10).reshape(2, 5) / 9000
    assert counts[0] == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3], abs=0.03)
    assert counts[1] == pytest.approx([1 / 4, 1 / 4, 0, 1 / 4, 1 / 4], abs=0.03)


def world(had):
    """A dataset of just who had what; had: (users, items) bool."""
    users, items = np.nonzero(had)
    tables = pa.table({"user_id": np.arange(len(had))}), pa.table({"item_id": np.arange(had.shape[1])})
    return Dataset(*tables, pa.table({"user_id": users, "item_id": items}))


def clocked(seed=0):
    """The small world with clock times, so that a split by time is possible."""
    dataset, rng = small_dataset(), np.random.default_rng(seed)
    times = [START + dt.timedelta(minutes=int(m)) for m in rng.integers(0, 60 * 24 * 300, len(dataset.interactions))]
    place = dataset.interactions.column_names.index("timestamp")
    column = pa.array(times, pa.timestamp("us", "UTC"))
    return Dataset(
        dataset.users, dataset.items, dataset.interactions.set_column(place, "timestamp", column), roles=dataset.roles
    )


@pytest.fixture(scope="module")
def fitted():
    return Recommender.from_config(small_config()).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def rated():
    config = small_config(data={"min_rating": 3}, split={"protocol": "global_time", "validation": 0.2, "test": 0.2})
    return Recommender.from_config(config).fit(clocked(), progress=False)


def test_without_explicit_negatives_each_positive_gets_a_random_negative(fitted):
    found = classify(fitted.model)
    assert found["negatives"] == found["threshold_negatives"] == "random"
    assert found["threshold_from"] == "validation" and found["notes"] == []
    tested = len(fitted.model.split.test)
    assert found["support"] == {"positives": tested, "negatives": tested}
    pairs = labelled_pairs(fitted.model, "test")
    scores = fitted.score_rows(None, pairs.users, pairs.items)["score"].to_numpy()
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(pairs.labels, scores), abs=1e-12)
    assert classify(fitted.model) == found
    seen = set(zip(fitted.dataset.user_rows, fitted.dataset.item_rows, strict=True))
    chosen = list(zip(pairs.users, pairs.items, strict=True))
    assert not any(pair in seen for pair, label in zip(chosen, pairs.labels, strict=True) if not label)
    other = labelled_pairs(fitted.model, "validation")
    assert other.items[~other.labels].tolist() != pairs.items[~pairs.labels].tolist()


def test_ratings_below_the_minimum_are_explicit_negatives_of_the_time_of_the_part(rated):
    dataset, split = rated.dataset, rated.model.split
    negative = label_interactions(dataset, rated.config.data).negative
    times = np.array(dataset.column("timestamp").to_pylist())
    trained = set(split.train.tolist())
    for part in ("validation", "test"):
        pairs = labelled_pairs(rated.model, part)
        assert pairs.negatives == "explicit"
        users = set(pairs.users[pairs.labels].tolist())
        first = times[split.test].min()
        expected = {
            (dataset.user_rows[row], dataset.item_rows[row])
            for row in np.flatnonzero(negative)
            if row not in trained and dataset.user_rows[row] in users and (times[row] >= first) == (part == "test")
        }
        assert expected == set(zip(pairs.users[~pairs.labels], pairs.items[~pairs.labels], strict=True))
    found = classify(rated.model)
    assert found["negatives"] == "explicit" and found["support"]["negatives"] == len(expected)


def test_explicit_negatives_of_a_split_by_items_are_of_the_items_of_the_part():
    config = small_config(
        data={"min_rating": 3}, split={"protocol": "cold_items", "validation": 0.2, "test": 0.2}, training={"epochs": 1}
    )
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    parts = [labelled_pairs(fitted.model, part) for part in ("validation", "test")]
    assert [pairs.negatives for pairs in parts] == ["explicit", "explicit"]
    assert not set(parts[0].items[~parts[0].labels]) & set(parts[1].items[~parts[1].labels])


def test_a_threshold_can_be_given_and_one_chosen_on_the_evaluated_part_has_a_note(fitted):
    given_ = classify(fitted.model, "test", 0.25)
    assert (given_["threshold"], given_["threshold_from"]) == (0.25, "given")
    same = classify(fitted.model, "validation")
    assert "too optimistic" in same["notes"][0]
    assert same["f1"] >= classify(fitted.model, "validation", 0.25)["f1"]


def test_a_refit_has_a_note_and_the_order_of_interactions_does_not_change_the_pairs(fitted):
    config = small_config(training={"epochs": 1, "refit": True, "patience": None})
    dataset = small_dataset()
    order = np.random.default_rng(1).permutation(len(dataset.interactions))
    shuffled = Dataset(dataset.users, dataset.items, dataset.interactions.take(order), roles=dataset.roles)
    refitted = Recommender.from_config(config).fit(shuffled, progress=False)
    assert any("refit" in note for note in classify(refitted.model)["notes"])
    for part in ("validation", "test"):
        mine, other = labelled_pairs(fitted.model, part), labelled_pairs(refitted.model, part)
        assert mine.users.tolist() == other.users.tolist() and mine.items.tolist() == other.items.tolist()


def test_a_model_without_data_or_without_a_validation_part_is_an_error(fitted, tmp_path):
    loaded = Recommender.load(fitted.save(tmp_path / "model"))
    with pytest.raises(ModelError, match="without its data"):
        classify(loaded.model)
    back = classify(loaded.with_data(small_dataset()).model)
    assert back["confusion"] == classify(fitted.model)["confusion"]
    config = small_config(training={"epochs": 1}, split={"protocol": "random", "validation": 0.0})
    bare = Recommender.from_config(config).fit(small_dataset(), progress=False)
    with pytest.raises(DataError, match="Give a threshold"):
        classify(bare.model)
    assert classify(bare.model, "test", 0.0)["threshold"] == 0.0


def test_a_classical_model_can_be_classified(fitted):
    popular = fitted.fit_like(
        fitted.config.model_copy(update={"model": Component(type="popularity"), "name": "popular"})
    )
    assert 0.3 < classify(popular.model)["auc"] <= 1
