"""Updates: what joins is what `add` adds, and steps on the new interactions are kept only if they improve the lists."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from small import call, small_config, small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.errors import ConfigError, DataError, InputError
from anyrec.core.ragged import Prepared
from anyrec.model.blended import towers_of
from anyrec.training import update as module

LAST = {"protocol": "leave_last_out"}
TRAINING = {"epochs": 2, "batch_size": 128, "patience": None}
HISTORY = {"window": 10, "layers": 1, "heads": 2}
FAST = {"learning_rate": 1.0}
CONFIGS = {
    "towers": small_config(training=TRAINING, split=LAST, update=FAST),
    "sequence": small_config(
        training=TRAINING, split=LAST, update=FAST, features={"history": HISTORY}, loss={"type": "full_softmax"}
    ),
    "set": small_config(
        training=TRAINING,
        split=LAST,
        update=FAST,
        features={"history": {"block": "mean"}},
        loss={"type": "full_softmax"},
        index={"type": "faiss", "kind": "flat"},
    ),
    "blend": small_config(training=TRAINING, split=LAST, update=FAST, blend={"models": [{"type": "ease", "l2": 20.0}]}),
}


def old_and_new():
    """Two datasets: the last third of the interactions by time is new, with 20 users and 5 items of 200 and 60."""
    full = small_dataset(users=200, items=60, each=12)
    hours = pc.hour(full.interactions.column("timestamp"))
    old = pc.and_(
        pc.less(hours, 8),
        pc.and_(
            pc.less(full.interactions.column("user_id"), "u180"), pc.less(full.interactions.column("item_id"), "i055")
        ),
    )
    users = full.users.filter(pc.less(full.users.column("user_id"), "u180"))
    items = full.items.filter(pc.less(full.items.column("item_id"), "i055"))
    new = pc.greater_equal(hours, 8)
    return (
        Dataset(users, items, full.interactions.filter(old), roles=full.roles),
        Dataset(full.users, full.items, full.interactions.filter(new), roles=full.roles),
    )


OLD, NEW = old_and_new()


@pytest.fixture(scope="module", params=CONFIGS)
def fitted(request):
    return Recommender.from_config(CONFIGS[request.param]).fit(OLD, progress=False)


@pytest.fixture(scope="module")
def towers():
    return Recommender.from_config(CONFIGS["towers"]).fit(OLD, progress=False)


@pytest.fixture(scope="module")
def updated(fitted):
    return fitted.update(NEW, progress=False)


def changed(recommender, **options):
    return recommender.with_config({"update": options})


def lists(recommender):
    return recommender.recommend(None, 5, now=0)


def vectors(recommender, side):
    return recommender.model.embeddings(side)


def test_steps_are_kept_if_and_only_if_they_improve_the_held_out_interactions(fitted, updated):
    """Whether they do depends for some models on the last bits of sums, which the number of threads decides."""
    steps = updated.updated
    assert steps.kept == (steps.after > steps.before) == (1 <= steps.epochs <= 5)
    if not steps.kept:
        assert lists(updated).equals(lists(fitted.add(NEW)))
        return
    assert "steps kept" in str(steps) and "20 new users" in str(updated.joined) and "5 new items" in str(updated.joined)
    assert len(updated.dataset.users) == 200 and len(updated.dataset.items) == 60
    assert not np.array_equal(vectors(updated, "item")[:55], vectors(fitted, "item"))
    assert any("Updated" in note for note in updated.notes)
    assert updated.split is None  # it has learned from later data


def test_towers_of_features_improve_by_steps(towers):
    assert towers.update(NEW, progress=False).updated.kept


def test_before_the_first_step_old_vectors_are_bit_identical_and_all_is_as_add_leaves_it(fitted):
    added, none = fitted.add(NEW), changed(fitted, epochs=0).update(NEW, progress=False)
    assert none.updated.reason == "update.epochs is 0" and not none.updated.kept
    for side in ("user", "item"):
        assert np.array_equal(vectors(added, side), vectors(none, side))
    assert np.array_equal(vectors(added, "item")[:55], vectors(fitted, "item"))
    assert lists(added).equals(lists(none)) and added.updated is None
    apart = fitted.add_items(NEW).add_users(NEW)
    assert lists(added).equals(lists(apart))
    one = {"user_data": [{"user_id": "u003"}], "interactions": [{"user_id": "u003", "item_id": "i001"}]}
    others = np.arange(180) != 3
    alone = changed(fitted, epochs=0).update(one, progress=False)
    assert np.array_equal(vectors(alone, "user")[others], vectors(fitted, "user")[others])


def test_steps_that_do_not_improve_are_dropped(fitted, monkeypatch):
    real, calls = module.ranking_metrics, []

    def worse(ranking, lengths):
        calls.append(lengths)
        values = real(ranking, lengths)
        return values if len(calls) == 1 else dict.fromkeys(values, -1.0)

    monkeypatch.setattr(module, "ranking_metrics", worse)
    dropped = fitted.update(NEW, progress=False)
    assert len(calls) == 3  # before, and after two epochs: the second is no better than the first
    assert not dropped.updated.kept and "steps dropped" in str(dropped.updated) and dropped.updated.epochs == 0
    assert lists(dropped).equals(lists(fitted.add(NEW)))


def test_the_same_seed_gives_the_same_result_also_for_a_loaded_model(fitted, updated, tmp_path):
    loaded = Recommender.load(fitted.save(tmp_path / "model")).update(NEW, progress=False)
    assert str(loaded.updated) == str(updated.updated)
    np.testing.assert_allclose(vectors(loaded, "item"), vectors(updated, "item"), rtol=1e-4, atol=1e-5)
    again = fitted.update(NEW, progress=False)
    assert np.array_equal(vectors(again, "item"), vectors(updated, "item"))
    assert np.array_equal(vectors(again, "user"), vectors(updated, "user"))


def test_an_updated_model_is_saved_loaded_and_updated_again(updated, tmp_path):
    loaded = Recommender.load(updated.save(tmp_path / "model"))
    assert lists(loaded).equals(lists(updated))
    more = {"user_data": [{"user_id": "eve"}], "interactions": [{"user_id": "eve", "item_id": "i057"}]}
    again = loaded.update(more, progress=False)
    assert again.updated.reason.endswith("held-out positives, of 20 needed (update.min_held_out)")
    assert len(again.dataset.users) == 201


def test_new_ids_get_vectors_of_their_own_and_start_from_the_content(towers):
    scorer = module._copied(towers_of(towers.model).scorer)
    known = scorer.item.encoders[scorer.item.features.index("identity.id")]
    before = known.table.weight.detach().clone()
    module._extend(scorer, "item", pa.array(["i003", "fresh"]))
    assert torch.equal(known.table.weight[:-1], before) and len(known.table.weight) == len(before) + 1
    missing = scorer.item.fusion.missing[scorer.item.token_names.index("identity.id")]
    assert torch.equal(known.table.weight[-1], missing)
    assert known.encode_column(pa.array(["fresh", "i003", "other"])).present.tolist() == [True, True, False]
    updated = towers.update(NEW, progress=False)
    table = dict(towers_of(updated.model).scorer.user.named_encoders())["identity.id"].vocabulary
    assert set(table.to_pylist()) == {f"u{n:03d}" for n in range(200)}


def test_known_interactions_are_not_learned_again(towers):
    updated = changed(towers, epochs=0).update(NEW, progress=False)
    again = changed(updated, epochs=5).update(NEW, progress=False)
    assert "held-out positives" in again.updated.reason


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_last_new_interactions_of_each_user_are_held_out(towers, share):
    joined = changed(towers, holdout_fraction=share).add(NEW).joined
    late, fresh = module._split(joined.with_items, joined.users)
    history = joined.users.history
    assert not (late & ~fresh).any() and abs(late.sum() - share * fresh.sum()) < 0.1 * fresh.sum()
    for user in np.unique(history.owners):
        own = history.owners == user
        assert np.floor(share * (own & fresh).sum()) <= (own & late).sum() <= np.ceil(share * (own & fresh).sum())
        if (own & late).any() and (own & fresh & ~late).any():
            assert history.times[own & late].min() >= history.times[own & fresh & ~late].max()


def test_options_decide_whether_and_how_steps_are_taken(towers):
    assert "of 10000 needed" in changed(towers, min_held_out=10_000).update(NEW, progress=False).updated.reason
    small = changed(towers, learning_rate=1e-6, epochs=1).update(NEW, progress=False)
    large = changed(towers, learning_rate=1.0, epochs=1).update(NEW, progress=False)
    assert abs(small.updated.after - small.updated.before) < abs(large.updated.after - large.updated.before)
    with pytest.raises(ConfigError, match="update/epochs"):
        changed(towers, epochs=-1)


@pytest.mark.parametrize("name", ["ease", "popularity", "ials"])
def test_classical_models_join_without_steps(name):
    fitted = Recommender.from_config({"model": {"type": name}, "split": LAST}).fit(OLD, progress=False)
    new = Dataset(NEW.users, OLD.items.slice(0, 0), NEW.interactions, roles=NEW.roles)
    updated = fitted.update(new, progress=False)
    assert not updated.updated.kept and f"'{name}' has no towers" in updated.updated.reason
    assert lists(updated).equals(lists(fitted.add_users(new)))
    with pytest.raises(InputError, match="not fitted on"):
        fitted.update(NEW, progress=False)


def test_models_that_cannot_be_tuned_say_why(towers):
    graph = small_config(training=TRAINING, split=LAST, features={"identity": {"graph_layers": 1}})
    reasons = {
        "graph_layers": Recommender.from_config(graph).fit(OLD, progress=False).update(NEW, progress=False),
        "no new positive": towers.update({"item_data": [{"item_id": "fresh"}]}, progress=False),
    }
    rated = small_config(training=TRAINING, split=LAST, heads={"rating": {"type": "rating"}})
    bare = Dataset(NEW.users, NEW.items, NEW.interactions.drop_columns(["rating"]), roles=NEW.roles)
    with_head = Recommender.from_config(rated).fit(OLD, progress=False)
    reasons["no 'rating'"] = with_head.update(bare, progress=False)
    for text, found in reasons.items():
        assert text in found.updated.reason and not found.updated.kept
    assert with_head.update(NEW, progress=False).updated.before is not None


def test_a_loss_that_is_not_finite_leaves_the_model_that_joined(towers):
    broken = changed(towers, learning_rate=100.0)
    config = broken.config.model_copy(deep=True)
    config.training.optimizer.learning_rate = 1000.0
    broken._model = broken.model.with_config(config)
    updated = broken.update(NEW, progress=False)
    assert lists(updated).equals(lists(towers.add(NEW))) and not updated.updated.kept


def test_vectors_that_cannot_be_computed_again_are_not_tuned(towers, monkeypatch):
    kind = type(dict(towers_of(towers.model).scorer.item.named_encoders())["categorical.tags"])
    saved, original = towers.add(NEW), kind.encode_column

    def unreadable(self, column):
        values, present = original(self, column)
        return Prepared(values, torch.zeros_like(present))

    lists(saved)
    monkeypatch.setattr(kind, "encode_column", unreadable)
    steps = module.take_steps(saved.joined, NEW, progress=False)
    assert "computed again" in steps.reason and steps.model is saved.model


def test_bad_data_is_refused(towers, tmp_path):
    with pytest.raises(DataError, match="the ids of this model"):
        towers.update([{"user_id": 5}], progress=False)
    with pytest.raises(DataError, match="nothing to add"):
        towers.update(["u001", "u002"], progress=False)
    folder, data = towers.save(tmp_path / "model"), tmp_path / "new.json"
    data.write_text(json.dumps({"user_data": [{"user_id": "ann", "categorical": {"jobb": "x"}}]}))
    code, _, message = call("update", "--model-path", folder, "--data", data, "--strict")
    assert code == 2 and "categorical.jobb" in message
    code, _, message = call("update", "--model-path", folder, "--data", tmp_path / "none.json")
    assert code == 2 and "no such file" in message
    code, _, message = call("update", "--model-path", folder, "--data", data, "--output", tmp_path)
    assert code == 2 and "is not a model" in message
    assert len(Recommender.load(folder).dataset.users) == 180


def test_the_command_replaces_the_model_or_writes_to_another_folder(towers, tmp_path):
    folder, data = towers.save(tmp_path / "model"), tmp_path / "new"
    data.mkdir()
    for name in ("users", "items", "interactions"):
        pq.write_table(getattr(NEW, name), data / f"{name}.parquet")
    code, out, _ = call("update", "--model-path", folder, "--data", data, "--output", tmp_path / "other")
    assert code == 0 and "steps kept" in out and "20 new users" in out
    assert len(Recommender.load(folder).dataset.users) == 180
    code, again, _ = call("update", "--model-path", folder, "--data", data)
    assert code == 0 and again.splitlines()[0] == out.splitlines()[0]
    assert lists(Recommender.load(folder)).equals(lists(Recommender.load(tmp_path / "other")))
    document = {"item_data": [{"item_id": "i003", "continuous": {"price": 1000.0}}]}
    (tmp_path / "item.json").write_text(json.dumps(document))
    code, out, _ = call("update", "--model-path", folder, "--data", tmp_path / "item.json", "--replace-known")
    assert code == 0 and "1 changed item" in out and "no steps: there are no new positive interactions" in out
