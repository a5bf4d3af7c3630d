"""Classical models equal their definitions in float64 numpy, and have the same facade as two-tower models."""

import collections
import datetime as dt
import json
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from small import START, call, small_config, small_dataset

from anyrec.core.contracts import TrainingMatrix
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError, InputError, MissingDependency
from anyrec.data.dataset import Dataset
from anyrec.interaction import item_knn
from anyrec.interaction.classical import EASE, item_words, ridge_inverse
from anyrec.interaction.ials_vectors import conjugate_gradients, gram_root, whitened_items, whitened_users
from anyrec.interaction.item_knn import similarities
from anyrec.model.scoring import score_blocks
from anyrec.recommender import Recommender

MODELS = discover().names("classical")
TIME = pa.timestamp("us", "UTC")
PARTS = ("train", "validation", "test")
LAST = {"protocol": "leave_last_out"}
NONE = {"protocol": "none"}
SLOW = ("temporal", "text", "continuous")
"""Feature groups that the tests leave out if any features will do."""


def fit(name, dataset=None, split=LAST, training=None, evaluation=None, **options):
    """Few iterations: enough for data this small."""
    options = {**({"iterations": 20} if name == "bpr_mf" else {}), **options}
    config = {"model": {"type": name, **options}, "split": split, "training": training or {}}
    config["evaluation"] = evaluation or {}
    return Recommender.from_config(config).fit(dataset or small_dataset(), progress=False)


def matrix(recommender, *parts):
    """(users, items) float64, 1 where an interaction of the parts (by default of train) is."""
    dense = np.zeros((len(recommender.dataset.users), len(recommender.dataset.items)))
    for part in parts or ("train",):
        rows = recommender.model.split.rows(part)
        dense[recommender.dataset.user_rows[rows], recommender.dataset.item_rows[rows]] = 1.0
    return dense


def scores(model):
    """(users, items) the model's scores of every pair. model: a recommender or a fitted model."""
    model = model.model if isinstance(model, Recommender) else model
    return score_blocks(model.scorer, model.representations("user"), model.representations("item")).numpy()


def listed(recommender, *arguments, **options):
    """{user: items in order} of `recommend`."""
    found = collections.defaultdict(list)
    for row in recommender.recommend(*arguments, **options).to_pylist():
        found[row["user_id"]].append(row["item_id"])
    return found


def world(pairs, days=None, **features):
    """A dataset of (user, item) pairs, one a day unless `days` says when; features: item columns by name."""
    users, items = zip(*pairs, strict=True)
    ids = sorted(set(items) | set(features.pop("ids", ())))
    days = range(len(pairs)) if days is None else days
    times = pa.array([START + dt.timedelta(days=float(day)) for day in days], TIME)
    return Dataset(
        pa.table({"user_id": sorted(set(users))}),
        pa.table({"item_id": ids, **{name.replace("__", "."): values for name, values in features.items()}}),
        pa.table({"user_id": list(users), "item_id": list(items), "timestamp": times}),
    )


@pytest.fixture(scope="module", params=MODELS)
def fitted(request):
    return fit(request.param)


def test_these_classical_models_are_built_in():
    assert MODELS == [
        "bpr_mf",
        "content_knn",
        "ease",
        "ials",
        "item_knn",
        "popularity",
        "recent_popularity",
        "svd",
        "trending",
    ]


def test_k_items_are_listed_and_none_that_was_seen(fitted):
    data = fitted.dataset
    seen = set(zip(data.interactions["user_id"].to_pylist(), data.interactions["item_id"].to_pylist(), strict=True))
    table = fitted.recommend(None, 7)
    assert table["rank"].to_pylist() == [*range(1, 8)] * 60
    assert not seen & set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    with_seen = fitted.recommend(None, 40, exclude_seen=False)
    assert len(with_seen) == 60 * 40 and (np.diff(with_seen["score"].to_numpy().reshape(60, 40)) <= 0).all()


def test_lists_are_sorted_by_score(fitted):
    table, whole = fitted.recommend(["u003", "u017"], 5), scores(fitted)
    items = fitted.dataset.ids("item").to_pylist()
    expected = [whole[3 if row["user_id"] == "u003" else 17, items.index(row["item_id"])] for row in table.to_pylist()]
    np.testing.assert_allclose(table["score"].to_numpy(), expected, rtol=1e-5, atol=1e-6)
    restricted = fitted.recommend(["u003"], 5, candidates=["i000", "i001"], exclude_seen=False)
    assert set(restricted["item_id"].to_pylist()) == {"i000", "i001"}


def test_a_loaded_model_gives_the_same_lists_and_can_be_evaluated(fitted, tmp_path):
    again = Recommender.load(fitted.save(tmp_path / "model"))
    assert again.config == fitted.config and again.describe() == fitted.describe()
    assert again.recommend(None, 5).equals(fitted.recommend(None, 5))
    np.testing.assert_array_equal(scores(again), scores(fitted))
    assert again.metrics == fitted.metrics
    assert again.with_data(small_dataset(order=3)).evaluate("test") == fitted.metrics["test"]
    kinds = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert kinds == {".json", ".arrow", ".safetensors", ".md"}


def test_it_is_evaluated_on_validation_and_test(fitted):
    assert fitted.metrics.keys() == {"validation", "test"}
    assert fitted.evaluate("test") == fitted.metrics["test"]
    assert 0 < fitted.metrics["test"]["recall@20"] < 1


def test_the_order_of_the_records_changes_nothing(fitted):
    if fitted.config.model.type == "bpr_mf":
        pytest.skip("its threads race by design")
    other = fit(fitted.config.model.type, small_dataset(order=5))
    np.testing.assert_allclose(scores(other), scores(fitted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MODELS if "popularity" not in name])
def test_personal_models_beat_popularity_on_data_with_planted_tastes(name):
    data = small_dataset(users=200, each=12)
    options = {"ials": {"regularization": 1.0, "factors": 16}, "bpr_mf": {"iterations": 100}}.get(name, {})
    measured = fit(name, data, **options).metrics["test"]
    assert measured["auc"] > fit("popularity", data).metrics["test"]["auc"] + 0.03


def test_popularity_counts_the_users_of_each_item():
    data = small_dataset()
    again = data.interactions.slice(0, 30)  # the same pairs once more count once
    data.interactions = pa.concat_tables([data.interactions, again]).combine_chunks()
    recommender = fit("popularity", data, NONE)
    counts = collections.Counter(
        item
        for _, item in {
            (user, item)
            for user, item in zip(
                data.interactions["user_id"].to_pylist(), data.interactions["item_id"].to_pylist(), strict=True
            )
        }
    )
    expected = [counts[item] for item in recommender.dataset.ids("item").to_pylist()]
    np.testing.assert_array_equal(scores(recommender), np.tile(expected, (60, 1)))


def test_recent_popularity_prefers_items_with_recent_interactions():
    old = [(f"u{n}", "old") for n in range(6)]
    new = [(f"u{n}", "new") for n in range(4)]
    data = world(
        [*old, *new, ("w", "other"), ("x", "other")], [*range(6), *range(90, 94), 0, 0], ids=["never", "nowhere"]
    )
    for half_life, first in ((10.0, "new"), (1000.0, "old")):
        lists = listed(fit("recent_popularity", data, NONE, half_life_days=half_life), ["w"], 3)
        assert lists["w"][0] == first
    assert listed(fit("popularity", data, NONE), ["w"], 3)["w"][0] == "old"


@pytest.mark.parametrize("half_life", [None, 0.1, 3.0])
def test_recent_popularity_halves_the_weight_of_a_pair_with_each_half_life_since_its_last_interaction(half_life):
    data = small_dataset()
    rng = np.random.default_rng(0)
    data.interactions = pa.concat_tables([data.interactions, data.interactions.slice(0, 90)])  # pairs that recur
    days = rng.random(len(data.interactions)) * 30
    times = pa.array([START + dt.timedelta(days=float(day)) for day in days], TIME)
    place = data.interactions.column_names.index("timestamp")
    data.interactions = data.interactions.set_column(place, "timestamp", times).combine_chunks()
    recommender = fit("recent_popularity", data, NONE, half_life_days=half_life)
    last = {}
    pairs = zip(data.interactions["user_id"].to_pylist(), data.interactions["item_id"].to_pylist(), strict=True)
    for pair, day in zip(pairs, days, strict=True):
        last[pair] = max(day, last.get(pair, -1.0))
    latest, earliest = max(last.values()), min(last.values())
    weights = collections.Counter()
    for (_, item), day in last.items():
        weights[item] += 0.5 ** ((latest - day) / (half_life or (latest - earliest) / 20))
    expected = [weights[item] for item in recommender.dataset.ids("item").to_pylist()]
    np.testing.assert_allclose(scores(recommender)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("l2", [0.5, 200.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_ease_is_its_closed_form(l2, seed):
    recommender = fit("ease", small_dataset(seed=seed), l2=l2)
    history = matrix(recommender)
    items = history.shape[1]
    inverse = np.linalg.inv(history.T @ history + l2 * np.eye(items))
    weights = np.array(
        [[0.0 if i == j else -inverse[i, j] / inverse[j, j] for j in range(items)] for i in range(items)]
    )
    size = np.abs(weights).max()
    np.testing.assert_allclose(recommender.model.scorer.classical.weights, weights, rtol=0, atol=1e-5 * size)
    np.testing.assert_allclose(
        scores(recommender.model.before("validation")), history @ weights, rtol=0, atol=1e-4 * size
    )
    similar = recommender.similar(["i005"], 3)
    order = np.argsort(-np.where(np.arange(items) == 5, -np.inf, weights[5]), kind="stable")[:3]
    assert similar["item_id"].to_pylist() == [f"i{place:03d}" for place in order]


def test_ease_gives_no_weight_to_items_without_training_pairs():
    dense = (np.random.default_rng(0).random((50, 12)) < 0.3).astype(np.float32)
    dense[:, [2, 7]] = 0
    users, items = dense.nonzero()
    ease = EASE(EASE.Params(l2=3.0))
    ease.fit(TrainingMatrix(sparse.csr_matrix(dense), users, items, None, None, 0))
    inverse = np.linalg.inv(dense.T.astype(float) @ dense + 3 * np.eye(12))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(ease.weights, expected, atol=1e-5)
    assert not ease.weights[2].any() and not ease.weights[:, 7].any()


def cosines(history):
    """(items, items) float64 cosines of items by their users, 0 with themselves and for items that nobody had."""
    items = history.shape[1]
    found = np.zeros((items, items))
    for i in range(items):
        for j in range(items):
            norms = np.sqrt((history[:, i] ** 2).sum() * (history[:, j] ** 2).sum())
            found[i, j] = history[:, i] @ history[:, j] / norms if i != j and norms else 0.0
    return found


def test_item_knn_sums_the_cosines_to_the_users_items():
    recommender = fit("item_knn", neighbours=40)
    history = matrix(recommender)
    found = scores(recommender.model.before("validation"))
    np.testing.assert_allclose(found, history @ cosines(history), rtol=1e-5, atol=1e-6)


def test_item_knn_keeps_the_nearest_of_each_item():
    recommender = fit("item_knn", neighbours=5)
    expected, found = cosines(matrix(recommender)), recommender.model.scorer.classical.similarity.toarray()
    for kept, every in zip(found, expected, strict=True):
        assert np.count_nonzero(kept) == 5
        np.testing.assert_allclose(np.sort(kept)[-5:], np.sort(every)[-5:], rtol=1e-5)
        np.testing.assert_allclose(kept[kept > 0], every[kept > 0], rtol=1e-5)


@pytest.mark.parametrize("exponents", [(0.5, 0.75, 0.25), (-0.25, 0.5, 0.0)])
def test_item_knn_weighs_users_and_items_by_powers_of_their_counts(exponents):
    of_users, of_history, of_targets = exponents
    recommender = fit(
        "item_knn",
        neighbours=40,
        user_exponent=of_users,
        history_exponent=of_history,
        target_exponent=of_targets,
    )
    history = matrix(recommender)
    users, items = history.sum(1), np.maximum(history.sum(0), 1)
    expected = (history / users[:, None] ** of_users).T @ history / items[:, None] ** of_history / items**of_targets
    np.fill_diagonal(expected, 0.0)
    found = scores(recommender.model.before("validation"))
    np.testing.assert_allclose(found, history @ expected, rtol=1e-4, atol=1e-6)


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 50]), st.sampled_from([(0.0, 0.5, 0.5), (0.5, 0.75, 0.25)]))
@settings(max_examples=30, deadline=None)
def test_the_kept_neighbours_are_the_greatest_for_blocks_of_any_size(seed, neighbours, exponents):
    rng = np.random.default_rng(seed)
    dense = (rng.random((12, 9)) < rng.random()).astype(np.float32)
    whole = similarities(sparse.csr_matrix(dense), 10**6, exponents).toarray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn, "BLOCK", int(rng.integers(1, 60)))
        kept = similarities(sparse.csr_matrix(dense), neighbours, exponents).toarray()
    np.testing.assert_array_equal(kept[kept > 0], whole[kept > 0])
    for row, every in zip(kept, whole, strict=True):
        assert np.count_nonzero(row) == min(neighbours, np.count_nonzero(every))
        np.testing.assert_array_equal(np.sort(row)[::-1][:neighbours], np.sort(every)[::-1][:neighbours])


@pytest.mark.slow
def test_item_knn_of_a_large_sparse_catalogue_is_fitted_in_bounded_memory():
    """30,000 users, 41,000 items and 840,000 pairs; 28 s on a busy core. All pairs of items would take 6.7 GB."""
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, 41_001) ** 0.8
    users, items = rng.integers(0, 30_000, 900_000), rng.choice(41_000, 900_000, p=chance / chance.sum())
    counted = sparse.csr_matrix((np.ones(900_000, np.float32), (users, items)), (30_000, 41_000))
    counted.data[:] = 1
    tracemalloc.start()
    found = similarities(counted, 100, (0.25, 0.5, 0.25))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.diff(found.indptr).max() == 100 and peak < 2e9


@pytest.mark.parametrize("l2", [0.5, 30.0, 1000.0])
def test_ease_with_few_users_is_solved_in_the_users_with_the_same_result(l2):
    rng = np.random.default_rng(0)
    dense = (rng.random((30, 200)) < 0.1).astype(np.float32)
    dense[3] = 0  # a user without training pairs
    few = sparse.csr_matrix(dense)
    inverse = np.linalg.inv(dense.T.astype(float) @ dense + l2 * np.eye(200))
    expected = -inverse / np.diag(inverse)
    found = ridge_inverse(few, l2).double().numpy()
    np.testing.assert_allclose(-found / np.diag(found), expected, atol=1e-5)
    many = sparse.vstack([few] * 40).tocsr()  # solved in the items
    found = ridge_inverse(many, 40 * l2).double().numpy()
    np.testing.assert_allclose(-found / np.diag(found), expected, atol=1e-5)


def test_bpr_has_the_requested_dimension_and_scores_by_dot_products():
    recommender = fit("bpr_mf", factors=6)
    users, items = (
        recommender.model.scorer.classical.users.astype(float),
        recommender.model.scorer.classical.items.astype(float),
    )
    assert users.shape[1] == items.shape[1] == 7  # the last is the item's bias
    np.testing.assert_allclose(scores(recommender), users @ items.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("alpha", "factors"), [(1.0, 4), (5.0, 4), (0.3, 16), (40.0, 12)])
def test_ials_solves_the_vector_of_a_user_from_the_history(alpha, factors):
    """The vector is the weighted ridge solution over the items' (Hu, Koren and Volinsky, 2008, equation 4)."""
    recommender = fit("ials", factors=factors, regularization=0.3, alpha=alpha, iterations=60)
    items = recommender.model.scorer.classical.items.astype(float)
    for state, parts in ((recommender.model.before("test"), ("train", "validation")), (recommender.model, PARTS)):
        history, found = matrix(recommender, *parts), scores(state)
        for user in range(0, 60, 7):
            confidence = np.where(history[user] > 0, alpha, 1.0)
            left = items.T @ (confidence[:, None] * items) + 0.3 * np.eye(factors)
            vector = np.linalg.solve(left, items.T @ (confidence * (history[user] > 0)))
            np.testing.assert_allclose(found[user], items @ vector, atol=2e-4)


def test_ials_gives_users_the_vectors_of_the_last_half_step():
    pytest.importorskip("implicit")
    from implicit.als import AlternatingLeastSquares

    rng = np.random.default_rng(0)
    dense = (rng.random((80, 50)) < rng.random((80, 1)) * 0.6).astype(np.float32)
    counted = sparse.csr_matrix(dense)
    model = AlternatingLeastSquares(8, regularization=2.0, alpha=7.0, iterations=200, random_state=0, use_gpu=False)
    model.fit(counted, show_progress=False)
    items = whitened_items(model.item_factors, gram_root(model.item_factors, 2.0))
    found = whitened_users(counted, items, 7.0) @ items.T
    exact = model.recalculate_user(np.arange(80), counted) @ model.item_factors.T
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())
    last = model.user_factors @ model.item_factors.T  # of the last iteration
    np.testing.assert_allclose(found, last, atol=0.01 * np.abs(exact).max())


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 3.0, 30.0, 1000.0])
def test_conjugate_gradients_solve_every_system_of_a_batch(alpha):
    """Systems of different difficulty end at different steps: those that are solved stay solved."""
    rng = np.random.default_rng(0)
    gram = np.zeros((4, 20, 20), np.float32)
    for system, share in enumerate((0, 1e-4, 0.5, 1.0)):
        basis = np.linalg.qr(rng.normal(size=(20, 20)))[0]
        gram[system] = basis @ np.diag(rng.random(20) * share) @ basis.T
    right = rng.normal(size=(4, 20, 1)).astype(np.float32)
    found = conjugate_gradients(torch.from_numpy(gram), alpha - 1, torch.from_numpy(right)).numpy()
    exact = np.linalg.solve(np.eye(20) + (alpha - 1) * gram.astype(float), right)
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


def test_ials_scores_new_users_by_the_history_of_a_request():
    recommender = fit("ials", factors=8, regularization=1.0)
    known = recommender.dataset.interactions.slice(0, 8)["item_id"].to_pylist()  # the items of the first user
    request = [{"user_id": "new", "item_id": item} for item in known]
    expected = listed(recommender, ["u000"], 5)["u000"]
    assert listed(recommender, [{"user_id": "new"}], 5, interactions=request)["new"] == expected


def test_content_knn_finds_the_item_with_the_same_words():
    titles = ["red woollen scarf", "Red, woollen SCARF!", "blue glass bottle", "steel frying pan", None]
    data = world(
        [("u", "a"), ("v", "c"), ("w", "d")], ids=list("abcde"), text__title=pa.array(titles, pa.string())
    )  # nobody had b or e
    recommender = fit("content_knn", data, NONE)
    assert listed(recommender, ["u"], 1)["u"] == ["b"]
    found = recommender.similar(["a"], 4).to_pylist()
    assert found[0]["item_id"] == "b" and found[0]["score"] == pytest.approx(1.0)
    assert [row["score"] for row in found[1:]] == pytest.approx([0.0] * 3)


@pytest.mark.parametrize("dimension", [4, 256])
def test_content_knn_is_the_cosine_of_tf_idf_vectors(dimension):
    """A word weighs (1 + ln count) (ln((1 + items) / (1 + items with it)) + 1); dimension 4 keeps the largest part."""
    recommender = fit("content_knn", dimension=dimension)
    documents = [
        [word for word in text.lower().split() if len(word) > 1] for text in item_words(recommender.dataset.items)
    ]
    words = sorted({word for document in documents for word in document})
    weights = np.zeros((len(documents), len(words)))
    for place, word in enumerate(words):
        having = sum(word in document for document in documents)
        for row, document in enumerate(documents):
            if word in document:
                rarity = np.log((1 + len(documents)) / (1 + having)) + 1
                weights[row, place] = (1 + np.log(document.count(word))) * rarity
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    if dimension == 4:
        left, singular, _ = np.linalg.svd(weights, full_matrices=False)
        weights = left[:, :4] * singular[:4]
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    expected = matrix(recommender) @ weights @ weights.T
    found = scores(recommender.model.before("validation"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if dimension == 256 else 0.06)


def test_a_category_is_one_word_apart_from_the_texts():
    table = pa.table(
        {
            "item_id": ["a", "b", "c"],
            "categorical.kind": ["sci-fi & fantasy", None, "fantasy"],
            "categorical.tags": pa.array([["x", "y z"], ["x"], None]),
            "continuous.price": [1.0, 2.0, 3.0],
            "text.title": ["The fantasy", "", None],
        }
    )
    assert [text.split() for text in item_words(table)] == [
        ["categorical_kind_sci_fi_fantasy", "categorical_tags_x", "categorical_tags_y_z", "The", "fantasy"],
        ["categorical_tags_x"],
        ["categorical_kind_fantasy"],
    ]


def test_a_null_in_a_list_of_categories_removes_no_other_word():
    table = pa.table({"item_id": ["a"], "categorical.tags": [["x", None]], "text.lines": [["one", None, "two"]]})
    assert item_words(table)[0].split() == ["categorical_tags_x", "one", "two"]


def test_items_without_words_are_similar_to_no_item():
    recommender = fit("content_knn", world([("u", "a"), ("v", "b"), ("w", "c")], text__title=["!", "?", "-"]), NONE)
    assert not scores(recommender)[0].any()


def test_an_unknown_user_gets_the_popular_items(fitted):
    if fitted.config.model.type in ("recent_popularity", "trending"):
        pytest.skip("see the next test")
    counts = matrix(fitted, *PARTS).sum(0)
    popular = [f"i{place:03d}" for place in np.argsort(-counts, kind="stable")[:6]]
    stranger = pa.table({"user_id": ["nobody", "u001"]})
    lists = listed(fitted, stranger, 6)
    assert lists["nobody"] == popular
    assert lists["u001"] == listed(fitted, ["u001"], 6)["u001"]
    assert listed(fitted, [{"user_id": "nobody"}], 6)["nobody"] == popular
    with pytest.raises(DataError, match="knows no such user"):
        fitted.recommend(["nobody"], 6)


def test_recent_popularity_is_the_same_for_known_and_unknown_users():
    old = [(f"u{n}", "old") for n in range(6)]
    new = [(f"u{n}", "new") for n in range(4)]
    data = world([*old, *new], [*range(6), *range(90, 94)])
    recommender = fit("recent_popularity", data, NONE, half_life_days=10.0)
    lists = listed(recommender, pa.table({"user_id": ["u0", "nobody"]}), 2, exclude_seen=False)
    assert lists["u0"] == lists["nobody"] == ["new", "old"]


def test_a_user_without_training_interactions_gets_the_popular_items():
    recommender = fit("ease", split={"protocol": "cold_users", "test": 0.2})
    cold = recommender.dataset.user_rows[recommender.model.split.test][0]
    expected = matrix(recommender, "train", "validation").sum(0)
    np.testing.assert_array_equal(scores(recommender.model.before("test"))[cold], expected)


@pytest.mark.parametrize("name", ["ease", "item_knn", "content_knn"])
def test_history_based_models_are_evaluated_on_earlier_interactions_and_served_with_all(name):
    recommender = fit(name)
    for state, parts in (
        (recommender.model.before("validation"), ("train",)),
        (recommender.model.before("test"), ("train", "validation")),
        (recommender.model, ("train", "validation", "test")),
    ):
        history = matrix(recommender, *parts)
        np.testing.assert_array_equal(state.scorer.matrix.toarray(), history)
        expected = recommender.model.scorer.classical.score(
            np.arange(60), sparse.csr_matrix(history.astype(np.float32))
        )
        np.testing.assert_allclose(scores(state), expected, rtol=1e-5, atol=1e-6)


def test_a_record_without_an_id_is_an_error():
    with pytest.raises(InputError, match="user_id"):
        fit("popularity").recommend([{"continuous": {"age": 3}}], 3)


@pytest.mark.parametrize("name", ["ease", "popularity"])
def test_an_unsupported_request_is_an_input_error(name, tmp_path):
    recommender = fit(name)
    for attempt in (
        recommender.embed_users,
        recommender.embed_items,
        lambda: recommender.add_items(small_dataset(items=50)),
    ):
        with pytest.raises(InputError, match=f"'{name}' has no .*(T|t)rain a two_tower") as error:
            attempt()
        assert error.value.exit_code == 2
    folder = recommender.save(tmp_path / "model")
    code, out, message = call("embed", "--model_path", folder, "--output", tmp_path)
    assert (code, f"'{name}' has no embeddings" in message) == (2, True)


def test_models_of_popularity_are_the_only_ones_without_similar_items(fitted):
    if "popularity" in fitted.config.model.type or fitted.config.model.type == "trending":
        with pytest.raises(InputError, match="no notion of similar items"):
            fitted.similar(["i001"])
        return
    found = fitted.similar(["i001", "i002"], 39)
    assert found["query_id"].to_pylist() == ["i001"] * 39 + ["i002"] * 39
    assert "i001" not in found["item_id"].to_pylist()[:39]
    with pytest.raises(DataError, match="no such item"):
        fitted.similar(["nothing"])


def test_an_unknown_option_is_an_error_that_names_the_nearest():
    for model, message in (
        ({"type": "ease", "l3": 5}, "Did you mean 'l2'"),
        ({"type": "ease", "l2": -1}, "/model/l2"),
        ({"type": "eas"}, "Did you mean 'ease'"),
        ({"type": "item_kn", "neighbours": 3}, "Did you mean 'item_knn'"),
        ({"type": "two_tower", "l2": 5}, "two_tower takes no options"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            Recommender.from_config({"model": model}).fit(small_dataset(), progress=False)
        assert error.value.exit_code == 2 and "/model" in str(error.value)


def test_a_misspelt_two_tower_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="Did you mean 'two_tower'"):
        Recommender.from_config({"model": {"type": "two_towr"}}).fit(small_dataset(), progress=False)


@pytest.mark.parametrize("name", ["item_knn", "ease"])
def test_refit_trains_on_validation_too(name):
    plain, again = fit(name), fit(name, training={"refit": True})
    assert plain.metrics["validation"] == again.metrics["validation"]  # measured before it was learned
    assert plain.metrics["test"] != again.metrics["test"]
    np.testing.assert_array_equal(plain.model.before("validation").scorer.matrix.toarray(), matrix(plain))
    np.testing.assert_array_equal(
        again.model.before("test").scorer.matrix.toarray(), matrix(again, "train", "validation")
    )
    if name == "popularity":
        np.testing.assert_array_equal(scores(plain)[0], matrix(plain).sum(0))
        np.testing.assert_array_equal(scores(again)[0], matrix(again, "train", "validation").sum(0))


def test_refit_of_a_two_tower_trains_again_on_both_parts_and_keeps_the_validation_metrics():
    def train(refit):
        training = {"epochs": 3, "batch_size": 128, "patience": None, "refit": refit}
        config = small_config(training=training, split=LAST, features=dict.fromkeys(SLOW))
        return Recommender.from_config(config).fit(small_dataset(), progress=False)

    plain, again = train(False), train(True)
    assert plain.metrics.keys() == again.metrics.keys() == {"validation", "test"}
    assert plain.metrics["validation"] == again.metrics["validation"]
    assert plain.metrics["test"] != again.metrics["test"]
    assert [entry["loss"] for entry in plain.result.history] == [entry["loss"] for entry in again.result.history]
    one, two = plain.model.scorer.state_dict(), again.model.scorer.state_dict()
    assert one.keys() == two.keys() and not all(bool((one[name] == two[name]).all()) for name in one)
    assert len(again.model.learning.final_split(again.config).train) == len(again.model.split.train) + len(
        again.model.split.validation
    )
    assert set(again.model.learning.final_split(again.config).train.tolist()).isdisjoint(
        again.model.split.test.tolist()
    )
    assert len(plain.model.learning.final_split(plain.config).train) == len(plain.model.split.train)


def test_refit_repeats_no_note():
    data = small_dataset()
    data.users = data.users.append_column("smell.of", pa.array(["x"] * 60))
    training = {"epochs": 1, "refit": True}
    config = small_config(training=training, features=dict.fromkeys(SLOW))
    notes = Recommender.from_config(config).fit(data, progress=False).notes
    assert any("smell.of" in note for note in notes)
    assert len(notes) == len(set(notes))


@pytest.fixture
def no_implicit(monkeypatch):
    """Make `implicit` look as if it were not installed."""
    for name in ["implicit", *(name for name in sys.modules if name.startswith("implicit."))]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", ["ials", "bpr_mf"])
def test_a_model_whose_library_is_missing_is_an_error_with_the_install_command(name, no_implicit):
    with pytest.raises(MissingDependency, match=r"pip install 'anyrec\[baselines\]'") as error:
        fit(name)
    assert error.value.exit_code == 3


def test_a_baseline_whose_library_is_missing_is_left_out_and_the_report_says_so(no_implicit):
    from anyrec.report.baselines import fit_baselines

    found = fit_baselines(fit("popularity").model, progress=False)
    notes = found.notes
    assert set(found.fitted) == {"content_knn", "ease", "item_knn", "recent_popularity", "trending"}
    assert [note.split(":")[0] for note in notes] == ["The baseline ials is not measured"]
    assert all("pip install 'anyrec[baselines]'" in note for note in notes)


def test_the_command_line_trains_a_classical_model_and_recommends_with_it(tmp_path):
    data = tmp_path / "data.json"
    from anyrec.data.formats.write_json import write_json

    write_json(small_dataset(), data)
    base = ("train", "--data", data, "--output", tmp_path, "--set", "evaluation.report=false")
    code, out, message = call(*base, "--set", "model.type=ease", "--set", "model.l2=50")
    assert code == 0 and "ndcg@10" in out
    assert Recommender.load(tmp_path / "model").model.scorer.classical.params.l2 == 50
    code, out, message = call("evaluate", "--model_path", tmp_path / "model", "--data", data)
    assert json.loads(out).keys() >= {"ndcg@10", "auc"}
    code, out, message = call("similar", "--model_path", tmp_path / "model", "--item", "i003", "--top_k", 2, "--json")
    assert code == 0 and [row["rank"] for row in json.loads(out)] == [1, 2]
    code, out, message = call(*base, "--set", "model.type=eas")
    assert code == 2 and "Did you mean 'ease'" in message


def test_inference_works_with_a_classical_model(tmp_path):
    folder = fit("ease").save(tmp_path / "model")
    people = tmp_path / "people.json"
    people.write_text(json.dumps({"user_data": [{"user_id": "u001"}], "item_data": [], "interactions": []}))
    code, out, message = call("recommend", "--model_path", folder, "--data", people, "--top_k", 3)
    assert code == 0, message
    assert len(json.loads(out)["users"][0]["recommendations"]) == 3
