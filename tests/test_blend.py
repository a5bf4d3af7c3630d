"""The blend of towers with classical models: its score, its choice on validation, its files and its requests."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import START, small_config, small_dataset

from anyrec import Recommender
from anyrec.core.errors import ConfigError, ModelError
from anyrec.data.dataset import Dataset
from anyrec.data.pairs import Pairs
from anyrec.data.split import Split
from anyrec.evaluation.held_out import HeldOut, refuse_refitted
from anyrec.model.blended import TOWERS, BlendedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.serving.explain import explain
from anyrec.training.ensemble import make_pool, select
from anyrec.training.fit_classical import fit_classical

DATA = {"users": 120, "items": 40, "each": 8}
MODELS = [{"type": "ease", "l2": 20.0}, {"type": "popularity"}]


def fitted(models=MODELS, blend=None, epochs=1, refit=False, **changes):
    """A blend whose towers have learned for one epoch only, so that classical models have weights."""
    training = {"epochs": epochs, "batch_size": 128, "patience": None, "refit": refit}
    section = {"models": models, **(blend or {})}
    config = small_config(training=training, split={"protocol": "leave_last_out"}, blend=section, **changes)
    return Recommender.from_config(config).fit(small_dataset(**DATA), progress=False)


@pytest.fixture(scope="module")
def blend():
    return fitted()


def standardised(scores, trained):
    """The scores of users for all items, minus the mean and divided by the deviation of the trained items' scores."""
    mean, deviation = scores[:, trained].mean(1, keepdims=True), scores[:, trained].std(1, keepdims=True)
    return (scores - mean) / deviation


def test_the_score_is_the_weighted_sum_of_standardised_scores(blend):
    model = blend.model
    assert isinstance(model, BlendedModel) and set(model.members) <= {"ease", "popularity"} and model.members
    users, items = model.representations("user"), model.representations("item")
    trained = model.scorer.known.numpy()
    places = torch.arange(len(items))
    with torch.inference_mode():
        found = model.scorer.score(users, items).numpy()
        towers = model.towers
        own = towers.scorer.score(towers.representations("user"), towers.representations("item")).float().numpy()
        expected = model.weights["known"].get(TOWERS, 0.0) * standardised(own, trained)
        for name, member in model.members.items():
            scores, own = member.scorer.score(torch.arange(len(users))[:, None], places[:, None]), member.scorer.fitted
            expected += model.weights["known"].get(name, 0.0) * np.where(own, standardised(scores.numpy(), own), 0)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_list_has_the_best_scores_and_pairs_have_the_same_scores(blend):
    listed = blend.recommend(["u003"], 5)
    pairs = [{"user_id": "u003", "item_id": item} for item in listed["item_id"].to_pylist()]
    np.testing.assert_allclose(blend.score(pairs)["score"].to_numpy(), listed["score"].to_numpy(), rtol=1e-4)


def test_saved_and_loaded_it_is_the_same_model(blend, tmp_path):
    loaded = Recommender.load(blend.save(tmp_path / "model"))
    assert isinstance(loaded.model, BlendedModel)
    assert loaded.model.weights == blend.model.weights and loaded.model.tuned == blend.model.tuned
    assert loaded.recommend(None, 10).equals(blend.recommend(None, 10))
    person = [{"user_id": "someone", "categorical": {"job": "nurse"}}]
    seen = [{"user_id": "someone", "item_id": "i003"}]
    assert loaded.recommend(person, 5, interactions=seen).equals(blend.recommend(person, 5, interactions=seen))
    again = loaded.with_data(small_dataset(**DATA))
    assert again.evaluate("test") == pytest.approx(blend.metrics["test"])


def test_the_same_seed_gives_the_same_blend(blend):
    again = fitted()
    assert again.model.weights == blend.model.weights
    assert again.recommend(None, 10).equals(blend.recommend(None, 10))


def test_towers_alone_are_kept_if_no_member_is_better():
    recommender = fitted(models=[{"type": "popularity"}], epochs=60)
    assert isinstance(recommender.model, TwoTowerModel)
    assert recommender.model.tuned == {"popularity": {}}
    assert any("towers alone are chosen" in note for note in recommender.notes)


def test_null_switches_it_off_and_the_fitted_defaults_switch_it_on():
    data = small_dataset(**DATA)
    off = Recommender.from_config({"blend": None, "training": {"epochs": 1}}).fit(data, progress=False)
    on = Recommender.from_config({"training": {"epochs": 1}}).fit(data, progress=False)
    assert off.config.blend is None and on.config.blend is not None
    assert any("`blend: null` switches blending off" in note for note in on.notes)


def test_the_validation_part_is_refused_once_members_learned_from_it(blend):
    with pytest.raises(ModelError, match=r"blend\.refit"):
        refuse_refitted(blend.model, "validation")
    assert blend.metrics["validation"]["ndcg@10"] > 0
    kept = fitted(blend={"refit": False})
    assert kept.evaluate("validation") == pytest.approx(kept.metrics["validation"])


def test_few_users_and_rounds_choose_weights_as_well():
    few = fitted(models=[{"type": "ease"}], blend={"rounds": 2, "users": 30, "trials": 2})
    weights = few.model.choice.weights["known"]
    assert sum(weights.values()) == pytest.approx(1) and len(weights) <= 3


def test_members_learn_from_train_and_validation_but_not_from_test(blend):
    learning, member = blend.model.learning, blend.model.members["ease"]
    rows = np.union1d(learning.split.train, learning.split.validation)
    split = Split(rows, np.empty(0, np.int64), learning.split.test, learning.split.protocol)
    expected = fit_classical(member.config, learning, split, blend.registry, member.context)
    np.testing.assert_array_equal(member.scorer.classical.weights, expected.scorer.classical.weights)


def test_towers_that_are_fitted_again_keep_members_that_are_not():
    again = fitted(models=[{"type": "ease"}], blend={"refit": False}, refit=True).model
    member, learning = again.members["ease"], again.learning
    expected = fit_classical(member.config, learning, learning.split, again.registry, member.context)
    np.testing.assert_array_equal(member.scorer.classical.weights, expected.scorer.classical.weights)


def test_evaluation_ranks_as_the_served_lists(blend):
    """The metric of the test part is that of the lists made from the state before it."""
    state = blend.model.before("test")
    held = blend.model.learning.held_out("test")
    users, wanted = state.dataset.user_rows[held], state.dataset.item_rows[held]
    with torch.inference_mode():
        scores = state.scorer.score(state.user_representations(users), state.representations("item")).numpy()
    owners, items = state.seen.take(users)
    scores[owners, items] = -np.inf
    ranks = (scores > scores[np.arange(len(users)), wanted][:, None]).sum(1) + 1
    expected = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()
    assert blend.metrics["test"]["ndcg@10"] == pytest.approx(expected, abs=1e-6)


def test_a_new_item_is_ranked_by_the_towers_alone(blend):
    wider = blend.add_items([{"item_id": "fresh", "categorical": {"tags": ["nurse"]}}])
    before = {row["item_id"]: row["score"] for row in blend.recommend(["u003"], 40, exclude_seen=False).to_pylist()}
    after = {row["item_id"]: row["score"] for row in wider.recommend(["u003"], 41, exclude_seen=False).to_pylist()}
    fresh = after.pop("fresh")
    assert after == pytest.approx(before, abs=1e-4)
    model = wider.model
    own = model.towers.representations("item")[-1:]
    user = model.towers.representations("user")[3:4]
    with torch.inference_mode():
        standard = float(model.scorer.towers_score(user, own))
    assert fresh == pytest.approx(model.weights["known"].get(TOWERS, 0.0) * standard, abs=1e-4)


def with_item_in_test_only():
    """The data, with an item that is only the last one of three users: the test part of leave_last_out."""
    data = small_dataset(**DATA)
    items = pa.concat_tables([data.items, data.items.slice(0, 1).set_column(0, "item_id", [["late"]])])
    last = {"user_id": [f"u{n:03d}" for n in range(3)], "item_id": ["late"] * 3, "interaction_type": ["buy"] * 3}
    times = pa.array([START + dt.timedelta(days=99)] * 3, pa.timestamp("us", "UTC"))
    more = pa.table({**last, "timestamp": times, "rating": [5.0] * 3})
    return Dataset(data.users, items, pa.concat_tables([data.interactions, more]), roles=data.roles)


@pytest.mark.parametrize("refit", [False, True])
def test_an_item_that_only_the_test_part_has_is_unknown_to_members_that_were_not_fitted_on_it(refit, tmp_path):
    """To serve, members read all histories; what they were fitted on stays the same, also in a saved model."""
    section = {"models": MODELS, "refit": refit}
    config = small_config(
        training={"epochs": 1, "batch_size": 128, "patience": None},
        split={"protocol": "leave_last_out"},
        blend=section,
    )
    recommender = Recommender.from_config(config).fit(with_item_in_test_only(), progress=False)
    loaded = Recommender.load(recommender.save(tmp_path / "model")).model
    late = recommender.model.rows_of("item", ["late"])
    parts = {"train", "validation"} if refit else {"train"}
    learning = recommender.model.learning
    rows = learning.positives(np.concatenate([learning.split.rows(part) for part in parts]))
    trained = np.isin(np.arange(41), learning.dataset.item_rows[rows])
    assert not trained[late].any()
    states = [recommender.model, loaded, recommender.model.before("test"), loaded.before("test")]
    for state in states:
        ease = state.members["ease"]
        np.testing.assert_array_equal(ease.scorer.fitted, trained)
        np.testing.assert_array_equal(state.scorer.known.numpy(), trained)
        late_scores = state.scorer.member_score(ease, torch.arange(9)[:, None], torch.from_numpy(late))
        assert not late_scores.any()
    counted = recommender.model.members.get("popularity")
    if counted is not None:  # counts of the past are served with all of it
        assert counted.scorer.fitted[late].all()
        assert not recommender.model.before("test").members["popularity"].scorer.fitted[late].any()


def test_a_history_in_the_request_changes_the_list_of_a_new_user(blend):
    person = [{"user_id": "someone", "categorical": {"job": "nurse"}}]
    nurse = [{"user_id": "someone", "item_id": f"i{n:03d}"} for n in (1, 2, 3)]
    assert not blend.recommend(person, 5).equals(blend.recommend(person, 5, interactions=nurse))


def test_effects_of_an_explanation_are_differences_of_the_blended_score():
    """With one feature only, masking an item of the history changes the classical members alone."""
    blend = fitted(models=[{"type": "ease", "l2": 20.0}])
    lists = blend.recommend(["u005"], 3)
    explained = explain(blend, ["u005"], lists)
    assert all(one.reasons for one in explained)
    assert {reason.kind for one in explained for reason in one.reasons} >= {"history", "item"}


def test_embeddings_and_search_are_those_of_the_towers(blend):
    vectors = np.stack(blend.embed_items()["embedding"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(vectors, blend.model.towers.embeddings("item"), rtol=1e-5)
    assert len(blend.search(text="nurse", k=3)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "ease"}}, "only a two_tower"),
        ({"interaction": {"type": "mlp"}}, "dot products"),
        ({"pipeline": {"rank": {"type": "dcn"}}}, "ranker"),
        ({"blend": {"models": [{"type": "easy"}]}}, "ease"),
        ({"blend": {"models": [{"type": "ease", "l3": 1}]}}, "l3"),
    ],
)
def test_what_cannot_be_blended_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Recommender.from_config({"blend": {}, **changes}).fit(small_dataset(), progress=False)


def scores_of(values):
    return lambda rows: torch.from_numpy(values[rows].astype(np.float32))


def planted(users=200, items=60, seed=0):
    """Scores of two members that each see half of the truth, and of noise; one target for each user."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(2, users, items))
    targets = truth.sum(0).argmax(1)
    held = HeldOut(
        Pairs.of(np.arange(users), targets, users),
        Pairs.of(np.array([], int), np.array([], int), users),
        np.ones(items, bool),
    )
    members = {"left": truth[0], "right": truth[1], "noise": rng.normal(size=(users, items))}
    return members, held, targets


def test_selection_finds_members_that_complement_each_other():
    members, held, _ = planted()
    pool = make_pool(np.arange(200), {name: scores_of(one) for name, one in members.items()}, held)
    weights = select(pool, "ndcg@10", 20, {"noise": 1.0})
    assert set(weights) == {"left", "right"} and sum(weights.values()) == pytest.approx(1)
    assert abs(weights["left"] - 0.5) < 0.15


def test_selection_finds_a_small_share_of_a_member_that_is_much_worse_alone():
    """The truth is mostly that of one member; half of the other would make the blend worse than that member alone."""
    rng = np.random.default_rng(1)
    members = {"good": rng.normal(size=(400, 60)), "weak": rng.normal(size=(400, 60))}
    truth = members["good"] + 0.25 * members["weak"]
    held = HeldOut(
        Pairs.of(np.arange(400), truth.argmax(1), 400), Pairs.of(*np.zeros((2, 0), int), 400), np.ones(60, bool)
    )
    pool = make_pool(np.arange(400), {name: scores_of(one) for name, one in members.items()}, held)
    halves = pool.values(pool.blended({"good": 0.5, "weak": 0.5}), "ndcg@10").mean()
    assert halves < pool.values(pool.scores["good"], "ndcg@10").mean()
    assert 0.1 < select(pool, "ndcg@10", 20, {"good": 1.0})["weak"] < 0.35


def test_the_preferred_member_stays_without_evidence_against_it():
    members, held, _ = planted()
    same = {"left": members["left"], "copy": members["left"], "noise": members["noise"]}
    pool = make_pool(np.arange(200), {name: scores_of(one) for name, one in same.items()}, held)
    assert select(pool, "ndcg@10", 20, {"copy": 1.0}, evidence=(4.0, 5.0)) == {"copy": 1.0}
    found = select(pool, "ndcg@10", 20, {"noise": 1.0})
    assert found["left"] > 0.9
    assert select(pool, "ndcg@10", 20, {"noise": 1.0}, evidence=(1000.0, 2000.0)) == {"noise": 1.0}
    between = select(pool, "ndcg@10", 20, {"noise": 1.0}, evidence=(0.0, 1000.0))
    assert "noise" in between


@given(evidence=st.floats(-5, 5), width=st.floats(0.1, 50))
@settings(max_examples=20, deadline=None)
def test_weights_move_from_the_default_to_the_others_with_the_evidence(evidence, width):
    members, held, _ = planted()
    pool = make_pool(np.arange(200), {name: scores_of(one) for name, one in members.items()}, held)
    weights, later = (
        select(pool, "ndcg@10", 4, {"noise": 1.0}, evidence=(start, start + width))
        for start in (evidence, evidence + 1)
    )
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) > 0
    assert later.get("noise", 0) >= weights.get("noise", 0) - 1e-9


def test_weights_are_shared_among_members_that_are_equally_good():
    """One selection would take the one that is best by chance; a blend of both is better on other users."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(400, 60))
    members = {name: truth + rng.normal(size=truth.shape) for name in ("one", "other")}
    held = HeldOut(
        Pairs.of(np.arange(400), truth.argmax(1), 400), Pairs.of(*np.zeros((2, 0), int), 400), np.ones(60, bool)
    )
    pool = make_pool(np.arange(400), {name: scores_of(one) for name, one in members.items()}, held)
    found = pool.only(np.arange(400) < 200)
    weights = select(found, "ndcg@10", 20, {"one": 1.0}, evidence=(-2.0, 0.0))
    assert 0.3 < weights["one"] < 0.7
    assert weights == select(found, "ndcg@10", 20, {"one": 1.0}, evidence=(-2.0, 0.0), seed=0)
    rest = pool.only(np.arange(400) >= 200)
    alone = max(rest.values(scores, "ndcg@10").mean() for scores in rest.scores.values())
    assert rest.values(rest.blended(weights), "ndcg@10").mean() > alone


@pytest.mark.parametrize("size", [5, 60])
def test_a_pool_has_the_metric_of_the_whole_catalogue(size):
    """Of the best items only, or of all: the first ten places of a single member's list are in the pool."""
    members, held, targets = planted()
    pool = make_pool(np.arange(200), {name: scores_of(one) for name, one in members.items()}, held, size=max(size, 10))
    own = members["left"]
    ranks = (own > own[np.arange(200), targets][:, None]).sum(1) + 1
    expected = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    np.testing.assert_allclose(pool.values(pool.scores["left"], "ndcg@10"), expected, atol=1e-9)


def test_seen_items_are_no_candidates_and_a_seen_target_is_a_miss():
    members, held, targets = planted()
    seen = Pairs.of(np.arange(200), targets, 200)
    pool = make_pool(np.arange(200), {"left": scores_of(members["left"])}, HeldOut(held.targets, seen, held.rankable))
    assert not pool.values(pool.scores["left"], "recall@10").any()


def fashionable(users=240, items=40, each=8):
    """Each day a new user comes, and mostly chooses among the six items that are in fashion; these change."""
    random, rows = np.random.default_rng(0), []
    for user in range(users):
        odds = np.where((np.arange(items) * 6 - user) % 240 < 36, 10.0, 0.1)
        for item in random.choice(items, each, replace=False, p=odds / odds.sum()):
            time = START + dt.timedelta(days=user, minutes=len(rows))
            rows.append({"user_id": f"u{user:03d}", "item_id": f"i{item:03d}", "timestamp": time})
    ids = pa.table({"item_id": [f"i{item:03d}" for item in range(items)]})
    return Dataset(pa.table({"user_id": [f"u{user:03d}" for user in range(users)]}), ids, pa.Table.from_pylist(rows))


def test_users_without_a_history_get_a_model_that_ranks_items_for_them():
    config = {
        "training": {"epochs": 1},
        "split": {"protocol": "global_time"},
        "blend": {"models": [{"type": "trending"}, {"type": "popularity"}]},
    }
    recommender = Recommender.from_config(config).fit(fashionable(), progress=False)
    assert recommender.model.choice is not None
    weights = recommender.model.choice.weights
    assert weights["new"].get("trending", 0) > 0.5
    # few users come back, so the weights of users with a history are chosen by all users
    assert weights["known"].get("trending", 0) > 0.5
    assert recommender.model.choice.reference == "trending"
    stranger = recommender.recommend([{"user_id": "nobody"}], 5)
    assert len(explain(recommender, [{"user_id": "nobody"}], stranger)) == 5


@pytest.mark.parametrize(("protocol", "reference"), [("global_time", "trending"), ("leave_last_out", "two_tower")])
def test_a_model_that_learned_at_past_moments_is_preferred_on_a_split_by_time(protocol, reference, monkeypatch):
    """Without any evidence the reference is delivered, but new users get the towers, which read their features."""
    monkeypatch.setattr("anyrec.training.blend.FEWEST_USERS", 10**6)
    config = {"training": {"epochs": 1}, "split": {"protocol": protocol}, "blend": {"rounds": 2, "trials": 1}}
    choice = Recommender.from_config(config).fit(fashionable(), progress=False).model.choice
    assert choice.reference == reference
    assert choice.weights == {"known": {reference: 1.0}, "new": {"two_tower": 1.0}}
    expected = "trending is chosen: it learned at past moments" if reference == "trending" else "The towers alone"
    assert choice.sentence.startswith(expected)


def test_candidates_far_behind_are_not_tuned_and_the_report_tunes_them_itself(monkeypatch):
    monkeypatch.setattr("anyrec.training.blend.LEAST_RATIO", 1000.0)
    config = {"training": {"epochs": 1}, "blend": {"models": [{"type": "popularity"}, {"type": "ease"}]}}
    model = Recommender.from_config(config).fit(small_dataset(), progress=False).model
    assert model.choice.untuned == ["ease"] and model.choice.options["ease"] == {"l2": 200.0}
    assert set(model.tuned) == {"popularity"}
