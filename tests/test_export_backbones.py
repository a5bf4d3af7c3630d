"""Exports with language models and image networks in their graphs: frozen and trained, by real and random weights."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from small import small_config
from tiny_clip import SENTENCES, tiny_clip

pytest.importorskip("onnx", reason="pip install 'anyrec[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'anyrec[export]'")
pytest.importorskip("onnxscript", reason="pip install 'anyrec[export]'")
from anyrec.core.contracts import Context
from anyrec.data.dataset import Dataset
from anyrec.data.preparation.image_arrays import reduced, resized_middle
from anyrec.encoders.clip import Clip
from anyrec.encoders.clip_model import ClipModel
from anyrec.export import load
from anyrec.recommender import Recommender


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of six pictures of one colour, 0.png to 5.png, all of other proportions."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        Image.new("RGB", (50 + 9 * number, 64), (40 * number, 255 - 40 * number, 90)).save(root / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def short_minilm(minilm, tmp_path_factory):
    """The folder of MiniLM with the first two of its layers, which torch traces three times as fast."""
    folder = tmp_path_factory.mktemp("minilm") / "minilm"
    shutil.copytree(minilm, folder, copy_function=os.symlink)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    return folder


def records(count, start, seed):
    """Items with texts of all lengths and pictures, several, one or none of each."""
    rng = np.random.default_rng(seed)
    words = np.array(" ".join(SENTENCES).split())
    made = []
    for number in range(start, start + count):
        one = {"item_id": f"i{number:03d}"}
        texts = [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(2)]
        files = [f"{n}.png" for n in rng.permutation(6)[:2]]
        one["text"] = {"title": texts[0], "slogan": texts[1], "motto": texts[: rng.integers(3)]}
        one["image"] = {"front": files[0], "back": files[: rng.integers(3)], "side": files[1]}
        for group in ("text", "image"):
            one[group] = {name: value for name, value in one[group].items() if value and rng.random() < 0.8}
        made.append(one)
    return made


@pytest.mark.slow
def test_frozen_and_trained_backbones_give_the_vectors_and_lists_of_the_model(short_minilm, clip, pictures, tmp_path):
    rng = np.random.default_rng(0)
    users = [{"user_id": f"u{n}", "categorical": {"job": ["nurse", "pilot"][n % 2]}} for n in range(20)]
    pairs = [{"user_id": f"u{n % 20}", "item_id": f"i{rng.integers(12):03d}"} for n in range(80)]
    document = {"user_data": users, "item_data": records(12, 0, 1), "interactions": pairs}
    fields = {
        "text": {
            "title": {"type": "sentence", "model": str(short_minilm)},
            "slogan": {"type": "clip_text", "model": clip, "frozen": False},
            "motto": {"type": "clip_text", "model": clip},
        },
        "image": {
            "front": {"type": "torchvision", "model": "resnet18", "weights": None, "size": 32},
            "back": {"type": "clip", "model": clip},
            "side": {"type": "clip", "model": clip, "frozen": False},
        },
    }
    config = small_config(
        features={"identity": None, **{group: {"fields": options} for group, options in fields.items()}},
        data={"image_root": str(pictures)},
        split={"protocol": "none"},
        training={"epochs": 1, "batch_size": 64, "patience": None},
    )
    (tmp_path / "data.json").write_text(json.dumps(document))
    recommender = Recommender.from_config(config).fit(Dataset.read(tmp_path / "data.json"), progress=False)
    export = recommender.export(tmp_path / "export")
    assert export.difference < 1e-5
    new = records(20, 100, 2)
    ours = np.stack(recommender.embed_items(new)["embedding"].to_numpy())
    wider = recommender.add_items(new).recommend(users, 32)
    for backend, some in (("onnxruntime", 20), ("numpy", 3)):
        runtime = load(export.folder, backend=backend, threads=1, image_root=pictures)
        theirs = np.stack(runtime.embed_items(new[:some])["embedding"].to_numpy())
        np.testing.assert_allclose(theirs, ours[:some], rtol=0, atol=1e-5 * np.abs(ours).max())
    runtime = load(export.folder, threads=1, image_root=pictures)
    found = runtime.add_items(new).recommend(users, 32)
    assert found["item_id"].equals(wider["item_id"]) and found["user_id"].equals(wider["user_id"])
    np.testing.assert_allclose(found["score"], wider["score"], rtol=1e-5, atol=1e-5)


def test_pictures_for_a_frozen_clip_model_are_within_one_level_of_those_of_transformers(clip):
    model, rng = ClipModel(clip, Context(), ""), np.random.default_rng(0)
    processor = model._model[0].processor.image_processor
    mean, deviation = (one.view(3, 1, 1) for one in model.pixel_statistics())
    for width, height in ((700, 500), (90, 610), (40, 33), (32, 32), (20, 500)):
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)).resize((width, height))
        theirs = processor(images=[Image.fromarray(reduced(noise))], return_tensors="pt")["pixel_values"][0]
        ours = resized_middle(noise, model.image_size)
        assert np.abs((theirs * deviation + mean).numpy() * 255 - ours).max() < 1.01


def test_a_frozen_clip_model_that_reads_other_parts_of_images_is_not_exported(clip, monkeypatch):
    encoder = Clip(Clip.Params(model=clip))
    encoder.context = Context()
    assert encoder.export_fault() == ""
    processor = encoder._model()._model[0].processor.image_processor
    monkeypatch.setattr(processor, "do_center_crop", False)
    assert encoder.export_fault() == "its model does not read the middle square of images"
    trained = Clip(Clip.Params(model=clip, frozen=False))
    assert trained.export_fault() == "", "a trained model reads what anyrec prepares"
