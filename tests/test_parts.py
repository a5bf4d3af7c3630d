"""The parts of the frame that programs use by themselves: towers, fusion and indexes."""

import doctest
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from small import small_config, small_dataset
from torch import nn

import anyrec
from anyrec import (
    EntityTower,
    ItemTower,
    MultiModalFusion,
    Recommender,
    TwoTower,
    UserTower,
    create_index,
)
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError
from anyrec.model.dim_shares import dim_shares

PARTS = ["EntityTower", "UserTower", "ItemTower", "TwoTower", "MultiModalFusion", "create_index", "apply_rules"]
PAGE = ROOT / "docs" / "how-to" / "parts.md"


@pytest.mark.parametrize("name", PARTS)
def test_the_example_of_each_part_runs(name):
    torch.manual_seed(0)
    names = {"torch": torch, "np": np, **{one: getattr(anyrec, one) for one in anyrec.__all__}}
    tests = doctest.DocTestFinder(recurse=False).find(getattr(anyrec, name), name, module=False, globs=names)
    assert tests and all(one.examples for one in tests)
    runner = doctest.DocTestRunner()
    assert all(runner.run(one).failed == 0 for one in tests)


def test_the_programs_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(block, space)


# Towers


def batch(rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "text.title": torch.randn(rows, 12, generator=generator),
        "categorical.brand": torch.randint(5, (rows,), generator=generator),
        "continuous.price": torch.randn(rows, 1, generator=generator),
    }


SIZES = {"text.title": 12, "categorical.brand": 5, "continuous.price": 1}
FUSIONS = [name for name in discover().names("fusion") if name != "identity"]


def test_the_frame_uses_these_towers():
    recommender = Recommender.from_config(small_config(training={"epochs": 1})).fit(small_dataset(), progress=False)
    scorer = recommender.model.scorer
    assert type(scorer) is TwoTower and type(scorer.user) is UserTower and type(scorer.item) is ItemTower


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("ratio", [None, {"text": 7, "categorical": 2, "continuous": 1}])
def test_a_missing_feature_has_no_effect_on_output_or_gradients(fusion, ratio):
    torch.manual_seed(0)
    tower = EntityTower(SIZES, 20, fusion=fusion, dim_ratio=ratio).eval()
    values, mask = batch(), {"text.title": torch.arange(6) % 2 == 0}
    spoiled = dict(values, **{"text.title": values["text.title"].clone()})
    spoiled["text.title"][1::2] = torch.nan
    first, second = tower(values, mask), tower(spoiled, mask)
    assert first.shape == (6, 20) and torch.equal(first, second)
    assert not torch.equal(first[0], tower(values, {"text.title": torch.zeros(6, dtype=torch.bool)})[0])
    second.square().sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in tower.parameters())


def test_a_feature_that_is_left_out_is_missing_in_all_rows():
    tower = EntityTower(SIZES, 8).eval()
    values = batch()
    masked = tower(values, {"continuous.price": torch.zeros(6, dtype=torch.bool)})
    values.pop("continuous.price")
    assert torch.equal(tower(values), masked)


def test_with_shares_the_sum_of_the_features_is_their_concatenation():
    tower = EntityTower(SIZES, 10, fusion="sum", dim_ratio={"text": 7, "categorical": 2, "continuous": 1}).eval()
    assert {group: share.width for group, share in tower.shares.items()} == {
        "categorical": 2,
        "continuous": 1,
        "text": 7,
    }
    values = batch()
    own = dict(zip(tower.features, tower.encoders, strict=True))
    assert torch.allclose(tower(values), torch.cat([own[name](values[name]) for name in sorted(SIZES)], 1))


def test_a_group_without_a_share_has_the_whole_dimension():
    tower = EntityTower({**SIZES, "identity.id": 9}, 10, dim_ratio={"text": 1, "categorical": 1})
    assert [tower.width(name) for name in tower.features] == [5, 10, 10, 5]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-6, 1e6), min_size=1),
    st.integers(6, 300),
    st.sets(st.sampled_from("abcdef"), min_size=1),
)
def test_shares_fill_the_dimension_in_the_ratio(ratio, dim, groups):
    shares = dim_shares([f"{group}.x" for group in groups], dim, ratio)
    assert set(shares) == groups & set(ratio)
    if shares:
        ends = [0, *(share.start + share.width for share in shares.values())]
        assert [share.start for share in shares.values()] == ends[:-1] and ends[-1] == dim
        total = sum(ratio[group] for group in shares)
        for group, share in shares.items():
            exact = dim * ratio[group] / total
            assert share.width >= 1 and (share.width == 1 or share.width < exact + 1)


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="3 groups cannot share 2 dimensions"):
        EntityTower(SIZES, 2, dim_ratio={"text": 1, "categorical": 1, "continuous": 1})
    with pytest.raises(ConfigError, match="above 0; found 0"):
        EntityTower(SIZES, 8, dim_ratio={"text": 1, "categorical": 0})
    with pytest.raises(ConfigError, match=r"/dim_ratio/txt: no feature is of this group\. Did you mean 'text'"):
        EntityTower(SIZES, 8, dim_ratio={"txt": 1})


def test_a_module_of_ones_own_encodes_a_feature():
    own = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16))
    tower = EntityTower({"audio.clip": own, "text.title": 4}, 16, 32)
    assert tower({"audio.clip": torch.randn(2, 3), "text.title": torch.randn(2, 4)}).shape == (2, 32)
    with pytest.raises(ConfigError, match=r"audio.clip: its module returns \(2, 16\); expected \(batch, 8\)"):
        EntityTower({"audio.clip": own}, 8)({"audio.clip": torch.randn(2, 3)})


def test_all_faults_of_the_tensors_are_reported_together():
    tower = EntityTower(SIZES, 8)
    with pytest.raises(DataError) as error:
        tower({**batch(), "text.titel": torch.zeros(6, 12)}, {"image.photo": torch.ones(6, dtype=torch.bool)})
    assert "Did you mean 'text.title'" in str(error.value) and "image.photo" in str(error.value)
    with pytest.raises(DataError) as error:
        wrong = {"text.title": torch.zeros(6, 3), "categorical.brand": torch.full((6,), 5)}
        tower({**wrong, "continuous.price": torch.ones(6)}, {"text.title": torch.ones(6)})
    message = str(error.value)
    assert "float vectors (6, 12); found torch.float32 (6, 3)" in message and "ids from 0 to 4; found 5" in message
    assert "continuous.price: expected float vectors (6, 1)" in message and "a mask of bool (6,)" in message
    with pytest.raises(DataError, match="the same number of rows"):
        tower({"text.title": torch.zeros(6, 12), "categorical.brand": torch.zeros(5, dtype=torch.int64)})
    with pytest.raises(DataError, match="no feature"):
        tower({})
    with pytest.raises(DataError, match=r"text.title: expected a tensor \(rows, ...\); found a ndarray"):
        tower({"text.title": np.zeros((6, 12))})


def test_sizes_that_cannot_be_are_refused_together():
    with pytest.raises(ConfigError, match="3 faults"):
        EntityTower({"text.title": 0, "image.photo": "x"}, 0)
    for make in (EntityTower, MultiModalFusion):
        with pytest.raises(ConfigError, match="expected at least one feature"):
            make({}, 8)


@pytest.mark.parametrize("interaction", ["dot", "cosine", "mlp", {"type": "attention", "num_heads": 2}])
def test_two_towers_learn_which_items_users_like(interaction):
    torch.manual_seed(0)
    model = TwoTower(UserTower({"identity.id": 8}, 8), ItemTower({"text.title": 4}, 8), interaction)
    titles, users = torch.randn(8, 4), torch.arange(8)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        scores = model({"identity.id": users}, {"text.title": titles})
        loss = nn.functional.cross_entropy(scores, users)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert (model.eval()({"identity.id": users}, {"text.title": titles}).argmax(1) == users).float().mean() > 0.8


def test_towers_of_different_sizes_are_refused():
    with pytest.raises(ConfigError, match="the user tower returns 8 dimensions, the item tower 16"):
        TwoTower(UserTower({"identity.id": 8}, 8), ItemTower({"text.title": 4}, 16))


@pytest.mark.parametrize("strategy", FUSIONS)
def test_every_fusion_joins_modalities_and_ignores_missing_ones(strategy):
    fusion = MultiModalFusion({"image": 6, "text": 4, "categorical": 3}, 16, strategy).eval()
    vectors = {"image": torch.randn(3, 6), "text": torch.randn(3, 4), "categorical": torch.randn(3, 3)}
    mask = {"image": torch.tensor([True, False, True])}
    spoiled = dict(vectors, image=torch.where(mask["image"][:, None], vectors["image"], torch.inf))
    assert torch.equal(fusion(vectors, mask), fusion(spoiled, mask))
    assert fusion(vectors).shape == (3, 16)


def test_an_unknown_fusion_or_option_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'gated'"):
        MultiModalFusion({"text": 4}, 8, "gate")
    with pytest.raises(ConfigError, match="/fusion/num_head: unknown key"):
        MultiModalFusion({"text": 4}, 8, {"type": "attention", "num_head": 2})


# The same by a config


def test_dim_ratio_in_a_config_shares_the_dimension_and_is_saved(tmp_path):
    ratio = {"text": 7, "categorical": 2, "continuous": 1}
    document = small_config(
        dim=20, dim_ratio=ratio, training={"epochs": 1, "batch_size": 128}, output_dir=str(tmp_path)
    )
    recommender = Recommender.from_config(document).fit(small_dataset(), progress=False)
    item = recommender.model.scorer.item
    assert {name: item.width(name) for name in item.features} == {
        "categorical.tags": 4,
        "continuous.price": 2,
        "identity.id": 20,
        "temporal.restocked": 20,
        "text.title": 14,
    }
    again = Recommender.load(recommender.save(tmp_path / "saved"))
    assert again.recommend(["u001"], 5).equals(recommender.recommend(["u001"], 5))
    new = [{"user_id": "new", "categorical": {"job": "nurse"}}]
    assert again.recommend(new, 5).equals(recommender.recommend(new, 5))


def test_unknown_groups_and_too_many_of_them_are_refused_before_training():
    def fit(**changes):
        Recommender.from_config(small_config(**changes)).fit(small_dataset(), progress=False)

    with pytest.raises(ConfigError, match=r"/dim_ratio/txt: no such feature group\. Did you mean 'text'"):
        fit(dim_ratio={"txt": 1})
    with pytest.raises(ConfigError, match="3 groups cannot share 2 dimensions"):
        fit(dim=2, dim_ratio={"text": 1, "categorical": 1, "continuous": 1})
    features = {"identity": {"graph_layers": 1}}
    with pytest.raises(ConfigError, match="/dim_ratio/identity: the share of 'identity' is"):
        fit(dim_ratio={"identity": 1, "text": 1, "temporal": 5}, features=features, user={"features": {"text": None}})


# Indexes


@pytest.mark.parametrize(
    ("backend", "kind"), [("exact", None), ("faiss", "flat"), ("faiss", "hnsw"), ("faiss", "ivf"), ("usearch", None)]
)
@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_an_index_finds_the_nearest_and_is_saved(backend, kind, metric, tmp_path):
    if backend == "usearch":
        pytest.importorskip("usearch")
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    index = create_index(backend, 8, metric, kind)
    index.build(vectors)
    keys, _ = index.search(vectors[:20], 5)
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors
    best = np.argsort(-(scaled[:20] @ scaled.T), axis=1)[:, :5]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(keys, best, strict=True)]) > 0.9
    index.save(tmp_path)
    again = create_index(backend, 8, metric, kind)
    again.load(tmp_path)
    assert np.array_equal(again.search(vectors[:20], 5).keys, keys)


def test_faults_of_an_index_are_reported_together():
    with pytest.raises(ConfigError) as error:
        create_index("fais", 0, "euclidean", "hnsw")
    message = str(error.value)
    assert "Did you mean 'faiss'" in message and "from 1 to" in message and "orders like the euclidean" in message
    with pytest.raises(ConfigError, match="index_type: the index 'exact' has only one kind"):
        create_index("exact", 8, index_type="flat")
    with pytest.raises(ConfigError, match="kind"):
        create_index("faiss", 8, index_type="tree")
    assert create_index("faiss", 8, index_type="ivf", options={"nprobe": 3}).params.nprobe == 3
