"""Mistakes that give recommenders better metrics than they deserve, with a test against each."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from small import small_config, small_dataset

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.model.towers import IDENTITY
from anyrec.recommender import Recommender
from anyrec.training import fit as fitting

FUSIONS = [name for name in discover().names("fusion") if name != "identity"]
INTERACTIONS = discover().names("interaction")


def fit(dataset=None, **changes):
    return Recommender.from_config(small_config(**changes)).fit(dataset or small_dataset(), progress=False)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_every_parameter_is_trained(fusion, interaction, monkeypatch):
    """No layer appears after the optimizer was built, and each parameter moves within one epoch."""
    before = {}
    assemble = fitting.assemble

    def remember(*arguments):
        model, columns = assemble(*arguments)
        before.update({name: value.detach().clone() for name, value in model.named_parameters()})
        return model, columns

    monkeypatch.setattr(fitting, "assemble", remember)
    model = fit(
        fusion={"type": fusion},
        interaction={"type": interaction},
        id_dropout=0.3,
        training={"epochs": 1, "batch_size": 32, "patience": None},
    ).model.scorer
    after = dict(model.named_parameters())
    assert set(before) == set(after)
    still = [name for name, value in after.items() if torch.equal(value, before[name])]
    # A fusion's stand-in for a feature that is never missing has nothing to learn, nor has a fusion that tokens bypass.
    never_missing = [name for name in still if name.endswith("fusion.missing")]
    bypassed = [name for name in still if ".fusion." in name and model.interaction.reads == "tokens"]
    assert set(still) <= {*never_missing, *bypassed}


def test_feature_dropout_masks_its_fraction_of_one_side_in_training_only_and_never_the_id():
    recommender = fit(user={"feature_dropout": 0.6}, id_dropout=0.0)
    rows = torch.arange(60).repeat(50)
    for side, training, share in (("user", True, 0.6), ("user", False, 0.0), ("item", True, 0.0)):
        tower = recommender.model.scorer.tower(side).train(training)
        rows_here = rows % len(getattr(recommender.dataset, f"{side}s"))
        _, present = tower.tokens(recommender.model.columns[side], rows_here)
        for place, name in enumerate(tower.token_names):
            known = recommender.model.columns[side][name].present[rows_here]
            hidden = 1 - present[:, place].float().mean() / known.float().mean()
            assert abs(hidden - (0.0 if name == IDENTITY else share)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_the_scores_of_training_evaluation_and_inference_are_the_same(interaction):
    recommender = fit(interaction={"type": interaction})
    model, data = recommender.model.scorer.eval(), recommender.dataset
    users, items = torch.arange(10), torch.arange(len(data.items))
    with torch.no_grad():
        trained = model.score(
            model.represent("user", recommender.model.columns["user"], users),
            model.represent("item", recommender.model.columns["item"], items),
        ).numpy()
    lists = recommender.recommend(data.ids("user").slice(0, 10), len(items), exclude_seen=False)
    rows = np.repeat(np.arange(10), len(items))
    served = lists.column("score").to_numpy()
    places = [int(name[1:]) for name in lists.column("item_id").to_pylist()]
    size = np.maximum(1, np.abs(served))
    rounding = 16 * np.finfo(np.float32).eps  # of a sum of 16 products, whose order differs between batch sizes
    assert (np.abs(trained[rows, places] - served) / size).max() <= rounding
    scored = recommender.score(lists.select(["user_id", "item_id"])).column("score").to_numpy()
    assert (np.abs(scored - served) / size).max() <= rounding


def test_a_batch_of_one_equals_a_batch_of_all():
    recommender = fit()
    for side in ("user", "item"):
        embed = recommender.embed_users if side == "user" else recommender.embed_items
        table = recommender.dataset.table(side)
        together = embed(table).column("embedding").to_pylist()
        for row in (0, 7, len(table) - 1):
            alone = embed(table.slice(row, 1)).column("embedding").to_pylist()[0]
            assert alone == pytest.approx(together[row], abs=1e-6)


def test_the_order_of_the_records_does_not_change_the_result():
    one, two = fit(small_dataset()), fit(small_dataset(order=5))
    for (name, first), (_, second) in zip(
        one.model.scorer.state_dict().items(), two.model.scorer.state_dict().items(), strict=True
    ):
        assert torch.equal(first, second), name


@pytest.mark.slow
def test_the_hash_seed_of_python_does_not_change_the_result(tmp_path):
    path = tmp_path / "weights.pt"
    program = (
        "from small import *; from anyrec.recommender import Recommender; import torch;"
        "m = Recommender.from_config(small_config()).fit(small_dataset(), progress=False).model.scorer.state_dict();"
        f"torch.save(m, {str(path)!r}); print(hash('a'))"
    )
    other = str(next(seed for seed in (1, 2) if str(seed) != os.environ.get("PYTHONHASHSEED")))
    variables = {**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert int(done.stdout) != hash("a")
    found, here = torch.load(path), fit(small_dataset()).model.scorer.state_dict()
    assert all(torch.equal(found[name], value) for name, value in here.items())


def test_training_reads_the_training_interactions_only():
    """Held-out items can be drawn as negatives: excluding them would leak them to the model."""
    recommender = fit(split={"protocol": "leave_last_out"}, negatives={"type": "uniform"}, training={"epochs": 1})
    from anyrec.data.positives import Positives

    data, split = recommender.dataset, recommender.model.split
    train = Positives(
        torch.from_numpy(data.user_rows[split.train]),
        torch.from_numpy(data.item_rows[split.train]),
        len(data.users),
        len(data.items),
    )
    sampler = discover().get("sampler", "uniform")(train, None)
    users = torch.from_numpy(np.repeat(data.user_rows[split.test], 400))
    drawn = sampler.sample(users, torch.zeros_like(users), 4, torch.Generator().manual_seed(0))
    held = torch.from_numpy(np.repeat(data.item_rows[split.test], 400))
    assert (drawn.items == held[:, None]).any()
    assert not train.contains(users, drawn.items).any()


def test_a_feature_that_lists_the_held_out_items_is_dropped_with_a_note():
    data = small_dataset()
    liked = [
        data.interactions.filter(pa.compute.equal(data.interactions["user_id"], user)).column("item_id").to_pylist()
        for user in data.users.column("user_id").to_pylist()
    ]
    data.users = data.users.append_column("temporal.previous_liked_items", pa.array(liked))
    data.roles["user.previous_liked_items"] = "items"
    recommender = fit(data)
    assert "temporal.previous_liked_items" not in recommender.model.scorer.user.features
    assert any("LEAK" in note and "100%" in note for note in recommender.notes)
    kept = fit(data, data={"drop_leaks": False})
    assert "temporal.previous_liked_items" in kept.model.scorer.user.features
    assert any("LEAK" in note for note in kept.notes)


def test_every_feature_of_the_data_is_used_with_the_encoder_of_its_kind():
    data = small_dataset()
    data.users = data.users.append_column("categorical.city", pa.array(["a", "b"] * (len(data.users) // 2)))
    data.users = data.users.append_column("smell.of", pa.array(["x"] * len(data.users)))
    recommender = fit(data)
    assert recommender.model.scorer.user.features == [
        "categorical.city", "categorical.job", "continuous.age", IDENTITY, "temporal.spending", "text.bio",
    ]  # fmt: skip
    kinds = dict(zip(recommender.model.scorer.item.features, recommender.model.scorer.item.encoders, strict=True))
    assert kinds["temporal.restocked"].type == "timestamps"
    assert any("smell.of" in note and "not used" in note for note in recommender.notes)


def test_a_group_can_be_switched_off_and_a_misspelled_group_is_an_error():
    recommender = fit(features={"text": None, "categorical": {"fields": {"job": None}}})
    assert not any(name.startswith("text") for name in recommender.model.scorer.user.features)
    assert "categorical.job" not in recommender.model.scorer.user.features
    with pytest.raises(ConfigError, match="Did you mean 'text'"):
        fit(features={"txt": None})
    with pytest.raises(ConfigError, match="Did you mean 'job'"):
        fit(features={"categorical": {"fields": {"jobb": None}}})


@pytest.mark.parametrize("exclude", [True, False])
def test_seen_items_are_excluded_if_and_only_if_exclude_seen_is_set(exclude):
    recommender = fit()
    data = recommender.dataset
    lists = recommender.recommend(None, 40, exclude_seen=exclude)
    seen = set(zip(data.interactions["user_id"].to_pylist(), data.interactions["item_id"].to_pylist(), strict=True))
    listed = set(zip(lists["user_id"].to_pylist(), lists["item_id"].to_pylist(), strict=True))
    assert bool(seen & listed) is not exclude
    assert len(listed) == 60 * 40 - (60 * 8 if exclude else 0)


def test_a_candidate_list_is_a_filter_also_if_it_is_empty():
    recommender = fit()
    lists = recommender.recommend(["u000"], 5, candidates=["i000", "i001"], exclude_seen=False)
    assert set(lists["item_id"].to_pylist()) == {"i000", "i001"}
    assert len(recommender.recommend(["u000"], 5, candidates=[])) == 0


def test_the_config_saved_with_a_model_trains_the_same_model(tmp_path):
    first = fit()
    first.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    second = Recommender.from_config(config).fit(small_dataset(), progress=False)
    for name, value in first.model.scorer.state_dict().items():
        assert torch.equal(value, second.model.scorer.state_dict()[name]), name
