"""annoy, usearch and Qdrant keep the contract of an index; what only single backends do."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, InputError, ModelError
from anyrec.retrieval.recall import recall, true_nearest
from anyrec.testing import check_index

PACKAGES = {"annoy": "annoy", "faiss": "faiss", "usearch": "usearch", "qdrant": "qdrant_client"}
VECTORS = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)


def made(name, metric="dot", **options):
    pytest.importorskip(PACKAGES[name], reason=f"pip install 'anyrec[{name}]'")
    cls = discover().get("index", name)
    return cls(16, metric, cls.Params(**options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("annoy", {}),
        ("usearch", {}),
        ("usearch", {"dtype": "f32"}),
        ("usearch", {"dtype": "bf16"}),
        pytest.param("qdrant", {}, marks=pytest.mark.slow),
    ],
)
def test_an_index_keeps_the_contract(name, options):
    check_index(type(made(name)), options)


@pytest.mark.parametrize("name", ["annoy", "usearch"])
def test_the_same_vectors_make_the_same_index(name):
    first, second = made(name), made(name)
    first.build(VECTORS)
    second.build(VECTORS)
    for k in (1, 10, 100):
        assert (first.search(QUERIES, k).keys == second.search(QUERIES, k).keys).all()


@pytest.mark.slow
def test_int8_takes_less_memory_than_float32_and_still_finds_the_same():
    many = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    many *= np.random.default_rng(1).lognormal(0, 0.5, (20_000, 1)).astype(np.float32)
    small, large = made("usearch", dtype="i8", recall=0.99), made("usearch", dtype="f32", recall=0.99)
    small.build(many)
    large.build(many)
    pairs = zip(small.search(QUERIES, 10).keys, large.search(QUERIES, 10).keys, strict=True)
    same = [len(set(one) & set(other)) / 10 for one, other in pairs]
    assert np.mean(same) > 0.95


def test_compressed_vectors_are_scored_again_in_float32_as_often_as_the_recall_needs(tmp_path):
    many = np.random.default_rng(0).normal(size=(12_000, 16)).astype(np.float32)
    coarse = {"kind": "ivf_pq", "m": 2, "nlist": 20}
    fixed, tuned = made("faiss", oversample=4, **coarse), made("faiss", **coarse)
    fixed.build(many)
    tuned.build(many)
    truth = true_nearest(fixed, np.random.default_rng(2).normal(size=(200, 16)).astype(np.float32))
    assert recall(fixed, truth) < 0.6 and recall(tuned, truth) > 0.9
    tuned.save(tmp_path)
    loaded = made("faiss", **coarse)
    loaded.load(tmp_path)
    assert recall(loaded, truth) == recall(tuned, truth)


@pytest.mark.parametrize(
    ("name", "options", "more"), [("annoy", {}, 20), ("faiss", {"kind": "hnsw"}, 501), ("usearch", {}, 501)]
)
def test_vectors_of_equal_norm_get_no_additional_dimension_until_others_are_added(name, options, more, tmp_path):
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    others = unit[np.arange(more) % 500] * np.linspace(1.5, 3, more, dtype=np.float32)[:, None]
    index = made(name, recall=0.99, **options)
    index.build(unit)
    assert index.inner_dim == 16
    index.save(tmp_path)
    index = made(name, recall=0.99, **options)
    index.load(tmp_path)
    assert index.inner_dim == 16
    index.add(500 + np.arange(more), others)
    assert index.inner_dim == 17
    every = np.concatenate([unit, others])
    truth = np.sort(QUERIES @ every.T, axis=1)[:, -10:]
    assert (index.search(QUERIES, 10).scores >= truth[:, :1] - 1e-5).mean() > 0.95


@pytest.mark.parametrize("name", ["annoy", "faiss", "usearch"])
def test_a_few_longer_vectors_added_to_vectors_of_equal_norm_are_found(name):
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    index = made(name, recall=0.99)
    index.build(unit)
    index.add(np.arange(500, 520), 3 * unit[:20])
    every = np.concatenate([unit, 3 * unit[:20]])
    truth = np.sort(QUERIES @ every.T, axis=1)[:, -10:]
    assert (index.search(QUERIES, 10).scores >= truth[:, :1] - 1e-5).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("faiss", {"ef_search": 32}), ("usearch", {"expansion_search": 32})])
def test_a_graph_of_vectors_of_unequal_norm_uses_the_norm_weight_that_finds_most(name, options, tmp_path):
    rng = np.random.default_rng(0)
    many = rng.normal(size=(5000, 16)).astype(np.float32) * rng.lognormal(0, 0.5, (5000, 1)).astype(np.float32)
    queries = rng.normal(size=(300, 16)).astype(np.float32)

    def built(**more):
        index = made(name, **options, **more)
        index.build(many)
        return index, recall(index, true_nearest(index, queries))

    index, found = built()
    assert 0 < index.norm_weight < 1 and index.inner_dim == 17
    assert found > built(norm_weight=1)[1] + 0.1 and found > built(norm_weight=0)[1] - 0.02
    index.save(tmp_path)
    loaded = made(name, **options)
    loaded.load(tmp_path)
    assert loaded.norm_weight == index.norm_weight and recall(loaded, true_nearest(loaded, queries)) == found


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("usearch", "graph.usearch", b"something else, and long enough to hold a header" * 9),
        ("annoy", "trees.annoy", b"x" * 33),
    ],
)
def test_a_file_that_the_library_did_not_write_is_refused(name, file, content, tmp_path):
    index = made(name)
    index.build(VECTORS)
    index.save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        made(name).load(tmp_path)


def test_vectors_added_to_a_forest_are_found_before_it_is_built_again():
    index = made("annoy", "cosine")
    index.build(VECTORS)
    index.add(np.array([900]), QUERIES[:1])
    assert index._forest.get_n_items() == 500
    assert index.search(QUERIES[:1], 1).keys[0, 0] == 900


def test_a_filter_names_the_allowed_points_or_the_excluded_ones_if_they_are_fewer(monkeypatch):
    index = made("qdrant")
    index.build(VECTORS)
    monkeypatch.setattr("anyrec.retrieval.indexes.qdrant.MAX_IDS", 50)
    few, most, half = np.zeros(500, bool), np.ones(500, bool), np.arange(500) % 2 == 0
    few[:20] = True
    most[:20] = False
    assert index._filter(few).must.has_id == list(range(20))
    assert index._filter(most).must_not.has_id == list(range(20))
    assert index._filter(half) is None
    for allowed in (few, most, half):
        found = index._nearest(QUERIES, 10, allowed).keys
        assert allowed[found[found >= 0]].all() and ((found >= 0).sum(1) >= 9).all()


def test_a_build_replaces_the_collection_behind_the_alias():
    index = made("qdrant", collection="shop")
    index.build(VECTORS)
    client, first = index._client, index._name
    index._open = lambda: setattr(index, "_client", client)
    index.build(VECTORS[:400])
    assert [c.name for c in client.get_collections().collections] == [index._name] != [first]
    assert client.count("shop").count == 400
    index.add(np.array([400]), VECTORS[400:401])
    assert index._standing() == (index._state, 401)


def test_a_collection_that_was_created_elsewhere_is_refused_and_kept():
    from anyrec.retrieval.indexes.qdrant import Qdrant

    index = made("qdrant", collection="theirs")
    index._open()
    client = index._client
    from qdrant_client import models

    client.create_collection("theirs", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    index._open = lambda: setattr(index, "_client", client)
    with pytest.raises(ConfigError, match="theirs"):
        index.build(VECTORS)
    assert isinstance(index, Qdrant) and client.collection_exists("theirs")


def test_the_error_names_a_server_that_does_not_answer():
    index = made("qdrant", url="http://127.0.0.1:9", timeout=2)
    with pytest.raises(InputError, match=r"http://127.0.0.1:9: Qdrant does not answer"):
        index.build(VECTORS)


def test_an_api_key_is_read_only_from_the_environment(monkeypatch):
    monkeypatch.delenv("SHOP_KEY", raising=False)
    index = made("qdrant", url="https://127.0.0.1:9", api_key_env="SHOP_KEY")
    with pytest.raises(ConfigError, match="SHOP_KEY is not set"):
        index.build(VECTORS)
    with pytest.raises(ValidationError):
        made("qdrant", url="https://name:secret@shop.example")
