"""Images: unusual files are read or reported, and the encoders keep their contract."""

import copy
import gc
import json
import pickle
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from small import small_config, small_dataset

from anyrec.core.config import DataConfig
from anyrec.core.contracts import Context
from anyrec.core.errors import ConfigError, DataError
from anyrec.core.files import sha256_of
from anyrec.core.load_config import load_config
from anyrec.core.ragged import select
from anyrec.data.dataset import Dataset
from anyrec.data.images import ImageFault, check_images, open_image
from anyrec.encoders.image import CNN, Torchvision, make_backbone
from anyrec.encoders.visual_descriptor import VisualDescriptor
from anyrec.recommender import Recommender
from anyrec.testing import check_encoder


def gradient(width=40, height=30):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], 2).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one picture in many file formats and modes, and with unreadable files."""
    root = tmp_path_factory.mktemp("images")
    rgb = Image.fromarray(gradient())
    rgb.save(root / "rgb.png")
    rgb.save(root / "rgb.jpg", quality=95)
    rgb.convert("CMYK").save(root / "cmyk.jpg", quality=95)
    rgb.convert("L").save(root / "grey.png")
    rgb.quantize(64).save(root / "palette.png")
    rgb.save(root / "animated.gif", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257).save(root / "sixteen.png")
    glass = rgb.convert("RGBA")
    glass.putalpha(Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 1).repeat(30, 0)))
    glass.save(root / "alpha.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(root / "turned.jpg", exif=turned, quality=95)
    data = (root / "rgb.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (root / "noise.png").write_bytes(b"this is no picture")
    (root / "empty.png").write_bytes(b"")
    Image.new("1", (9000, 9000)).save(root / "bomb.png")
    return root


@pytest.mark.parametrize("name", ["rgb.png", "rgb.jpg", "cmyk.jpg", "palette.png", "animated.gif"])
def test_colours_survive_every_mode(folder, name):
    image = open_image(name, folder)
    assert image.mode == "RGB" and image.size == (40, 30)
    assert np.abs(np.asarray(image, int) - gradient()).mean() < 14


def test_sixteen_bits_grey_transparency_and_rotation(folder):
    assert np.abs(np.asarray(open_image("sixteen.png", folder), int)[..., 0] - gradient()[..., 0]).max() <= 1
    assert open_image("grey.png", folder).mode == "RGB"
    alpha = np.asarray(open_image("alpha.png", folder))
    assert (alpha[:, :20] == 255).all() and not (alpha[:, 20:] == 255).all()
    assert open_image("turned.jpg", folder).size == (30, 40)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nowhere.png", "missing"),
        ("truncated.jpg", "corrupt"),
        ("noise.png", "corrupt"),
        ("empty.png", "corrupt"),
        ("bomb.png", "too large"),
        ("http://example.org/a.png", "url"),
        ("ftp://example.org/a.png", "url"),
    ],
)
def test_an_unusable_file_is_reported_by_kind(folder, name, kind):
    with pytest.raises(ImageFault) as error:
        open_image(name, folder)
    assert error.value.kind == kind


def test_missing_and_corrupt_images_are_counted_and_masked_and_errors_if_strict(folder):
    column = pa.array(["rgb.png", "nowhere.png", "noise.png", None, "also.png"])
    context = Context(root=folder)
    encoder = CNN(None, 8)
    encoder.context = context
    assert encoder.encode_column(column).present.tolist() == [True, False, False, False, False]
    assert sorted(warning[:20] for warning in context.warnings) == ["1 of 4 images are co", "2 of 4 images are mi"]
    encoder.context = Context(root=folder, strict=True)
    with pytest.raises(DataError) as error:
        encoder.encode_column(column)
    assert error.value.counts == {"corrupt image": 1, "missing image": 2}


def test_validation_finds_every_bad_image(folder):
    items = pa.table(
        {"item_id": [1, 2], "image.a": ["rgb.png", "nowhere.png"], "image.b": [["noise.png", "rgb.jpg"], None]}
    )
    data = Dataset(pa.table({"user_id": [1]}), items, pa.table({"user_id": [1], "item_id": [1]}), folder)
    faults, counts = check_images(data, DataConfig())
    assert counts == {"corrupt image": 1, "missing image": 1}
    assert {fault.where for fault in faults} == {"nowhere.png", "noise.png"}


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_bad_image_is_reported_where_the_data_name_it(kind, folder, tmp_path):
    items = [{"item_id": "i1", "image": {"front": "rgb.png"}}, {"item_id": "i2", "image": {"front": "nowhere.png"}}]
    pairs = [{"user_id": "u", "item_id": "i2"}]
    if kind == "json":
        path, place = tmp_path / "d.json", "/item_data/1/image/front"
        content = {"user_data": [{"user_id": "u"}], "item_data": items, "interactions": pairs}
        path.write_text(json.dumps(content))
    else:
        path, place = tmp_path, "items.csv line 4, column 'image.front'"
        (path / "items.csv").write_text('item_id,text.a,image.front\ni1,"two\nlines",rgb.png\ni2,,nowhere.png\n')
        (path / "users.csv").write_text("user_id\nu\n")
        (path / "interactions.csv").write_text("user_id,item_id\nu,i2\n")
    options = DataConfig(image_root=str(folder), strict=True)
    faults, _ = check_images(Dataset.read(path, options), options)
    assert [fault.where for fault in faults] == [place]
    config = small_config(data={"image_root": str(folder), "strict": True})
    with pytest.raises(DataError, match=re.escape(f"{place}: the image 'nowhere.png': there is no such file.")):
        Recommender.from_config(config).fit(Dataset.read(path, options), progress=False)
    config["data"]["strict"] = False
    data = Dataset.read(path, DataConfig(image_root=str(folder)))
    assert any(place in note for note in Recommender.from_config(config).fit(data, progress=False).notes)


COLUMN = pa.array(
    [
        ["rgb.png", "grey.png"],
        ["turned.jpg"],
        None,
        [],
        ["noise.png"],
        ["palette.png"],
        ["rgb.png"],
        ["noise.png", "rgb.png"],
    ]
)


def test_the_convolutional_network_keeps_the_contract(folder):
    check_encoder(CNN, COLUMN, {"size": 16, "channels": 8}, Context(root=folder))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_torchvision_backbone_keeps_the_contract(folder, tmp_path, frozen):
    params = {"model": "shufflenet_v2_x0_5", "weights": None, "frozen": frozen, "size": 32}
    if frozen:
        check_encoder(Torchvision, COLUMN, params, Context(root=folder, cache=tmp_path))
        return
    encoder = Torchvision(Torchvision.Params(**params), 8)
    encoder.context = Context(root=folder)
    prepared = encoder.encode_column(COLUMN)
    encoder.build()
    encoder.train()
    whole = encoder(select(prepared.values, torch.arange(8)))
    assert torch.allclose(encoder(select(prepared.values, torch.tensor([5])))[0], whole[5], atol=1e-5)
    whole[prepared.present].square().sum().backward()
    assert all(p.grad is not None for name, p in encoder.named_parameters() if "backbone" in name and p.requires_grad)


def test_a_frozen_backbone_is_made_once_for_all_threads_and_copies_and_files_have_none_of_it(
    folder, tmp_path, monkeypatch
):
    """A server embeds pictures of requests one at a time; it loads the backbone before it answers."""
    made = []

    def counted(*args):
        made.append(weakref.ref(backbone := make_backbone(*args)[0]))
        return backbone, 1024

    monkeypatch.setattr("anyrec.encoders.image.make_backbone", counted)
    params = Torchvision.Params(model="shufflenet_v2_x0_5", weights=None, size=32)
    encoder = Torchvision(params, 8)
    encoder.context = Context(root=folder, cache=tmp_path / "first")
    empty = len(pickle.dumps(encoder))
    pictures = [pa.array([name]) for name in ("rgb.png", "grey.png", "alpha.png", "turned.jpg")]
    encoder.encode_column(pa.array(["nowhere.png"]))
    assert not made
    with ThreadPoolExecutor(4) as pool:
        vectors = [one.values for one in pool.map(encoder.encode_column, pictures)]
    encoder.load()
    assert len(made) == 1
    again = copy.deepcopy(encoder)
    again.context = Context(root=folder, cache=tmp_path / "second")
    assert len(pickle.dumps(encoder)) < empty + 1000 and not encoder.state_dict()
    assert all(
        torch.equal(again.encode_column(one).values, vector) for one, vector in zip(pictures, vectors, strict=True)
    )
    assert len(made) == 2
    del encoder, again
    gc.collect()
    assert [one() for one in made] == [None, None]
    Torchvision(params.model_copy(update={"frozen": False}), 8).load()
    assert len(made) == 2


def test_weights_are_read_from_a_file_without_running_code(folder, tmp_path):
    from torchvision import models

    torch.manual_seed(5)
    model = models.shufflenet_v2_x0_5()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    params = Torchvision.Params(model="shufflenet_v2_x0_5", weights=str(tmp_path / "weights.pth"), frozen=False)
    encoder = Torchvision(params, 8)
    encoder.build()
    assert torch.equal(encoder.backbone.conv1[0].weight, model.conv1[0].weight)
    torch.save(model, tmp_path / "pickled.pth")
    bad = Torchvision(
        Torchvision.Params(model="shufflenet_v2_x0_5", weights=str(tmp_path / "pickled.pth"), frozen=False), 8
    )
    with pytest.raises(ConfigError, match="cannot be used"):
        bad.build()


def test_an_unknown_backbone_is_an_error_that_names_the_nearest_one():
    with pytest.raises(ConfigError, match="resnet18"):
        Torchvision(Torchvision.Params(model="resnet-18", frozen=False), 8).build()


def test_visual_descriptors_separate_images_by_colour_and_by_edge_direction(tmp_path):
    stripes = np.tile(np.array([[0] * 8 + [255] * 8], np.uint8), (64, 4))
    pictures = {
        "red": np.full((64, 64, 3), (200, 20, 20), np.uint8),
        "darkish red": np.full((40, 30, 3), (180, 30, 20), np.uint8),
        "blue": np.full((64, 64, 3), (20, 20, 200), np.uint8),
        "upright": np.repeat(stripes[..., None], 3, 2),
        "level": np.repeat(stripes.T[..., None], 3, 2),
    }
    for name, values in pictures.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    column = pa.array([f"{name}.png" for name in pictures] + [None, "none.png", "red.png"])
    encoder = VisualDescriptor(VisualDescriptor.Params(), 8)
    encoder.context = Context(root=tmp_path, cache=tmp_path / "cache")
    values, present = encoder.encode_column(column)
    assert present.tolist() == [True] * 5 + [False, False, True]
    red, darkish, blue, upright, level = torch.nn.functional.normalize(values[:5], dim=1)
    assert red @ darkish > red @ blue and upright @ level < 0.9
    assert torch.equal(values[0], values[7])
    check_encoder(VisualDescriptor, column, {}, Context(root=tmp_path, cache=tmp_path / "cache"))


def test_the_encoder_name_looks_still_works_and_one_note_says_what_it_is_called_now():
    for document in (
        {"features": {"image": {"type": "looks"}}},
        {"item": {"features": {"image": {"type": "looks"}}}},
        {"features": {"image": {"fields": {"poster": {"type": "looks", "cells": 4}}}}, "defaults": "fixed"},
    ):
        config, notes = load_config(document)
        assert sum("'looks' is now called 'visual_descriptor'" in note for note in notes) == 1
        assert "looks" not in config.model_dump_json()
    assert load_config({"features": {"image": {"type": "visual_descriptor"}}})[1] == []


def test_a_model_saved_with_the_encoder_name_looks_loads_and_gives_the_same_lists(folder, tmp_path):
    data = small_dataset(users=30, items=20, each=5)
    pictures = pa.array([["rgb.png", "grey.png", "turned.jpg", "palette.png"][n % 4] for n in range(20)])
    items = data.items.append_column("image.cover", pictures)
    data = Dataset(data.users, items, data.interactions, folder, data.roles)
    config = small_config(features={"image": {"type": "visual_descriptor", "cells": 2}})
    fitted = Recommender.from_config(config).fit(data, progress=False)
    saved = fitted.save(tmp_path / "model")
    manifest = json.loads((saved / "manifest.json").read_text(encoding="utf-8"))
    renamed = 0
    for name in manifest["files"]:
        if name.endswith(".json"):
            text = (saved / name).read_text(encoding="utf-8")
            renamed += '"visual_descriptor"' in text
            (saved / name).write_text(text.replace('"visual_descriptor"', '"looks"'), encoding="utf-8")
            manifest["files"][name] = sha256_of(saved / name)
    (saved / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert renamed == 2  # the config and the fitted encoders
    assert Recommender.load(saved).recommend(None, 5).equals(fitted.recommend(None, 5))
