"""Shared data and models of the audit: they are made once, by the commands that a user would type."""

import json

import pyarrow.parquet as pq
import pytest
from audited import run

SHOP = {
    "name": "shop",
    "defaults": "fixed",
    "dim": 16,
    "id_dropout": 0.3,
    "features": {"image": {"type": "cnn", "size": 32}, "text": {"type": "hashed"}},
    "loss": {"type": "full_softmax"},
    "heads": {"interaction_type": {}},
    "split": {"protocol": "leave_last_out"},
    "evaluation": {"baselines": ["popularity", "item_knn"]},
    "training": {"epochs": 6, "batch_size": 256, "patience": None, "optimizer": {"learning_rate": 0.01}},
}
"""A model of all features of the generated data, images included, that trains in seconds."""


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """Return the file of generated data with planted preferences and image files."""
    path = tmp_path_factory.mktemp("shop") / "data.json"
    run("synth", "planted", path, "--n_users", 240, "--n_items", 60, "--n_interactions", 4000, "--seed", 1)
    return path


@pytest.fixture(scope="session")
def shop_run(shop, tmp_path_factory):
    """Return the folder of a training run on the generated data."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "shop.json").write_text(json.dumps(SHOP))
    run("train", "--data", shop, "--config", folder / "shop.json", "--output_dir", folder)
    return folder / "shop"


@pytest.fixture(scope="session")
def shop_model(shop_run):
    """Return the model of `shop_run`."""
    from anyrec import Recommender

    return Recommender.load(shop_run)


@pytest.fixture(scope="session")
def films(ml_100k, tmp_path_factory):
    """Return a folder with a part of MovieLens 100K: the first 150 users, and all items."""
    folder = tmp_path_factory.mktemp("films")
    limits = ("--set", "data.max_users=150")
    run("convert", "movielens", ml_100k, folder / "films.json", *limits)
    return folder / "films.json"


@pytest.fixture(scope="session")
def film_tables(ml_100k):
    """Return users, items and ratings of MovieLens 100K as published."""
    return [pq.read_table(ml_100k / f"{part}.parquet") for part in ("users", "items", "interactions")]


@pytest.fixture(autouse=True)
def without_figures(shop_run, undrawn):
    """Draw the figures of `shop_run` only, since drawing takes most of the time of a small training."""
