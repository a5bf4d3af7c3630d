"""New users whose features are known and whose history is not."""

import numpy as np
import pytest
import torch
from small import JOBS, small_config, small_dataset

from anyrec.cli.demo import planted_ndcg
from anyrec.core.discovery import discover
from anyrec.data.suggest_config import suggest_config
from anyrec.data.synthetic.generate import generate
from anyrec.recommender import Recommender

REGISTRY = discover()


def suggested(dataset, tmp_path, **training):
    config, _ = suggest_config(dataset, tmp_path)
    config["training"] |= {"batch_size": 64, "patience": None, **training}
    return Recommender.from_config(config)


def test_new_users_are_recommended_to_by_their_features(tmp_path):
    dataset = small_dataset(users=200, each=10)
    fitted = suggested(dataset, tmp_path, epochs=8).fit(dataset, progress=False)
    lists = fitted.recommend([{"user_id": job, "categorical": {"job": job}} for job in JOBS], k=5).to_pylist()
    tags = dict(zip(dataset.items["item_id"].to_pylist(), dataset.items["categorical.tags"].to_pylist(), strict=True))
    assert sum(row["user_id"] in tags[row["item_id"]] for row in lists) >= 18  # of 20; 5 by chance


@pytest.mark.parametrize("protocol", ["global_time", "leave_last_out"])
def test_the_delivered_default_recommends_to_new_users_by_their_features(protocol):
    """Also on a split by time with few new validation users, where a blend prefers a model that knows the moment."""
    world = generate(users=300, items=60, interactions=5000, seed=0)
    fitted = Recommender.from_config({"split": {"protocol": protocol}}).fit(world.dataset, progress=False)
    assert fitted.model.learning.split.protocol == protocol and fitted.model.choice is not None
    people, truth, _ = world.new_users(100, seed=1)
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    listed = [place[name] for name in fitted.recommend(people, 10)["item_id"].to_pylist()]
    chosen = np.array(listed).reshape(len(truth), 10)
    popular = np.tile(np.argsort(-np.bincount(world.dataset.item_rows), kind="stable")[:10], (len(truth), 1))
    assert planted_ndcg(chosen, truth) > 1.5 * planted_ndcg(popular, truth)


def test_the_suggested_config_hides_histories_only_if_users_have_features(tmp_path):
    dataset = small_dataset()
    assert suggest_config(dataset, tmp_path)[0]["history_dropout"] == 0.1
    bare = type(dataset)(dataset.users.select(["user_id"]), dataset.items, dataset.interactions)
    assert "history_dropout" not in suggest_config(bare, tmp_path)[0]


def test_a_user_without_history_gets_features_at_full_size():
    fusion = REGISTRY.get("fusion", "residual")(["categorical.job", "history.past", "history.recent"], 8, 8).eval()
    features = torch.randn(2, 3, 8)
    present = torch.tensor([[True, True, True], [True, False, False]])
    with_history, without = fusion(features, present)
    assert torch.allclose(with_history, 0.03 * features[0, 0] + features[0, 1] + features[0, 2], atol=1e-6)
    assert torch.allclose(without, features[1, 0] + fusion.missing[1] + fusion.missing[2], atol=1e-6)


@pytest.mark.parametrize("features", [["job"], []])
def test_all_histories_of_an_example_are_hidden_together_and_only_in_training(features, tmp_path):
    dataset = small_dataset()
    dataset = type(dataset)(
        dataset.users.select(["user_id", *(f"categorical.{name}" for name in features)]),
        dataset.items,
        dataset.interactions,
    )
    history = {"window": 5, "layers": 1, "fields": {"recent": {"block": "mean"}}}
    config = small_config(features={"history": history}, user={"features": {"identity": None}}, history_dropout=0.5)
    config["training"]["epochs"] = 1
    fitted = Recommender.from_config(config).fit(dataset, progress=False)
    tower, columns = fitted.model.scorer.user, fitted.model.columns["user"]
    rows = torch.arange(60).repeat(20)
    names = list(tower.histories)
    given = {name: (torch.zeros(len(rows), 16), torch.ones(len(rows), dtype=torch.bool)) for name in names}
    tower.train()
    present = tower.tokens(columns, rows, given)[1][:, [tower.token_names.index(name) for name in names]]
    assert (present.all(1) | ~present.any(1)).all()
    assert present[:, 0].float().mean() == (pytest.approx(0.5, abs=0.1) if features else 1.0)
    tower.eval()
    assert tower.tokens(columns, rows, given)[1][:, [tower.token_names.index(name) for name in names]].all()
