"""Synthetic data are deterministic and valid, and each modality alone reveals its planted preferences."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anyrec.cli.demo import planted_ndcg
from anyrec.data.dataset import Dataset
from anyrec.data.synthetic.generate import generate
from anyrec.data.synthetic.world import PREFERENCES
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
NEEDED = {
    "occupation": {"user": ["categorical"], "item": ["categorical"]},
    "location": {"user": ["categorical"], "item": ["categorical"]},
    "age": {"user": ["continuous"], "item": ["image"]},
    "bio": {"user": ["text"], "item": ["text"]},
    "price": {"user": ["temporal"], "item": ["continuous"]},
    "history": {"user": ["temporal"], "item": ["identity"]},
}
GROUPS = ("identity", "categorical", "continuous", "text", "image", "temporal")


def digest(folder):
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file())
    ).hexdigest()


def test_the_same_seed_writes_the_same_bytes_under_any_hash_seed(tmp_path):
    program = (
        "import sys; from pathlib import Path; from anyrec.data.synthetic.generate import generate;"
        "generate(users=20, items=12, interactions=200, seed=3).write(Path(sys.argv[1]) / 'd.json'); print(hash('a'))"
    )
    other = str(next(seed for seed in (1, 2) if str(seed) != os.environ.get("PYTHONHASHSEED")))
    command, variables = [sys.executable, "-c", program, tmp_path / "1"], {**os.environ, "PYTHONHASHSEED": other}
    done = subprocess.run(command, check=True, env=variables, capture_output=True, text=True)
    assert int(done.stdout) != hash("a")
    generate(users=20, items=12, interactions=200, seed=3).write(tmp_path / "2" / "d.json")
    assert digest(tmp_path / "1") == digest(tmp_path / "2")
    generate(users=20, items=12, interactions=200, seed=4).write(tmp_path / "3" / "d.json")
    assert digest(tmp_path / "1") != digest(tmp_path / "3")


def test_the_sample_in_the_repository_is_the_output_of_the_generator(tmp_path):
    generate(users=300, items=100, interactions=4000, seed=0).write(tmp_path / "correlated_dataset.json", images=False)
    found, stored = (
        Dataset.read(tmp_path / "correlated_dataset.json"),
        Dataset.read(ROOT / "datasets" / "synthetic" / "correlated_dataset.json"),
    )
    assert found.interactions.equals(stored.interactions) and found.users.equals(stored.users)
    files = [path for path in (ROOT / "datasets").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_written_data_can_be_read_and_hold_all_groups(tmp_path):
    world = generate(users=50, items=20, interactions=400, seed=1)
    world.write(tmp_path / "d.json")
    data = Dataset.read(tmp_path / "d.json")
    assert len(data.interactions) == len(world.dataset.interactions)
    assert {name.split(".")[0] for side in ("user", "item") for name in data.features(side)} == set(GROUPS) - {
        "identity"
    }
    assert data.roles == world.dataset.roles
    assert len(list((tmp_path / "images").glob("*.png"))) == 40


def test_without_noise_people_choose_by_their_planted_preferences():
    clean, noisy = (generate(users=200, items=60, interactions=2000, seed=0, noise=noise) for noise in (0.0, 0.5))

    def liking(world):
        return world.truth()[world.dataset.user_rows, world.dataset.item_rows].mean() / world.truth().mean()

    assert liking(clean) > 1.8
    assert liking(clean) > liking(noisy) > 1.2


def test_items_that_a_user_had_before_are_not_among_the_interactions():
    world = generate(users=100, items=40, interactions=1500, seed=2, noise=0.5)
    pairs = set(
        zip(
            world.dataset.interactions["user_id"].to_pylist(),
            world.dataset.interactions["item_id"].to_pylist(),
            strict=True,
        )
    )
    for user, recent in zip(
        world.dataset.users["user_id"].to_pylist(),
        world.dataset.users["temporal.recent_items"].to_pylist(),
        strict=True,
    ):
        assert not {(user, item) for item in recent} & pairs
    assert len(pairs) == len(world.dataset.interactions)


def fitted_lift(preference, groups, world, tmp_path):
    """Return ndcg@10 against the truth, for new people, of a model that sees `groups` alone; and that of popularity."""
    config = {
        "defaults": "fixed",
        "dim": 32,
        "split": {"protocol": "none"},
        "loss": {"type": "full_softmax"},
        "training": {"epochs": 8, "batch_size": 256, "patience": None, "optimizer": {"learning_rate": 0.005}},
    }
    for side in ("user", "item"):
        seen = groups.get(side, []) or ["identity"]
        config[side] = {"features": {group: None for group in GROUPS if group not in seen}}
    if any(not groups.get(side) for side in ("user", "item")):
        config["id_dropout"] = 0.5
    recommender = Recommender.from_config(config).fit(world.dataset, progress=False)
    people, truth, _ = world.new_users(150, seed=1)
    lists = recommender.recommend(people, 10)
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    chosen = np.array([place[name] for name in lists["item_id"].to_pylist()]).reshape(len(truth), 10)
    popular = np.tile(np.argsort(-np.bincount(world.dataset.item_rows), kind="stable")[:10], (len(truth), 1))
    return planted_ndcg(chosen, truth), planted_ndcg(popular, truth)


@pytest.mark.slow
@pytest.mark.parametrize("preference", PREFERENCES)
def test_each_modality_alone_reveals_its_planted_preference_and_no_other_does(preference, tmp_path):
    world = generate(
        users=500, items=60, interactions=6000, seed=0, noise=0.05, missing=0.0, preferences=[preference], root=tmp_path
    )
    world.write(tmp_path / "d.json", images=preference == "age")
    if preference != "age":
        world.dataset.items = world.dataset.items.drop_columns(["image.views"])
    score, popularity = fitted_lift(preference, NEEDED[preference], world, tmp_path)
    assert score > 1.5 * popularity
    other = "occupation" if preference not in ("occupation", "location") else "bio"
    blind, _ = fitted_lift(
        preference, {"user": NEEDED[other]["user"], "item": NEEDED[preference]["item"]}, world, tmp_path
    )
    assert blind < 1.25 * popularity < score
