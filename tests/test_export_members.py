"""Exports of blends and classical models: the runtime, in NumPy, gives the scores and lists of the model."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from small import call, small_config, small_dataset

pytest.importorskip("onnx", reason="pip install 'anyrec[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'anyrec[export]'")
pytest.importorskip("onnxscript", reason="pip install 'anyrec[export]'")
pytest.importorskip("implicit", reason="pip install 'anyrec[baselines]'")
from anyrec.core.contracts import Classical
from anyrec.core.discovery import discover
from anyrec.core.errors import InputError
from anyrec.data.pairs import Pairs
from anyrec.data.scoring import kinds
from anyrec.data.scoring.kinds import HistoryWeights, Neighbours, SameForAll
from anyrec.export import load, ranking
from anyrec.export.check import exportable
from anyrec.export.members import Member, UserStates
from anyrec.model.blended import TOWERS, BlendedModel, member_config, towers_of
from anyrec.model.choice import Choice, Weights
from anyrec.recommender import Recommender
from anyrec.storage.parts import ModelParts
from anyrec.training.fit_classical import fit_classical

CLOSE = 1e-5
"""Largest difference of scores, relative to the largest score."""
PLAIN = {"categorical": {}, **dict.fromkeys(("identity", "continuous", "temporal", "text", "image"))}
OPTIONS = {
    "ials": {"factors": 6, "alpha": 5.0, "iterations": 3},
    "bpr_mf": {"factors": 6, "iterations": 5},
    "svd": {"factors": 6},
    "content_knn": {"dimension": 4},
}
NAMES = [one.type for one in discover(drop_in=False).plugins("classical")]
NEW = [
    {"user_id": "new", "categorical": {"job": "nurse"}},
    {"user_id": "late"},
    {"user_id": "listed", "temporal": {"history": ["i001", "i002", "i003"]}},
    {"user_id": "u004", "categorical": {"job": "acrobat"}, "temporal": {"history": ["i009"]}},
    {"user_id": "u002"},
    {"user_id": "silent"},
]
DID = [
    {"user_id": user, "item_id": item, "interaction_type": kind}
    for user, item, kind in (("late", "i007", "buy"), ("late", "i008", "view"), ("u002", "i030", "buy"))
]
REQUESTS = {
    "all known users": (None, None),
    "known users without a history and with a short one": (["silent", "short"], None),
    "new and known users with interactions and lists of their own": (NEW, DID),
    "a new user without anything": ([{"user_id": "nobody", "categorical": {"job": "pilot"}}], None),
}


def fitted(**changes):
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(features=PLAIN, training=training, **changes)
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


def grown(recommender):
    """The recommender with a user without and a user with a short history."""
    bought = [{"user_id": "short", "item_id": "i005", "interaction_type": "buy"}]
    return recommender.add_users([{"user_id": "silent"}, {"user_id": "short"}], interactions=bought)


@pytest.fixture(scope="module")
def blend(tmp_path_factory):
    """A blend with every built-in classical model, to which users and an item were added, and its export."""
    changes = {"data": {"positive_types": {"buy": 1.0}}, "heads": {"rating": {"type": "rating"}}}
    towers = towers_of(fitted(split={"protocol": "leave_last_out"}, **changes).model)
    learning, members = towers.required_learning(), {}
    for name in NAMES:
        own = member_config(towers.config, name, OPTIONS.get(name, {}))
        members[name] = fit_classical(own, learning, learning.split, towers.registry, towers.context)
    known = {TOWERS: 0.2, **{name: 0.05 + 0.01 * at for at, name in enumerate(NAMES)}}
    weights: Weights = {"known": known, "new": {TOWERS: 0.5, "popularity": 0.25, "trending": 0.25}}
    model = BlendedModel.of(towers, members, Choice("ndcg@10", {}, weights, {name: {} for name in NAMES}))
    recommender = grown(Recommender(model.config, model.registry, parts=ModelParts(model)))
    recommender = recommender.add_items([{"item_id": "added", "categorical": {"tags": ["nurse"]}}])
    return recommender, recommender.export(tmp_path_factory.mktemp("exports") / "blend").folder


@pytest.fixture(scope="module")
def runtime(blend):
    return load(blend[1], threads=1)


def assert_same_lists(found, expected):
    """The same users, ranks and scores, and the same items, but for those whose scores differ by rounding only."""
    assert len(found) and found["user_id"].equals(expected["user_id"]) and found["rank"].equals(expected["rank"])
    ours, theirs = (one["score"].to_numpy() for one in (expected, found))
    limit = CLOSE * max(1.0, np.abs(ours).max())
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=limit)
    for row in np.flatnonzero(found["item_id"].to_numpy() != expected["item_id"].to_numpy()):
        near = ours[max(0, row - 1) : row + 2]
        assert np.sort(np.abs(near - ours[row]))[1] < 2 * limit, (row, near)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_blend_gives_the_lists_of_the_model(request_, blend, runtime):
    users, did = REQUESTS[request_]
    for options in ({"k": 10}, {"k": 40, "exclude_seen": False}, {"k": 3, "candidates": ["i003", "i011", "added"]}):
        found, expected = (one.recommend(users, interactions=did, **options) for one in (runtime, blend[0]))
        assert_same_lists(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_each_classical_model_scores_as_its_original(name, blend, runtime):
    model, member = blend[0].model, runtime.bundle.members[name]
    for users, did in REQUESTS.values():
        records = model.read_records("user", users, interactions=did)
        with torch.inference_mode():
            represented = model.represent(records)[:, model.towers.representations("item").shape[1] :].long()
            expected = model.members[name].scorer.score(represented, torch.arange(40)[:, None]).numpy()
        states = UserStates.of(records, True)
        found = np.concatenate([member.score(states.take(np.array([n]))) for n in range(len(records.ids))])
        np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * max(1.0, np.abs(expected).max()))
        np.testing.assert_allclose(member.score(states), found, rtol=0, atol=1e-6 * max(1.0, np.abs(expected).max()))


def test_pairs_get_the_scores_and_predictions_of_the_model(blend, runtime, monkeypatch):
    monkeypatch.setattr(ranking, "CELLS_AT_A_TIME", 100)  # blocks of two users
    rng = np.random.default_rng(0)
    users = [*rng.integers(0, 60, 30), 60, 61]
    ids = ["silent" if n == 60 else "short" if n == 61 else f"u{n:03d}" for n in users]
    pairs = [{"user_id": user, "item_id": f"i{n:03d}"} for user, n in zip(ids, rng.integers(0, 40, 32), strict=True)]
    pairs.append({"user_id": "u001", "item_id": "added"})
    found, expected = (one.score(pairs) for one in (runtime, blend[0]))
    assert found.column_names == expected.column_names
    for name in ("score", "rating"):
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=0, atol=1e-5)


def test_items_that_are_added_to_the_runtime_are_listed_as_by_the_model(blend, runtime):
    new = [{"item_id": "new", "categorical": {"tags": ["pilot"]}}]
    found, expected = (one.add_items(new).recommend(NEW, 42, interactions=DID) for one in (runtime, blend[0]))
    assert "new" in found["item_id"].to_pylist()
    assert_same_lists(found, expected)


def test_a_default_blend_is_exported_by_the_command_line_and_served_without_torch_and_scipy(tmp_path):
    recommender = fitted(blend={"trials": 1, "users": 50}, split={"protocol": "leave_last_out"})
    assert isinstance(recommender.model, BlendedModel)
    saved, folder = recommender.save(tmp_path / "model"), tmp_path / "export"
    code, _, message = call("export", "--model-path", saved, "--output", folder)
    assert code == 0, message
    program = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'sklearn', 'implicit', 'faiss'):\n"
        "    sys.modules[name] = None\n"
        "from anyrec.export import load\n"
        "found = load(sys.argv[1], threads=1).recommend(None, 5)\n"
        "print(found['item_id'].to_pylist())\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(recommender.recommend(None, 5)["item_id"].to_pylist()), done.stderr
    assert exportable(recommender.parts, ["blend"]) is recommender.model.towers


@pytest.mark.parametrize("name", ["item_knn", "ials", "popularity"])
def test_a_classical_model_alone_is_exported(name, tmp_path):
    recommender = grown(fitted(model={"type": name, **OPTIONS.get(name, {})}))
    runtime = load(recommender.export(tmp_path / "export").folder)
    pairs = [{"user_id": "u003", "item_id": "i007"}, {"user_id": "silent", "item_id": "i001"}]
    scores = [one.score(pairs)["score"].to_numpy() for one in (runtime, recommender)]
    np.testing.assert_allclose(*scores, rtol=1e-5)
    for users, did in REQUESTS.values():
        assert_same_lists(*(one.recommend(users, 40, interactions=did) for one in (runtime, recommender)))
    if name == "ials":
        for side, records in (("users", None), ("users", NEW), ("items", ["i004", "i001"])):
            found, ours = (getattr(one, f"embed_{side}")(records)["embedding"] for one in (runtime, recommender))
            np.testing.assert_allclose(np.stack(found.to_numpy()), np.stack(ours.to_numpy()), atol=1e-6)
    else:
        with pytest.raises(InputError, match=f"'{name}' has no embeddings"):
            runtime.embed_users(["u001"])
    with pytest.raises(InputError, match=f"{name} has no towers"):
        runtime.add_items([{"item_id": "new"}])


@pytest.mark.parametrize("name", ["trending", "bpr_mf"])
def test_an_export_without_users_knows_none_and_reads_the_histories_of_requests(name, tmp_path):
    recommender = fitted(model={"type": name, **OPTIONS.get(name, {})})
    folder = recommender.export(tmp_path / "export", users=False).folder
    runtime = load(folder)
    assert len(runtime.dataset.users) == 0 and len(runtime.bundle.members[name].known.items) == 0
    new, did = [one for one in NEW if not one["user_id"].startswith("u")], DID[:2]
    assert_same_lists(*(one.recommend(new, 40, interactions=did) for one in (runtime, recommender)))
    with pytest.raises(InputError, match="knows no such user"):
        runtime.recommend(["u001"])


class Newest(Classical):
    """Items in the order of their rows, for each user from another one on."""

    type = "newest"

    def fit(self, training):
        self.count = training.matrix.shape[1]

    def score(self, rows, matrix):
        return ((np.arange(self.count) + rows[:, None]) % self.count).astype(np.float32)

    def state(self):
        return {"count": np.array([self.count])}

    def restore(self, state):
        self.count = int(state["count"][0])


def test_a_plugin_that_declares_no_scoring_cannot_be_exported_and_one_list_needs_no_declaration(tmp_path):
    def exported(cls):
        recommender = Recommender.from_config(small_config())
        recommender.registry.add_class("classical", cls, "test")
        config = small_config(model={"type": cls.type})
        recommender = Recommender(recommender.config.model_validate(config), recommender.registry)
        return recommender.fit(small_dataset(), progress=False), tmp_path / cls.__name__

    recommender, folder = exported(Newest)
    with pytest.raises(InputError, match=r"'newest' cannot be exported because its score\(\) has no"):
        recommender.export(folder)
    undeclared = type("Undeclared", (discover(drop_in=False).get("classical", "ease", ""),), {"type": "undeclared"})
    with pytest.raises(InputError, match="'undeclared' cannot be exported"):
        exported(undeclared)[0].export(folder)
    misspelt = type("Misspelt", (Newest,), {"type": "misspelt", "scoring": "neighbors"})
    with pytest.raises(InputError, match="there is no scoring 'neighbors'"):
        exported(misspelt)[0].export(folder)
    ranked = {"score": lambda self, rows, matrix: np.tile(np.arange(40, dtype=np.float32), (len(rows), 1))}
    same = type("Same", (Newest,), {"type": "same", "personal": False, **ranked})
    recommender, folder = exported(same)
    assert_same_lists(load(recommender.export(folder).folder).recommend(), recommender.recommend())


def test_sparse_scores_of_a_large_catalogue_are_standardised_without_loss_of_digits():
    scores = np.where(np.arange(30_000) % 300, 0, np.arange(30_000)).astype(np.float32)
    fitted = np.arange(30_000) % 7 != 1
    flags = {"personal": False, "by_history": False, "folds_in": False, "ranks_new_users": False}
    nobody = Pairs(np.empty(0, np.int64), np.zeros(1, np.int64))
    member = Member(SameForAll({"scores": scores}), flags, nobody, scores, fitted, np.empty(0, bool))
    new = UserStates(np.full(2, -1), np.zeros(2, bool), Pairs(nobody.items, np.zeros(3, np.int64)))
    exact = scores.astype(np.float64)
    expected = np.where(fitted, (exact - exact[fitted].mean()) / exact[fitted].std(), 0)
    found = member.standardised(new, 30_001, 1e-9)
    np.testing.assert_allclose(found, [[*expected, 0]] * 2, rtol=1e-6, atol=1e-6)


def test_sums_and_sparse_scores_are_matrix_products_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    dense = (rng.random((9, 12)) < 0.3).astype(np.float32)
    dense[[0, 4, 8]] = 0
    weights = (rng.random((12, 12)) * (rng.random((12, 12)) < 0.5)).astype(np.float32)
    owners, items = np.nonzero(dense)
    histories = Pairs.of(owners, items, 9)
    rows, columns = np.nonzero(weights)
    sparse = Pairs.of(rows, columns, 12)
    state = {"offsets": sparse.offsets, "columns": columns, "values": weights[rows, columns]}
    for most in (1, 30, 1 << 24):
        monkeypatch.setattr(kinds, "CELLS", most)
        for scoring in (HistoryWeights({"weights": weights}), Neighbours(state)):
            np.testing.assert_allclose(scoring.score(np.arange(9), histories), dense @ weights, rtol=1e-6)
        each = rng.random(len(items)).astype(np.float32)
        weighted = np.zeros_like(dense)
        weighted[owners, items] = each
        np.testing.assert_allclose(kinds.sums(histories, weights, each), weighted @ weights, rtol=1e-5)
