"""The model directory: a loaded model equals the saved one, changed files are refused, and there is no pickle."""

import ast
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from forked import kill
from small import small_config, small_dataset
from torch import nn

import anyrec
from anyrec.core.config import Component
from anyrec.core.errors import ModelError, OutputError
from anyrec.recommender import Recommender
from anyrec.retrieval.item_index import ItemIndex
from anyrec.storage.model_directory import find_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    config = small_config(heads={"kind": {"type": "interaction_type"}, "stars": {"type": "rating"}})
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    return recommender, recommender.save(tmp_path_factory.mktemp("run") / "model")


def test_a_loaded_model_gives_the_same_lists_vectors_and_predictions(saved):
    recommender, folder = saved
    again = Recommender.load(folder)
    assert again.recommend(None, 5).equals(recommender.recommend(None, 5))
    assert again.embed_items().equals(recommender.embed_items())
    new = small_dataset(seed=9).users.slice(0, 3).set_column(0, "user_id", pa.array(["x", "y", "z"]))
    assert again.recommend(new, 5).equals(recommender.recommend(new, 5))
    pairs = pa.table({"user_id": ["u001", "u002"], "item_id": ["i001", "i002"]})
    assert again.score(pairs).equals(recommender.score(pairs))
    assert again.score(pairs).column_names == ["user_id", "item_id", "score", "kind", "stars"]


def test_any_path_that_the_training_wrote_finds_the_model(saved):
    _, folder = saved
    for path in (folder, folder.parent, folder / "model.safetensors", folder.parent / "model.pth"):
        assert find_model(path) == folder
    with pytest.raises(ModelError, match="no such path"):
        find_model(Path("/nowhere/at/all/of/it"))


def test_a_changed_missing_or_foreign_file_is_refused(saved, tmp_path):
    recommender, _ = saved
    folder = recommender.save(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    (folder / "items.arrow").unlink()
    with pytest.raises(ModelError, match="2 faults") as error:
        Recommender.load(folder)
    assert "not the one that was saved" in str(error.value)
    assert "missing" in str(error.value)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        Recommender.load(folder)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_text("x")
    with pytest.raises(ModelError, match="is not a model"):
        recommender.save(other)
    assert (other / "me.jpg").exists()


def test_an_index_does_not_replace_a_model_and_a_model_no_index(saved, tmp_path):
    recommender, folder = saved[0], saved[0].save(tmp_path / "model")
    registry, ids = recommender.registry, recommender.dataset.ids("item")
    vectors = np.eye(len(ids), dtype=np.float32)
    made = ItemIndex.build(Component(type="exact"), registry, ids, vectors, model=recommender.model.model_id)
    index, before = made.save(tmp_path / "index"), sorted(folder.rglob("*"))
    foreign = tmp_path / "site"
    foreign.mkdir()
    (foreign / "manifest.json").write_text("{}")
    for place in (folder, foreign):
        with pytest.raises(ModelError, match="is not an index"):
            made.save(place)
    for place in (index, foreign):
        with pytest.raises(ModelError, match="is not a model"):
            recommender.save(place)
    assert sorted(folder.rglob("*")) == before and ItemIndex.load(index, registry).ids.equals(made.ids)
    made.save(index)
    recommender.save(folder)


def test_nothing_in_the_directory_is_a_pickle(saved):
    _, folder = saved
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".arrow", ".safetensors", ".md"}


def save_forever(ready, place, *models):
    """Save the models in turn at one place."""
    recommenders = [Recommender.load(model) for model in models]
    ready()
    while True:
        for recommender in recommenders:
            recommender.save(place)


def test_a_save_killed_at_any_moment_leaves_a_whole_model(saved, tmp_path):
    recommender, model = saved
    other = Recommender.from_config(small_config(seed=1)).fit(small_dataset(), progress=False)
    expected = [one.recommend(None, 5) for one in (recommender, other)]
    place = recommender.save(tmp_path / "model")
    other_model = other.save(tmp_path / "other")
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.11):
        kill(save_forever, place, other_model, model, after=delay)
        assert any(Recommender.load(place).recommend(None, 5).equals(one) for one in expected)


class Squares(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.layer = nn.Linear(width, out)

    def forward(self, values):
        return self.layer(values**2)


def test_a_module_of_the_users_own_is_trained_saved_and_loaded_only_when_trusted(tmp_path):
    data = small_dataset()
    signal_column = pa.array([[float(i % 4 == j) for j in range(4)] for i in range(len(data.items))])
    data.items = data.items.append_column("my_feature_type.signal", signal_column)
    recommender = Recommender.from_config(small_config())
    recommender.add_encoder("my_feature_type", Squares(4, 8))
    recommender.fit(data, progress=False)
    place = recommender.model.scorer.item.features.index("my_feature_type.signal")
    weights = recommender.model.scorer.item.encoders[place].module.layer.weight
    assert weights.shape == (8, 4)
    folder = recommender.save(tmp_path / "model")
    assert json.loads((folder / "manifest.json").read_text())["modules"]["my_feature_type"]["class"].endswith(
        ":Squares"
    )
    with pytest.raises(ModelError, match="trust_plugins=True"):
        Recommender.load(folder)
    again = Recommender.load(folder, trust_plugins=True)
    assert torch.equal(again.model.scorer.item.encoders[place].module.layer.weight, weights)
    assert again.recommend(None, 5).equals(recommender.recommend(None, 5))


def calls_in(path):
    """Dotted names of the functions and methods that a file calls, such as `os.replace`."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {ast.unparse(call) for call in calls if isinstance(call, (ast.Attribute, ast.Name))}


def test_only_one_module_replaces_files_and_folders():
    """Only `core.files` moves models, indexes, checkpoints and reports into place, so they are whole or absent."""
    package = Path(anyrec.__file__).parent
    movers = {"os.replace", "os.rename", "shutil.move", "os.renames"}
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if movers & calls_in(path)}
    assert found == {"core/files.py"}


def test_models_indexes_and_checkpoints_use_the_same_writer_and_the_same_check():
    package = Path(anyrec.__file__).parent
    writers = {"storage/model_directory.py", "retrieval/item_index.py", "training/checkpoints.py"}
    for name in writers:
        assert calls_in(package / name) & {"atomic_folder", "atomic_files", "atomic_write"}, name
    for name in ("storage/load_model.py", "retrieval/item_index.py"):
        assert {"read_version", "manifest.check"} <= calls_in(package / name), name


def test_a_failed_save_leaves_the_model_as_it_was(saved, tmp_path, monkeypatch):
    recommender, _ = saved
    folder = recommender.save(tmp_path / "model")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anyrec.storage.model_directory.write_towers", fails)
    with pytest.raises(OutputError, match="the disk is full"):
        recommender.save(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir() if "writing" in path.name] == []
