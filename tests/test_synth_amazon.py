"""Data of a generated shop: exact numbers, valid, reproducible, with tastes that a model can learn."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import call

from anyrec.core.errors import InputError
from anyrec.data.dataset import Dataset
from anyrec.data.synthetic.amazon import allocate, generate_shop
from anyrec.recommender import Recommender


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.floats(0, 1), st.integers(0, 5))
def test_every_number_that_is_possible_is_made_exactly(users, items, share, seed):
    wanted = max(1, round(share * users * items))
    data = generate_shop(users, items, wanted, seed).dataset
    assert (len(data.users), len(data.items), len(data.interactions)) == (users, items, wanted)
    assert len(np.unique(data.user_rows * items + data.item_rows)) == wanted
    if wanted >= users:
        assert np.bincount(data.user_rows, minlength=users).min() >= 1


def test_more_interactions_than_pairs_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(InputError, match="200 pairs, each of which occurs at most once"):
        generate_shop(20, 10, 201)
    numbers = ("--n_users", 20, "--n_items", 10, "--n_interactions", 201)
    code, _, message = call("synth", "amazon", tmp_path / "shop", *numbers)
    assert code == 2 and "200 pairs" in message and not list(tmp_path.iterdir())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), st.integers(1, 20), st.floats(0, 1))
def test_a_number_is_divided_in_whole_parts_within_bounds_and_in_the_order_of_the_weights(weights, most, share):
    total = round(share * most * len(weights))
    parts = allocate(np.array(weights), total, most)
    assert parts.sum() == total and parts.max() <= most and parts.min() >= (total >= len(weights))
    order = np.argsort(weights)
    assert (np.diff(parts[order]) >= -1).all()


def test_json_and_parquet_hold_the_same_data_and_the_same_seed_makes_the_same_bytes(tmp_path):
    numbers = ("--n_users", 30, "--n_items", 12, "--n_interactions", 200, "--seed", 3, "--images")
    for name, form in (("a", "parquet"), ("b", "parquet"), ("c", "json"), ("d.json", None)):
        more = () if form is None else ("--format", form)
        code, _, message = call("synth", "amazon", tmp_path / name, *numbers, *more)
        assert code == 0 and "30 users, 12 items, 200 interactions" in message
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")}
    assert len(files) == 3 + 12
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    tables, document, named = (Dataset.read(tmp_path / name) for name in ("a", "c/data.json", "d.json"))
    for one in (document, named):
        for part in ("users", "items", "interactions"):
            found = getattr(one, part)
            assert found.equals(getattr(tables, part).select(found.column_names))
    code, out, _ = call("validate", tmp_path / "a")
    assert code == 0 and "valid: 30 users" in out
    assert call("synth", "amazon", tmp_path / "e", "--format", "xml")[0] == 2
    other = generate_shop(30, 12, 200, 4).dataset
    assert not other.interactions.equals(generate_shop(30, 12, 200, 3).dataset.interactions)


def test_popularity_has_a_long_tail_and_people_keep_to_their_categories():
    data = generate_shop(2000, 600, 40_000).dataset
    each = np.sort(np.bincount(data.item_rows, minlength=600))[::-1]
    assert each[:60].sum() > 0.25 * each.sum() and each[-60:].sum() < 0.1 * each.sum()
    category = np.unique(data.items["categorical.category"].to_numpy(), return_inverse=True)[1]
    counts = np.zeros((2000, category.max() + 1))
    np.add.at(counts, (data.user_rows, category[data.item_rows]), 1)
    active = counts[counts.sum(1) >= 10]
    assert (active.max(1) / active.sum(1)).mean() > 0.45  # 0.3 if there were no tastes
    ratings = data.interactions["rating"].drop_null().to_numpy()
    assert set(ratings) == {1.0, 2.0, 3.0, 4.0, 5.0} and 3.8 < ratings.mean() < 4.6
    config = {"model": {"type": "ease"}, "split": {"protocol": "random"}}
    ease = Recommender.from_config(config).fit(data, progress=False).metrics["test"]["ndcg@10"]
    popularity = Recommender.from_config({**config, "model": {"type": "popularity"}}).fit(data, progress=False)
    assert ease > 1.2 * popularity.metrics["test"]["ndcg@10"]


def test_synth_with_a_path_alone_makes_planted_preferences_and_says_why_numbers_differ(tmp_path):
    numbers = ("--n_users", 30, "--n_items", 10, "--n_interactions", 100, "--no-images")
    code, _, message = call("synth", tmp_path / "a.json", *numbers)
    made = len(json.loads((tmp_path / "a.json").read_text())["interactions"])
    assert code == 0 and (made == 100) == ("instead of" not in message) and f"{made} interactions" in message
    assert call("synth", "planted", *numbers, tmp_path / "b.json")[0] == 0
    assert call("synth", *numbers, tmp_path / "c.json")[0] == 0
    assert len({(tmp_path / name).read_bytes() for name in ("a.json", "b.json", "c.json")}) == 1


def test_the_parquet_files_have_the_columns_of_the_data_format(tmp_path):
    generate_shop(5, 4, 9).write(tmp_path)
    assert pq.read_schema(tmp_path / "interactions.parquet").names == [
        "user_id",
        "item_id",
        "interaction_type",
        "timestamp",
        "rating",
    ]


def test_a_diffusion_model_paints_the_images_from_titles_and_seeds(tmp_path, monkeypatch):
    """diffusers is replaced by a stand-in, which takes the same calls: the library and weights are not installed."""
    calls = []

    class Pipeline:
        @classmethod
        def from_pretrained(cls, name, *, use_safetensors):
            assert use_safetensors, "weights in pickle are not opened"
            if name != "a model":
                raise OSError(f"{name} is no folder")
            return cls()

        def to(self, device):
            calls.append(device)

        def set_progress_bar_config(self, disable):
            assert disable

        def __call__(self, prompt, *, num_inference_steps, generator):
            calls.append((prompt, num_inference_steps, generator.initial_seed()))
            colour = np.random.default_rng(generator.initial_seed()).integers(0, 256, 3).tolist()
            return SimpleNamespace(images=[Image.new("RGB", (512, 512), tuple(colour))])

    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(AutoPipelineForText2Image=Pipeline))
    sizes = ("--users", 5, "--items", 4, "--interactions", 12)
    for name in ("one", "two"):
        options = ("--image-model", "a model", "--image-steps", 3)
        assert call("synth", "amazon", tmp_path / name, *sizes, *options)[0] == 0
    prompts = [one for one in calls if isinstance(one, tuple)]
    items = pq.read_table(tmp_path / "one" / "items.parquet").to_pylist()
    assert len(prompts) == 8 and prompts[:4] == prompts[4:] and len({seed for *_, seed in prompts}) == 4
    assert all(
        row["text.title"] in prompt and steps == 3 for row, (prompt, steps, _) in zip(items, prompts[:4], strict=True)
    )
    for row in items:
        with Image.open(tmp_path / "one" / row["image.photo"]) as image:
            assert image.size == (256, 256)
    code, _, message = call("synth", "amazon", tmp_path / "three", *sizes, "--image-model", "none")
    assert code == 2 and "--image-model: the model 'none' cannot be loaded: none is no folder." in message


def test_without_diffusers_the_command_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    code, _, message = call("synth", "amazon", tmp_path / "x", "--items", 3, "--image-model", "a model")
    assert code == 3 and "pip install 'anyrec[diffusion]'" in message and not (tmp_path / "x").exists()
