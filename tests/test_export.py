"""Exports: the graphs, with ONNX Runtime and in NumPy, and HTTP answer as the model does."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from PIL import Image
from small import call, small_config, small_dataset

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="pip install 'anyrec[export]'")

from anyrec.core.errors import DataError, InputError, ModelError
from anyrec.data.dataset import Dataset
from anyrec.export import load
from anyrec.recommender import Recommender

CLOSE = 1e-5
"""Largest difference of scores, relative to the largest score."""
EVERYTHING = {
    "fusion": {"type": "attention"},
    "interaction": {"type": "cosine"},
    "features": {
        "categorical": {"fields": {"job": {"hash_buckets": 8}}},
        "continuous": {"encoding": "periodic", "bins": 4, "fields": {"price": {"encoding": "piecewise", "bins": 4}}},
        "temporal": {"pooling": "gru", "hidden_dim": 4},
        "text": {"buckets": 512, "fields": {"review": {"type": "text_statistics", "bins": 2}}},
        "image": {"type": "cnn", "size": 8, "channels": 8},
        "history": {
            "window": 4,
            "layers": 1,
            "use_gap": True,
            "use_kind": True,
            "fields": {"totals": {"type": "aggregates", "top": 3}, "bag": {"type": "set"}},
        },
    },
}
TOKENS = {
    "fusion": {"type": "gated"},
    "interaction": {"type": "attention"},
    "features": {
        "categorical": {},
        "continuous": None,
        "temporal": None,
        "text": None,
        "image": {"type": "visual_descriptor", "cells": 2},
        "history": {"block": "gru", "layers": 1, "window": 5},
    },
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The small world with pictures, reviews, lists of numbers, and items that users name as favourites."""
    small, root = small_dataset(), tmp_path_factory.mktemp("pictures")
    for number in range(6):
        Image.new("RGB", (9 + number, 12), (40 * number, 255 - 40 * number, 90)).save(root / f"{number}.png")
    rows = range(len(small.items))
    photos = [None if n % 5 == 4 else [f"{n % 6}.png", f"{n % 4}.png"][: 1 + n % 2] for n in rows]
    items = small.items.append_column("image.photo", pa.array(photos, pa.list_(pa.string())))
    reviews = [None if n % 3 == 0 else f"Good thing number {n}! " * (n % 4) for n in rows]
    items = items.append_column("text.review", pa.array(reviews))
    marks = [[float(n), float(n % 7)] for n in range(len(small.users))]
    users = small.users.append_column("continuous.marks", pa.array(marks))
    favourites = [[f"i{(n * k) % 40:03d}" for k in range(n % 4)] for n in range(len(small.users))]
    users = users.append_column("temporal.favourites", pa.array(favourites, pa.list_(pa.string())))
    return Dataset.from_tables(users, items, small.interactions, root=root)


def fitted(shop, options):
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(name="shop", training=training, split={"protocol": "none"}, **options)
    return Recommender.from_config(config).fit(shop, progress=False)


@pytest.fixture(scope="module")
def everything(shop, tmp_path_factory):
    """A model of nearly all encoders, and its export."""
    recommender, folder = fitted(shop, EVERYTHING), tmp_path_factory.mktemp("exports") / "everything"
    return recommender, recommender.export(folder)


@pytest.fixture(scope="module")
def tokens(shop, tmp_path_factory):
    """A model whose interaction reads the vectors of the features, and its export."""
    recommender, folder = fitted(shop, TOKENS), tmp_path_factory.mktemp("exports") / "tokens"
    return recommender, recommender.export(folder)


def hard_request(count, seed):
    """A document of users: known and unknown ids, missing groups, unknown values, no, one or many interactions."""
    rng = np.random.default_rng(seed)
    users, interactions = [], []
    for number in rng.permutation(100_000)[:count]:
        known = rng.random() < 0.4
        one = {"user_id": f"u{rng.integers(60):03d}" if known else f"new{number}"}
        if rng.random() < 0.7:
            one["categorical"] = {"job": str(rng.choice(["nurse", "pilot", "acrobat", ""]))}
        if rng.random() < 0.7:
            one["continuous"] = {"age": float(rng.choice([18.5, 1e9, -3])), "marks": [1.0, 2.0][: rng.integers(3)]}
        if rng.random() < 0.5:
            one["text"] = {"bio": str(rng.choice(["", "I work as a nurse", "something else", "ß 東京 " * 50]))}
        if rng.random() < 0.5:
            one["temporal"] = {"spending": rng.normal(20, 9, rng.integers(0, 90)).tolist()}
        users.append(one)
        for _ in range(rng.choice([0, 0, 1, 3, 4, 9])):
            one_more = {"user_id": one["user_id"], "item_id": f"i{rng.integers(44):03d}"}
            if rng.random() < 0.7:
                one_more["timestamp"] = int(1_720_000_000 + rng.integers(10**6))
            if rng.random() < 0.7:
                one_more["interaction_type"] = str(rng.choice(["view", "buy", "stare"]))
            interactions.append(one_more)
    distinct = {one["user_id"]: one for one in users}
    return {"user_data": list(distinct.values()), "interactions": interactions}


def assert_same_lists(found, expected):
    """The same users, scores and ranks, and the same items where scores are not tied by rounding."""
    assert found.schema.names == expected.schema.names
    assert found["user_id"].equals(expected["user_id"]) and found["rank"].equals(expected["rank"])
    ours, theirs = expected["score"].to_numpy(), found["score"].to_numpy()
    limit = CLOSE * max(1.0, np.abs(ours).max(initial=0))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=limit)
    for row in np.flatnonzero(found["item_id"].to_numpy() != expected["item_id"].to_numpy()):
        near = ours[max(0, row - 1) : row + 2]  # an item can only change places with one of an equal score
        assert np.sort(np.abs(near - ours[row]))[1] < 2 * limit, (row, near)


@pytest.mark.parametrize("backend", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("name", ["everything", "tokens"])
def test_300_hard_records_get_the_lists_of_the_model(name, backend, request):
    recommender, export = request.getfixturevalue(name)
    runtime = load(export.folder, backend=backend, threads=1)
    for count, seed in ((1, 1), (2, 2), (40, 3), (257, 4)):
        document = hard_request(count, seed)
        assert_same_lists(runtime.recommend(document, 10), recommender.recommend(document, 10))
