"""Models that an earlier version saved are loaded and answer as they did when they were saved.

`tests/saved_models/` has model directories written by the code before the layers of the package were rearranged, and
for each NAME the answers that the model gave then, in NAME.expected.json. They are never written again: a change that
makes this test fail breaks the models that users have. `tests/saved_models/make.py` adds models of further kinds.
"""

import json
import math
import shutil
from pathlib import Path

import pytest

from anyrec import Recommender

MODELS = Path(__file__).parent / "saved_models"
NAMES = sorted(path.name.removesuffix(".expected.json") for path in MODELS.glob("*.expected.json"))
K = 5
SCORE_TOLERANCE = 1e-4
"""Absolute. The weights are the saved ones, so only the order of additions differs between processors."""


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_an_earlier_version_answers_as_it_did(name, tmp_path):
    expected = json.loads((MODELS / f"{name}.expected.json").read_text(encoding="utf-8"))
    folder = shutil.copytree(MODELS / name, tmp_path / name)
    answers = answers_of(Recommender.load(folder))
    assert answers.keys() == expected.keys()
    assert answers.pop("metrics") == expected.pop("metrics")
    for question, rows in expected.items():
        found = answers[question]
        assert [ids_of(row) for row in found] == [ids_of(row) for row in rows], question
        assert [numbers_of(row) for row in found] == [
            pytest.approx(numbers_of(row), abs=SCORE_TOLERANCE, rel=0) for row in rows
        ], question


def test_every_saved_model_has_its_expected_answers():
    assert sorted(path.parent.name for path in MODELS.glob("*/config.json")) == NAMES and len(NAMES) >= 5


def test_saved_models_name_no_folder_of_the_machine_that_trained_them():
    for path in MODELS.glob("*/manifest.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["root"] == "/data", path


def answers_of(recommender):
    """Return a model's lists, similar items and scores as rows of JSON values, also for unknown records."""
    users, items = (recommender.dataset.ids(side).to_pylist() for side in ("user", "item"))
    pairs = [{"user_id": user, "item_id": item} for user, item in zip(users, items, strict=False)]
    happened = [
        {"user_id": user, "item_id": item, "interaction_type": "buy", "timestamp": "2024-03-01T00:00:00Z"}
        for user, item in zip(users[:10], items[10:20], strict=True)
    ]
    return {
        "lists": rows_of(recommender.recommend(None, k=K)),
        "lists of new users": rows_of(recommender.recommend(new_users(recommender), k=K)),
        "lists after new interactions": rows_of(recommender.recommend(users[:10], k=K, interactions=happened)),
        "similar items": rows_of(recommender.similar(items[:10], k=K)),
        "scores": rows_of(recommender.score(pairs)),
        "metrics": recommender.metrics,
    }


def new_users(recommender):
    """Return the records of ten known users under unknown ids, with the features that the model reads."""
    table = recommender.dataset.users.slice(0, 10)
    features = [name for name in table.column_names if name.split(".")[0] in groups_read(recommender.config)]
    return table.select(["user_id", *features]).set_column(0, "user_id", [[f"new{n}" for n in range(len(table))]])


def groups_read(config):
    """The feature groups that a model with this config reads; classical models read none."""
    if config.model.type != "two_tower":
        return []
    return [name for name in ("categorical", "continuous", "temporal", "text") if config.features.get(name, True)]


def rows_of(table):
    """Return the values of each row in column order. Ranks are integers; scores are floats or lists of floats.

    The expected probabilities of classes are logarithms, which earlier versions returned.
    """

    def plain(value):
        return [math.log(one) for one in value.values()] if isinstance(value, dict) else value

    return [[plain(value) for value in row.values()] for row in table.to_pylist()]


def ids_of(row):
    """Ids and ranks."""
    return [value for value in row if isinstance(value, (str, int))]


def numbers_of(row):
    """Scores and predictions of heads."""
    return [
        one
        for value in row
        if isinstance(value, (float, list))
        for one in (value if isinstance(value, list) else [value])
    ]
