"""Heads: what they answer, and how they are measured."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics as reference
from small import call, small_config, small_dataset

from anyrec.evaluation.heads import head_metrics
from anyrec.recommender import Recommender
from anyrec.report.collect import collect_report_data
from anyrec.report.sections import sections
from anyrec.report.write import save_figures

HEADS = {"kind": {"type": "interaction_type"}, "rating": {}}


@pytest.fixture(scope="module")
def fitted():
    return fit()


def fit(data=None, **changes):
    config = small_config(heads=HEADS, split={"protocol": "random", "test": 0.2}, **changes)
    return Recommender.from_config(config).fit(data or small_dataset(), progress=False)


def truth(recommender, part="test"):
    learning = recommender.model.learning
    return learning.dataset.interactions.take(pa.array(learning.held_out(part)))


def test_a_head_of_classes_answers_with_their_names_and_probabilities(fitted):
    found = fitted.score([{"user_id": "u000", "item_id": "i001"}, {"user_id": "u001", "item_id": "i002"}])
    for row in found.to_pylist():
        assert set(row["kind"]) == {"buy", "view"} and sum(row["kind"].values()) == pytest.approx(1, abs=1e-5)
        assert isinstance(row["rating"], float)
    json.dumps(found.to_pylist())


def test_head_metrics_are_those_of_the_definitions(fitted):
    held = truth(fitted)
    state = fitted.model.before("test")
    dataset, rows = fitted.model.learning.dataset, fitted.model.learning.held_out("test")
    users, items = torch.from_numpy(dataset.user_rows[rows]), torch.from_numpy(dataset.item_rows[rows])
    with torch.inference_mode():
        predicted = state.predict(state.representations("user")[users], state.representations("item")[items])
    kinds, wanted = predicted["kind"].exp().double().numpy(), np.array(held["interaction_type"].to_pylist())
    found = head_metrics(fitted.model, "test")
    assert (
        found["kind"]["count"] == found["rating"]["count"] == len(rows)
        and found["kind"]["target"] == "interaction_type"
    )
    names = np.array(["buy", "view"])
    assert found["kind"]["accuracy"] == pytest.approx(reference.accuracy_score(wanted, names[kinds.argmax(1)]))
    assert found["kind"]["log_loss"] == pytest.approx(
        reference.log_loss(wanted, kinds / kinds.sum(1, keepdims=True)), abs=1e-5
    )
    assert found["kind"]["auc"] == pytest.approx(reference.roc_auc_score(wanted == "view", kinds[:, 1]), abs=1e-6)
    ratings, numbers = np.array(held["rating"].to_pylist()), predicted["rating"].double().numpy()
    assert found["rating"]["rmse"] == pytest.approx(np.sqrt(np.mean((numbers - ratings) ** 2)))
    assert found["rating"]["mae"] == pytest.approx(np.mean(np.abs(numbers - ratings)))


def test_targets_that_are_missing_or_new_are_not_counted():
    data = small_dataset()
    ratings = [None if n % 3 == 0 else float(1 + n % 5) for n in range(len(data.interactions))]
    place = data.interactions.column_names.index("rating")
    data.interactions = data.interactions.set_column(place, "rating", pa.array(ratings, pa.float64()))
    recommender = fit(data)
    found, held = recommender.evaluate_heads("test"), truth(recommender)
    assert 0 < found["rating"]["count"] == len(held) - held["rating"].null_count < len(held)
    assert recommender.evaluate_heads("validation")["kind"]["count"] > 0


def test_a_binary_head_of_a_plugin_is_measured(tmp_path):
    (tmp_path / "liked.py").write_text(LIKED)
    data = small_dataset()
    labels = pa.array([1 if n % 2 else None for n in range(len(data.interactions))], pa.int8())
    data.interactions = data.interactions.append_column("label", labels)
    config = small_config(heads={"five": {"type": "five"}}, split={"protocol": "random", "test": 0.2})
    recommender = Recommender.from_config(config, plugins=[tmp_path]).fit(data, progress=False)
    found = recommender.evaluate_heads()["five"]
    assert set(found) == {"target", "count", "accuracy", "log_loss", "auc"} and 0 <= found["auc"] <= 1
    scored = recommender.score([{"user_id": "u000", "item_id": "i001"}])
    assert 0 < scored["five"][0].as_py() < 1


LIKED = '''
import torch
from torch import nn
from torch.nn import functional

from anyrec import Head, Prepared


class Five(Head):
    """Whether the rating is 5."""

    type = "five"
    target = "rating"
    task = "binary"

    def build(self):
        self.layer = nn.Linear(self.dim, 1)

    def targets(self, column):
        present = torch.tensor(column.is_valid().to_pylist())
        return Prepared((torch.tensor(column.fill_null(0).to_pylist()) == 5).float(), present)

    def forward(self, pair):
        return self.layer(pair).squeeze(-1)

    def loss(self, prediction, target):
        return functional.binary_cross_entropy_with_logits(prediction, target, reduction="none")

    def answer(self, prediction):
        return prediction.sigmoid()
'''


def test_the_report_and_evaluation_json_have_the_metrics_of_heads(fitted, tmp_path):
    data = collect_report_data(fitted, progress=False)
    assert data.heads == fitted.evaluate_heads("test")
    (table,) = [block for one in sections(data, tmp_path) if one.title == "Heads" for block in one.blocks[1:]]
    assert list(table.header) == ["head", "target", "interactions", "accuracy", "log_loss", "auc", "rmse", "mae"]
    assert [row[0] for row in table.rows] == ["kind", "rating"]
    save_figures(data, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["heads"] == data.heads


def test_evaluate_prints_the_metrics_of_heads(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    data = small_dataset()
    folder = tmp_path / "data"
    folder.mkdir()
    import pyarrow.parquet as pq

    for name in ("users", "items", "interactions"):
        pq.write_table(getattr(data, name), folder / f"{name}.parquet")
    code, out, _ = call("evaluate", "--model_path", tmp_path / "model", "--data", folder)
    assert code == 0 and set(json.loads(out)["heads"]) == {"kind", "rating"}


def test_a_model_without_heads_has_no_metrics_of_heads():
    plain = Recommender.from_config(small_config(model={"type": "popularity"})).fit(small_dataset(), progress=False)
    assert plain.evaluate_heads() == {}
