"""Repeated targets: evaluation excludes seen items as served lists do, so metrics are those of served lists."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import START, small_config, small_dataset

from anyrec.core.config import Component
from anyrec.core.errors import ModelError
from anyrec.data.dataset import Dataset
from anyrec.data.split import NO_PART, PARTS, part_of_each, split_interactions
from anyrec.evaluation.classification import classify, labelled_pairs, score_pairs
from anyrec.evaluation.held_out import held_out
from anyrec.evaluation.truth_files import evaluate_file
from anyrec.recommender import Recommender

K = 10
TIME = pa.timestamp("us", "UTC")
PIPELINE = {
    "retrieve": {"k": 30, "sources": [{"type": "model"}, {"type": "popularity"}, {"type": "item_to_item"}]},
    "rank": {"type": "mlp", "k": 20, "training": {"epochs": 1}},
    "rerank": {"rules": [{"type": "diversity"}]},
}


def repeating(seed=0, users=50, each=10, share=0.4, views=False):
    """Return the small dataset with `each` interactions per user; about `share` of them repeat an earlier item."""
    rng, small = np.random.default_rng(seed), small_dataset(users=users)
    rows = []
    for user in range(users):
        had = []
        for n in range(each):
            again = had and rng.random() < share
            item = int(rng.choice(had)) if again else int(rng.integers(40))
            had.append(item)
            rows.append((f"u{user:03d}", f"i{item:03d}", START + dt.timedelta(hours=int(n * 7 + rng.integers(5)))))
    user_ids, item_ids, times = zip(*rows, strict=True)
    table = {"user_id": user_ids, "item_id": item_ids, "timestamp": pa.array(times, TIME)}
    if views:
        table["interaction_type"] = [["view", "buy"][int(rng.random() < 0.6)] for _ in rows]
    return Dataset(small.users, small.items, pa.table(table), roles=small.roles)


def fit(dataset=None, **changes):
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(**{"training": training, "split": {"protocol": "leave_last_n", "last_n": 2}, **changes})
    config["features"] = {"text": None, "temporal": None, **config.get("features", {})}
    return Recommender.from_config(config).fit(dataset or repeating(), progress=False)


def metrics_of_served_lists(recommender, part, repeats="miss"):
    """Mean ndcg, recall and hit rate at K of the lists that `recommend` returns before the part, by a plain loop."""
    state, dataset, split = recommender.model.before(part), recommender.dataset, recommender.model.split
    ids, items = dataset.ids("user").to_pylist(), dataset.ids("item").to_pylist()
    earlier = np.concatenate([split.rows(name) for name in PARTS[: PARTS.index(part)]])
    had = set(zip(dataset.user_rows[earlier].tolist(), dataset.item_rows[earlier].tolist(), strict=True))
    targets = {}
    for row in split.rows(part):
        user, item = int(dataset.user_rows[row]), int(dataset.item_rows[row])
        if repeats != "drop" or (user, item) not in had:
            targets.setdefault(user, set()).add(items[item])
    served = Recommender(recommender.config, recommender.registry, parts=replace(recommender.parts, model=state))
    table = served.recommend([ids[user] for user in targets], K, exclude_seen=repeats != "include_seen", now=0)
    lists = {user: [] for user in targets}
    for row in table.to_pylist():
        lists[ids.index(row["user_id"])].append(row["item_id"])
    gains = [1 / np.log2(place + 2) for place in range(K)]
    found = {"ndcg": [], "recall": [], "hit_rate": []}
    for user, wanted in targets.items():
        hits = [gain for item, gain in zip(lists[user], gains, strict=False) if item in wanted]
        found["ndcg"].append(sum(hits) / sum(gains[: len(wanted)]))
        found["recall"].append(len(hits) / len(wanted))
        found["hit_rate"].append(float(bool(hits)))
    return {f"{name}@{K}": float(np.mean(values)) for name, values in found.items()}


@pytest.fixture(scope="module")
def tower():
    return fit(features={"history": {"window": 8, "layers": 1}})


@pytest.fixture(scope="module", params=["tower", "ease", "ials", "recent_popularity"])
def model(request, tower):
    if request.param == "tower":
        return tower
    options = {"factors": 8} if request.param == "ials" else {}
    return tower.fit_like(tower.config.model_copy(update={"model": Component(type=request.param, **options)}))


def with_repeats(recommender, repeats):
    """The same model, measured by another rule."""
    config = recommender.config
    evaluation = config.evaluation.model_copy(update={"repeats": repeats})
    return recommender.with_config(config.model_copy(update={"evaluation": evaluation}))


@pytest.mark.parametrize("repeats", ["miss", "drop", "include_seen"])
@pytest.mark.parametrize("part", ["validation", "test"])
def test_reported_metrics_equal_those_of_the_served_lists(model, part, repeats):
    model = with_repeats(model, repeats)
    served = metrics_of_served_lists(model, part, repeats)
    reported = model.evaluate(part)
    assert {name: reported[name] for name in served} == pytest.approx(served, abs=1e-6)


@pytest.mark.parametrize("repeats", ["miss", "drop", "include_seen"])
def test_the_metrics_of_a_pipeline_equal_those_of_the_lists_that_it_serves(tower, repeats):
    staged = tower.with_pipeline(PIPELINE, progress=False)
    staged = with_repeats(staged, repeats)
    served = metrics_of_served_lists(staged, "test", repeats)
    reported = staged.evaluate_pipeline("test")
    assert {name: reported[name] for name in served} == pytest.approx(served, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    protocol=st.sampled_from(["leave_last_out", "leave_last_n", "random", "global_time", "cold_users"]),
    views=st.booleans(),
)
def test_a_tested_interaction_is_never_in_the_state_of_its_user(seed, protocol, views):
    dataset = repeating(seed, users=12, views=views)
    held = {"leave_last_out": {}, "leave_last_n": {"last_n": 2}}.get(protocol, {"test": 0.2, "validation": 0.2})
    config = small_config(
        split={"protocol": protocol, **held},
        model={"type": "ease"},
        data={"positive_types": {"buy": 1.0}} if views else {},
    )
    fitted = Recommender.from_config(config)
    fitted.config.training.patience = None
    try:
        fitted.fit(dataset, progress=False)
    except Exception as error:
        assert "no positive" in str(error)  # few users may leave nothing to train on
        return
    model = fitted.model.with_histories()
    times, users = fitted.dataset.times, fitted.dataset.user_rows
    for part in ("validation", "test"):
        state, tested = model.before(part), fitted.model.split.rows(part)
        later = np.concatenate([fitted.model.split.rows(name) for name in PARTS[PARTS.index(part) :]])
        events = [[] if cell is None else cell for cell in state.history.to_pylist()]
        for row in tested:
            mine = events[users[row]]
            first = times[tested][users[tested] == users[row]].min()
            assert all(event["time"] <= first for event in mine)
        known = len([1 for cell in events for _ in cell])
        allowed = np.ones(len(users), bool)
        allowed[later] = False
        assert known <= allowed.sum()
        only_tested = set(zip(users[later], fitted.dataset.item_rows[later], strict=True)) - set(
            zip(users[allowed], fitted.dataset.item_rows[allowed], strict=True)
        )
        owners = state.seen.owners()
        assert not only_tested & set(zip(owners, state.seen.items, strict=True))
        matrix = state.scorer.matrix.tocoo()
        assert not only_tested & set(zip(matrix.row, matrix.col, strict=True))


def test_an_interaction_that_is_not_positive_is_seen_only_in_later_parts():
    """A purchase that is held out, a view of the item before it and one after it."""
    hours = [START + dt.timedelta(hours=n) for n in range(5)]
    table = pa.table(
        {
            "user_id": ["u"] * 5,
            "item_id": ["a", "b", "c", "d", "e"],
            "interaction_type": ["buy", "view", "buy", "view", "buy"],
            "timestamp": pa.array(hours, TIME),
        }
    )
    data = Dataset(pa.table({"user_id": ["u"]}), pa.table({"item_id": list("abcde")}), table)
    config = Recommender.from_config({"split": {"protocol": "leave_last_out"}}).config
    positive = np.array([True, False, True, False, True])
    split, _ = split_interactions(data, config.split, 0, positive)
    assert part_of_each(data, split, positive).tolist() == [0, 0, 1, 1, 2]
    nothing = split.__class__(split.train[:1], split.validation, split.test, split.protocol)
    assert part_of_each(data, nothing, positive).tolist() == [0, NO_PART, 1, NO_PART, 2]


def test_a_repeated_target_is_a_miss_is_dropped_or_is_ranked_among_seen_items():
    fitted = fit(model={"type": "popularity"})
    held = held_out(fitted.model, "test")
    repeated = held.repeated
    assert 0.2 < repeated.mean() < 0.8
    figures = {}
    for repeats in ("miss", "drop", "include_seen"):
        changed = with_repeats(fitted, repeats)
        figures[repeats] = changed.evaluate("test")["recall@20"]
        assert len(held_out(changed.model, "test").targets.items) == (
            (~repeated).sum() if repeats == "drop" else len(repeated)
        )
    assert figures["miss"] < figures["drop"]


def test_a_file_of_the_test_part_gives_the_metrics_of_the_test_part_with_and_without_the_data(tower, tmp_path):
    import json

    truth, dataset = {}, tower.dataset
    users, items = dataset.ids("user").to_pylist(), dataset.ids("item").to_pylist()
    for row in tower.model.split.test:
        truth.setdefault(users[dataset.user_rows[row]], []).append(items[dataset.item_rows[row]])
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    loaded = Recommender.load(tower.save(tmp_path / "model"))
    for repeats in ("miss", "drop", "include_seen"):
        expected = with_repeats(tower, repeats).evaluate("test")
        for recommender in (with_repeats(tower, repeats), with_repeats(loaded, repeats)):
            found = evaluate_file(recommender.model, tmp_path / "truth.json")
            assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
            assert found["repeated_targets"] == held_out(with_repeats(tower, "miss").model, "test").repeated.sum()


def test_classification_scores_users_as_they_were_before_the_tested_part(tower):
    pairs = labelled_pairs(tower.model, "test")
    state = tower.model.before("test")
    repeated = state.seen.contains(pairs.users, pairs.items)
    scores = score_pairs(state, pairs.users, pairs.items)
    for repeats, expected, kept in (
        ("include_seen", scores, np.ones(len(scores), bool)),
        ("drop", scores, ~repeated),
        ("miss", np.where(repeated, -1e9, scores), np.ones(len(scores), bool)),
    ):
        found = classify(with_repeats(tower, repeats).model)
        from sklearn.metrics import roc_auc_score

        assert found["auc"] == pytest.approx(roc_auc_score(pairs.labels[kept], expected[kept]), abs=1e-9)
        assert found["repeats"]["positives"] == (repeated & pairs.labels).sum()
    after = tower.score_rows(None, pairs.users, pairs.items)["score"].to_numpy()
    assert not np.allclose(after, scores)  # the histories of today contain the tested interactions


def test_all_epochs_are_trained_if_no_validation_item_can_be_listed():
    """Every user takes the same two items in turn."""
    users = [f"u{n:02d}" for n in range(20)]
    rows = [(user, f"i{(n + step) % 2 + 2 * (n % 5):02d}") for n, user in enumerate(users) for step in range(6)]
    hours = [START + dt.timedelta(hours=n % 6) for n in range(len(rows))]
    table = pa.table(
        {"user_id": [u for u, _ in rows], "item_id": [i for _, i in rows], "timestamp": pa.array(hours, TIME)}
    )
    data = Dataset(pa.table({"user_id": users}), pa.table({"item_id": [f"i{n:02d}" for n in range(12)]}), table)
    for repeats, best in (("miss", 3), ("drop", 3)):
        training = {"epochs": 3, "batch_size": 128, "patience": 1}
        fitted = fit(data, training=training, split={"protocol": "leave_last_out"}, evaluation={"repeats": repeats})
        assert fitted.result.best_epoch == best and len(fitted.result.history) == 3
        assert fitted.metrics.get("test", {"ndcg@10": 0.0})["ndcg@10"] == 0.0


def test_a_refitted_model_is_never_evaluated_on_the_validation_part(tmp_path):
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    plain = fit(model={"type": "ease"}, training=training)
    fitted = fit(model={"type": "ease"}, training={**training, "refit": True})
    loaded = Recommender.load(fitted.save(tmp_path / "model")).with_data(repeating())
    for recommender in (fitted, loaded):
        assert recommender.evaluate("validation") == pytest.approx(plain.metrics["validation"])
        assert recommender.evaluate("test") != plain.metrics["test"]
        measured = f"{plain.metrics['validation']['ndcg@10']:.4f}"
        with pytest.raises(ModelError, match=f"has learned from the validation part.*{measured}"):
            classify(recommender.model, "validation")


@pytest.mark.parametrize("repeats", ["miss", "drop", "include_seen"])
def test_a_note_of_training_has_the_number_of_repeated_targets_and_both_metrics(repeats):
    fitted = fit(model={"type": "recent_popularity"}, evaluation={"repeats": repeats})
    held = held_out(fitted.model, "test", repeats="miss")
    note = next(one for one in fitted.notes if "the user had before" in one)
    assert f"{held.repeated.sum()} of {len(held.repeated)} held-out test pairs" in note and "include-seen" in note
    figures = {}
    for rule in ("miss", "drop", "include_seen"):
        figures[rule] = with_repeats(fitted, rule).evaluate("test")["ndcg@10"]
    assert (
        f"Without seen items, ndcg@10 is {figures['miss']:.4f} over all pairs, {figures['drop']:.4f} over new" in note
    )
    assert f"With seen items, it is {figures['include_seen']:.4f} over all pairs" in note


def test_the_doctor_warns_of_repeated_interactions_if_lists_exclude_seen_items():
    from anyrec.data.doctor.examine import examine

    mostly = [one for one in examine(repeating(share=0.9)) if one.kind == "repeats"]
    assert len(mostly) == 1 and mostly[0].level == "warning" and mostly[0].text.startswith("Most interactions")
    assert "Lists leave out seen items" in mostly[0].text and "--include-seen" in mostly[0].advice
    assert not [one for one in examine(small_dataset()) if one.kind == "repeats"]
