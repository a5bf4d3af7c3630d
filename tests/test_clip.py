"""Texts and images by a CLIP model: one space for items and queries, fine-tuning, long texts, missing weights."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from small import call, small_config
from tiny_clip import DIM, SENTENCES, tiny_clip

from anyrec.core.contracts import Context
from anyrec.core.errors import ConfigError, InputError
from anyrec.data.dataset import Dataset
from anyrec.encoders.clip import Clip
from anyrec.encoders.clip_text import ClipText
from anyrec.recommender import Recommender
from anyrec.testing import check_encoder

COLOURS = ["red", "blue", "green", "yellow", "black", "white", "orange", "grey"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Eight things with a title and a picture, the last one without a picture and the first one without a title."""
    root = tmp_path_factory.mktemp("shop")
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (40, 60), colour).save(root / f"{number}.png")
    titles = [None, *(f"a {colour} {thing}" for colour, thing in zip(COLOURS[1:], ["kite", "pan"] * 4, strict=False))]
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(8)],
            "text.title": titles,
            "image.front": [*(f"{n}.png" for n in range(7)), None],
        }
    )
    rng = np.random.default_rng(0)
    users = pa.table({"user_id": [f"u{n}" for n in range(20)]})
    pairs = {"user_id": [f"u{n % 20}" for n in range(80)], "item_id": [f"i{n}" for n in rng.integers(0, 8, 80)]}
    return Dataset.from_tables(users, items, pa.table(pairs), root=root)


def features(model, frozen=True):
    options = {"model": model, "frozen": frozen}
    return {"text": {"type": "clip_text", **options}, "image": {"type": "clip", **options}}


@pytest.fixture(scope="module")
def fitted(clip, shop):
    config = small_config(features=features(clip), split={"protocol": "none"})
    return Recommender.from_config(config).fit(shop, progress=False)


def ids(table):
    return table["item_id"].to_pylist()


@pytest.mark.parametrize("kind", [Clip, ClipText])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_encoders_keep_the_contract(kind, frozen, clip, shop, tmp_path):
    column = shop.items["image.front" if kind is Clip else "text.title"].combine_chunks()
    context = Context(root=shop.root, cache=tmp_path)
    check_encoder(
        kind, params={"model": clip, "frozen": frozen}, column=pa.concat_arrays([column] * 2), context=context
    )


def test_texts_of_items_images_of_items_and_queries_are_in_one_space(fitted, shop):
    assert len(fitted.search(text="a blue kite", k=8)) == 8, "an item with a text or an image is in the space"
    assert ids(fitted.search(image=shop.root / "0.png", k=1)) == ["i0"], "an item without a title by its image"
    assert ids(fitted.search(text="a grey kite", k=1)) == ["i7"], "an item without an image by its title"
    joint = fitted.search(text="a blue kite", k=8, space="joint")
    assert joint["score"].to_pylist() == fitted.search(text="a blue kite", k=8)["score"].to_pylist()


def test_the_score_is_the_cosine_of_the_query_and_the_sum_of_the_unit_vectors_of_text_and_image(fitted, shop, clip):
    text, image = ClipText(ClipText.Params(model=clip)), Clip(Clip.Params(model=clip))
    image.context = Context(root=shop.root)

    def unit(vectors):
        return torch.nn.functional.normalize(vectors, dim=1)

    titles, files = shop.items["text.title"].to_pylist(), shop.items["image.front"].to_pylist()
    wanted = {}
    for item, title, file in zip(shop.items["item_id"].to_pylist(), titles, files, strict=True):
        parts = [unit(text.embed_texts([title]))] if title else []
        parts += [unit(image.embed_images([file]))] if file else []
        wanted[item] = unit(sum(parts))
    query = unit(text.embed_texts(["a red kite"]))
    found = fitted.search(text="a red kite", k=8)
    for item, score in zip(ids(found), found["score"].to_pylist(), strict=True):
        assert score == pytest.approx(float(query @ wanted[item].T), abs=1e-5)


def test_items_with_texts_alone_are_searched_by_images(clip, shop):
    data = Dataset.from_tables(
        shop.users, shop.items.drop_columns(["image.front"]), shop.interactions.select(["user_id", "item_id"])
    )
    config = small_config(features={"text": features(clip)["text"]}, split={"protocol": "none"})
    found = Recommender.from_config(config).fit(data, progress=False).search(image=shop.root / "1.png", k=8)
    assert len(found) == 7, "the item without a title has nothing to compare"


def test_a_saved_model_searches_as_before(fitted, tmp_path, shop):
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model", trust_plugins=True)
    for query in ({"text": "a blue kite"}, {"image": shop.root / "3.png"}):
        assert ids(loaded.search(**query, k=8)) == ids(fitted.search(**query, k=8))
    options = ("--model_path", tmp_path / "model", "--trust-plugins", "--json")
    code, shown, _ = call("search", *options, "--text", "a grey kite", "--k", 1)
    assert code == 0 and json.loads(shown)[0]["item_id"] == "i7"


def test_fine_tuning_changes_the_halves_and_saves_them(clip, shop, tmp_path):
    config = small_config(features=features(clip, frozen=False), split={"protocol": "none"})
    fitted = Recommender.from_config(config).fit(shop, progress=False)
    tower = fitted.model.scorer.item
    for name, read in (("text.title", "text"), ("image.front", "image")):
        encoder = tower.encoders[list(tower.features).index(name)]
        fresh = type(encoder)(encoder.params)._model().half(read)
        changed = [
            not torch.equal(a, b)
            for (name, a), (_, b) in zip(encoder.backbone.named_parameters(), fresh.named_parameters(), strict=True)
            if a.requires_grad
        ]
        assert np.mean(changed) > 0.8, "the weights of the half are trained"
        other = "vision" if read == "text" else "text"
        assert not [name for name, _ in encoder.backbone.named_parameters() if name.startswith(other)]
    before = fitted.embed_items(["i0", "i1", "i7"])["embedding"].to_pylist()
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model", trust_plugins=True)
    np.testing.assert_allclose(loaded.embed_items(["i0", "i1", "i7"])["embedding"].to_pylist(), before, atol=1e-5)
    assert len(loaded.search(text="a blue kite", k=3, space="text")) == 3
    with pytest.raises(InputError, match="cannot be searched by text in the space 'joint'"):
        loaded.search(text="a blue kite", space="joint")


@pytest.mark.parametrize("limit", [77, None])
def test_texts_longer_than_the_tokens_of_the_model_are_cut_off_and_counted(limit, tmp_path):
    model = str(tiny_clip(tmp_path, limit))
    long = " ".join(SENTENCES * 5)
    for frozen in (True, False):
        encoder = ClipText(ClipText.Params(model=model, frozen=frozen), 8)
        encoder.context = Context(cache=tmp_path)
        prepared = encoder.encode_column(pa.array([long, "a red kite", None]))
        assert prepared.present.tolist() == [True, True, False]
        (note,) = encoder.context.warnings
        assert "1 of 2 texts are longer than the 77 tokens" in note and "'sentence'" in note
    assert prepared.values.lengths.tolist()[:2] == [77, 5]
    same = encoder.embed_texts([long, long + " and more"])
    assert torch.allclose(same[0], same[1])


@pytest.mark.parametrize("query", ["http://example.com/a.png", "/etc/hostname", "a" * 5000])
def test_a_text_that_looks_like_a_file_or_a_url_is_a_text(query, fitted, clip, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    assert ClipText(ClipText.Params(model=clip)).embed_texts([query]).shape == (1, DIM)
    assert Clip(Clip.Params(model=clip)).embed_texts([query]).shape == (1, DIM)
    assert len(fitted.search(text=query, k=3)) == 3


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"features": {"image": {"type": "clip", "model": "/no/clip"}}}, "/features/image/model"),
        ({"features": {"text": {"type": "clip_text", "model": "/no/clip"}}}, "/features/text/model"),
        ({"item": {"features": {"image": {"type": "clip", "model": "/no/clip"}}}}, "/item/features/image/model"),
        (
            {"features": {"text": {"fields": {"title": {"type": "clip_text", "model": "/no/clip"}}}}},
            "/features/text/fields/title/model",
        ),
        ({"features": {"image": {"type": "clip"}}}, "/features/image/model"),
    ],
)
def test_weights_that_are_missing_are_an_error_at_the_option_that_names_them(config, where, shop, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError) as error:
        Recommender.from_config(small_config(**config)).fit(shop, progress=False)
    (fault,) = error.value.faults
    assert fault.where == where and "cannot be loaded" in fault.what and "folder of a CLIP model" in fault.hint
    name = config.get("features", {}).get("image", {}).get("model", "")
    assert ("Put the files of the model into this folder" if name else "") in fault.hint


def test_a_model_without_images_is_no_clip_model(minilm, shop):
    config = small_config(features={"image": {"type": "clip", "model": str(minilm)}})
    with pytest.raises(ConfigError, match="has no vectors of texts and images in one space"):
        Recommender.from_config(config).fit(shop, progress=False)


def test_texts_by_the_image_encoder_are_refused_with_the_one_for_texts(shop):
    with pytest.raises(ConfigError, match="reads the group 'image', not 'text'") as error:
        Recommender.from_config(small_config(features={"text": {"type": "clip"}})).fit(shop, progress=False)
    assert "clip_text" in str(error.value)


def test_loading_a_model_draws_no_progress_bar(tmp_path, capfd):
    model = str(tiny_clip(tmp_path))
    capfd.readouterr()
    ClipText(ClipText.Params(model=model)).embed_texts(["a red kite"])
    assert capfd.readouterr().err == ""
