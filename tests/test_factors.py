"""Factorisations as embedding models: vectors, indexes, similar items, and users that are folded in."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from scipy.optimize import minimize
from small import call, small_config, small_dataset

from anyrec import Recommender
from anyrec.core.contracts import TrainingMatrix
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.bpr_vectors import Negatives, fold_in
from anyrec.interaction.factorisation import BPRMF, SVD
from anyrec.model.result_tables import index_of
from anyrec.serving.explain import explain

FLAT = {"type": "faiss", "kind": "flat"}
OPTIONS = {
    "ials": {"factors": 8, "regularization": 0.5, "alpha": 5.0},
    "bpr_mf": {"factors": 8, "iterations": 20},
    "svd": {"factors": 8},
}
ITEMS = ["i001", "i005", "i017"]
PAIRS = [{"user_id": "ann", "item_id": item} for item in ITEMS]


def fit(name, **changes):
    config = {"model": {"type": name, **OPTIONS[name]}, "split": {"protocol": "leave_last_out"}, **changes}
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module", params=OPTIONS)
def fitted(request):
    return fit(request.param)


@pytest.fixture(scope="module")
def indexed(fitted):
    return fitted.with_config({"index": FLAT})


def vectors_of(table):
    return np.stack(table["embedding"].to_numpy())


def same_lists(one, other):
    columns = ["user_id", "item_id", "rank"]
    assert one.select(columns).equals(other.select(columns))
    np.testing.assert_allclose(one["score"].to_numpy(), other["score"].to_numpy(), rtol=1e-4, atol=1e-5)


def test_scores_are_the_dot_products_of_the_embeddings(fitted):
    users, items = vectors_of(fitted.embed_users()), vectors_of(fitted.embed_items())
    dataset = fitted.dataset
    pairs = [{"user_id": user, "item_id": "i003"} for user in dataset.ids("user").to_pylist()]
    found = fitted.score(pairs)["score"].to_numpy()
    np.testing.assert_allclose(found, users @ items[3], rtol=1e-4, atol=1e-5)
    assert fitted.model.has_vectors and fitted.model.factorised
    for one in (["i003"], ["i003", "i001"], []):
        chosen = [int(item[1:]) for item in one]
        np.testing.assert_array_equal(vectors_of(fitted.embed_items(one)) if one else items[:0], items[chosen])
    assert len(fitted.embed_items([])) == len(fitted.embed_users([])) == 0


def test_the_embedding_of_a_new_user_by_ials_is_the_ridge_solution():
    """x = (Y' C Y + regularization I)^-1 Y' C p, with confidence C (Hu, Koren and Volinsky, 2008, equation 4)."""
    recommender = fit("ials")
    request = {"user_data": [{"user_id": "ann"}], "interactions": PAIRS}
    found = vectors_of(recommender.embed_users(request))[0]
    items = vectors_of(recommender.embed_items()).astype(float)
    history = np.isin(recommender.dataset.ids("item").to_pylist(), ITEMS)
    confidence = np.where(history, 5.0, 1.0)
    left = items.T @ (confidence[:, None] * items) + 0.5 * np.eye(8)
    np.testing.assert_allclose(found, np.linalg.solve(left, items.T @ (confidence * history)), rtol=1e-3, atol=1e-4)


def pairs_of(matrix):
    return Pairs(matrix.indices, matrix.indptr)


def bpr_loss(vector, history, items, weights, penalty):
    """The expected loss of BPR for one user, with the items as they are, and its gradient."""
    own, other = items[history], items[~history]
    chances = weights[~history] / weights[~history].sum()
    full = np.append(vector, 1.0)
    margins = (own @ full)[:, None] - other @ full
    loss = (np.logaddexp(0, -margins) * chances).sum(1).mean() + penalty / 2 * vector @ vector
    wrong = chances / (1 + np.exp(margins)) / len(own)
    gradient = penalty * vector - (wrong.sum(1) @ own - wrong.sum(0) @ other)[:-1]
    return loss, gradient


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_a_user_folded_in_by_bpr_has_the_least_expected_loss(penalty):
    rng = np.random.default_rng(0)
    items, counts = rng.normal(size=(30, 6)).astype(np.float32), rng.integers(1, 20, 30).astype(float)
    dense = (rng.random((25, 30)) < rng.random((25, 1)) * 0.7).astype(np.float32)
    dense[4] = 0
    found = fold_in(pairs_of(sparse.csr_matrix(dense)), items, Negatives.of(counts), penalty)
    assert found[4].tolist() == [0.0] * 5 + [1.0]
    for user in np.flatnonzero(dense.any(1)):
        arguments = (dense[user] > 0, items.astype(float), counts, penalty)
        best = minimize(bpr_loss, np.zeros(5), arguments, jac=True, method="L-BFGS-B", options={"gtol": 1e-9})
        np.testing.assert_allclose(found[user, :5], best.x, atol=2e-3 * max(1, np.abs(best.x).max()))
        assert found[user, 5] == 1


def test_a_user_with_all_items_is_folded_in_without_negatives():
    items = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    found = fold_in(Pairs(np.arange(7), np.array([0, 7])), items, Negatives.of(np.ones(7)), 0.1)
    np.testing.assert_allclose(found, [[0, 0, 0, 1]], atol=1e-6)


def test_negatives_of_a_large_catalogue_are_drawn_by_the_counts():
    counts = np.where(np.arange(5000) < 100, 1000, 1)
    negatives = Negatives.of(counts)
    assert len(negatives.items) <= 256 and negatives.weights.sum() == pytest.approx(1)
    assert negatives.weights[negatives.items < 100].sum() == pytest.approx(100_000 / 104_900, abs=0.06)


def test_bpr_saved_without_counts_folds_users_in():
    """Models of earlier versions have no counts: all items are equally likely negatives."""
    model = fit("bpr_mf").model.scorer.classical
    state = {name: values for name, values in model.state().items() if name != "counts"}
    old = BPRMF(model.params)
    old.restore(state)
    history = sparse.csr_matrix((np.ones(3, np.float32), ([0] * 3, [1, 5, 17])), (1, 40))
    found = old.user_vectors(np.array([-1]), history)
    np.testing.assert_allclose(found, fold_in(pairs_of(history), old.items, Negatives.of(np.ones(40)), 0.01))
    np.testing.assert_array_equal(old.user_vectors(np.array([2]), history), old.users[[2]])


@pytest.mark.parametrize(("users", "items", "factors", "used"), [(30, 20, 5, 5), (30, 20, 64, 10), (1, 9, 4, 1)])
def test_svd_projects_histories_on_the_largest_singular_vectors(users, items, factors, used):
    dense = (np.random.default_rng(0).random((users, items)) < 0.4).astype(np.float32)
    dense[0, 0] = 1
    svd = SVD(SVD.Params(factors=factors))
    svd.fit(TrainingMatrix(sparse.csr_matrix(dense), *np.nonzero(dense), None, None, 0))
    right = np.linalg.svd(dense.astype(float), full_matrices=False)[2][:used]
    assert svd.item_vectors().shape == (items, used)
    found = svd.score(np.arange(users), sparse.csr_matrix(dense))
    np.testing.assert_allclose(found, dense @ right.T @ right, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"exclude_seen": False}, {"candidates": [f"i{n:03d}" for n in range(9)]}, {"k": 40}]
)
def test_lists_through_a_flat_index_are_those_of_scoring_all_items(fitted, indexed, options):
    options = {"k": 7, **options}
    found, scanned = indexed.recommend(None, **options), fitted.recommend(None, **options)
    assert (index_of(found), index_of(scanned)) == (FLAT, {"type": "exact"})
    same_lists(found, scanned)


def test_users_without_a_vector_get_the_popular_items_and_others_those_of_the_index(fitted, indexed):
    request = {"user_data": [{"user_id": "new"}, {"user_id": "u004"}, {"user_id": "ann"}], "interactions": PAIRS}
    for options in ({}, {"candidates": [f"i{n:03d}" for n in range(0, 40, 2)]}):
        same_lists(indexed.recommend(request, 6, **options), fitted.recommend(request, 6, **options))
    popular = indexed.recommend(request, 6)["item_id"].to_pylist()[:6]
    counts = fitted.model.scorer.popularity
    assert popular == [f"i{n:03d}" for n in np.argsort(-counts, kind="stable")[:6]]
    assert not vectors_of(indexed.embed_users([{"user_id": "new"}])).any()


def test_similar_items_are_found_by_cosines_of_the_vectors(fitted, indexed):
    found = indexed.similar(["i003", "i009"], 5)
    assert index_of(found) == FLAT and found["item_id"].equals(fitted.similar(["i003", "i009"], 5)["item_id"])
    items = vectors_of(fitted.embed_items()).astype(float)
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    cosines = np.delete(unit @ unit[3], 3)
    np.testing.assert_allclose(found["score"].to_numpy()[:5], np.sort(cosines)[::-1][:5], atol=1e-5)


def test_a_pipeline_and_its_evaluation_use_the_index(fitted, indexed):
    staged = {"pipeline": {"retrieve": {"k": 20}}}
    with_index, without = indexed.with_config(staged), fitted.with_config(staged)
    answer = with_index.answer(["u001", "u030"], 5)
    assert answer.index == FLAT
    same_lists(answer.table, without.answer(["u001", "u030"], 5).table)
    assert with_index.evaluate_pipeline("test") == pytest.approx(without.evaluate_pipeline("test"))


def test_a_ranker_is_refused_as_there_are_no_vectors_of_features(fitted):
    with pytest.raises(Exception, match="a ranker reads feature vectors"):
        fitted.with_pipeline({"rank": {"type": "mlp"}})


def test_the_commands_embed_and_index_a_saved_model(fitted, tmp_path):
    folder = fitted.save(tmp_path / "run" / "model")
    assert call("embed", "--model-path", folder, "--output", tmp_path / "vectors")[0] == 0
    table = pq.read_table(tmp_path / "vectors" / "items.parquet")
    np.testing.assert_array_equal(vectors_of(table), vectors_of(fitted.embed_items()))
    code, out, _ = call("index", "--model-path", folder, "--type", "faiss", "--set", "kind=flat")
    assert code == 0 and "40 items" in out
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"user_data": [{"user_id": "ann"}], "interactions": PAIRS}))
    code, out, _ = call("recommend", "--model-path", folder, "--data", request, "--embeddings", "--json")
    result = json.loads(out)
    expected = vectors_of(fitted.embed_users(json.loads(request.read_text())))[0]
    assert code == 0 and result["index"] == FLAT and not result["notes"]
    np.testing.assert_allclose(result["users"][0]["embedding"], expected, rtol=1e-5)


def test_known_users_of_bpr_keep_their_vectors_until_a_request_brings_more():
    recommender = fit("bpr_mf")
    model = recommender.model
    trained = model.scorer.classical.users
    np.testing.assert_array_equal(vectors_of(recommender.embed_users(["u003"]))[0], trained[3])
    more = [{"user_id": "u003", "item_id": item} for item in ITEMS]
    records = recommender.read_records("user", ["u003"], interactions=more)
    history = model.scorer.history_of(model.represent(records))
    assert set(ITEMS) <= {f"i{n:03d}" for n in history.indices} and history.nnz > 3
    expected = fold_in(pairs_of(history), model.scorer.classical.items, model.scorer.classical.negatives, 0.01)
    np.testing.assert_allclose(model.vectors("user", model.represent(records)).numpy(), expected, atol=1e-6)


def test_interactions_that_a_model_was_trained_on_change_nothing(fitted):
    """A server that is started on the log which its model was trained on lists as the model does."""
    seen = small_dataset().interactions.select(["user_id", "item_id"]).to_pylist()
    users = ["u001", "u002", "u003"]
    again = [one for one in seen if one["user_id"] in users]
    wanted, vectors = fitted.recommend(users, 9), vectors_of(fitted.embed_users(users))
    for repeated in (again, again[:4]):
        same_lists(fitted.recommend(users, 9, interactions=repeated), wanted)
    added = fitted.add({"user_data": [{"user_id": user} for user in [*users, "ann"]], "interactions": [*again, *PAIRS]})
    assert added.recommend(users, 9).equals(wanted)
    np.testing.assert_array_equal(vectors_of(added.embed_users(users)), vectors)
    more = added.add({"user_data": [{"user_id": "u001"}], "interactions": [{"user_id": "u001", "item_id": "i039"}]})
    assert not (vectors_of(more.embed_users(users))[0] == vectors[0]).all(), "i039 is new to u001"


def test_an_index_in_the_config_of_a_factorisation_is_saved_with_the_model(tmp_path):
    recommender = fit("svd", index=FLAT)
    folder = recommender.save(tmp_path / "model")
    assert (folder / "index" / "manifest.json").is_file()
    same_lists(Recommender.load(folder).recommend(None, 5), recommender.recommend(None, 5))


def test_new_items_of_a_request_are_merged_with_those_of_the_index():
    """The lists are those of scoring the wider catalogue, whether or not a new item may be listed."""
    config = small_config(training={"epochs": 1, "batch_size": 128, "patience": None})
    plain = Recommender.from_config(config).fit(small_dataset(), progress=False)
    new = [{"item_id": f"new{n}", "categorical": {"tags": [job]}} for n, job in enumerate(("nurse", "pilot", "baker"))]
    wide, found_by = plain.add_items(new), plain.with_config({"index": FLAT}).add_items(new)
    known = [f"i{n:03d}" for n in range(9)]
    for options in ({}, {"k": 43, "exclude_seen": False}, {"candidates": ["new1", *known]}, {"candidates": known}):
        options = {"k": 7, **options}
        found = found_by.recommend(None, **options)
        assert index_of(found) == FLAT
        same_lists(found, wide.recommend(None, **options))
    assert "new0" in found_by.recommend(None, 43, exclude_seen=False)["item_id"].to_pylist()
    twice = found_by.add_items([{"item_id": "last"}])
    same_lists(twice.recommend(None, 9), wide.add_items([{"item_id": "last"}]).recommend(None, 9))
    seen = [{"user_id": "u001", "item_id": "new1"}]
    same_lists(found_by.recommend(["u001"], 43, interactions=seen), wide.recommend(["u001"], 43, interactions=seen))


def test_explanations_name_the_history_of_folded_users_only():
    recommender = fit("bpr_mf")
    lists = pa.table({"user_id": ["u001", "ann"], "item_id": ["i007", "i007"]})
    request = {"user_data": [{"user_id": "u001"}, {"user_id": "ann"}], "interactions": PAIRS}
    known, folded = explain(recommender, request, lists)
    assert not known.reasons and "keeps what it learned" in known.note
    assert {reason.name for reason in folded.reasons} == set(ITEMS) and not folded.note
