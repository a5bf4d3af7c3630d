"""What is special to annoy, usearch and Qdrant; and that each keeps the contract of an index."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, InputError, ModelError
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
    [("annoy", {}), ("usearch", {}), ("usearch", {"dtype": "f32"}), ("usearch", {"dtype": "bf16"}), ("qdrant", {})],
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


def test_int8_takes_less_memory_than_float32_and_still_finds_the_same():
    many = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    many *= np.random.default_rng(1).lognormal(0, 0.5, (20_000, 1)).astype(np.float32)
    small, large = made("usearch", dtype="i8", recall=0.99), made("usearch", dtype="f32", recall=0.99)
    small.build(many)
    large.build(many)
    same = [len(set(a) & set(b)) / 10 for a, b in zip(small.search(QUERIES, 10).keys, large.search(QUERIES, 10).keys)]  # noqa: B905
    assert np.mean(same) > 0.95


def test_what_is_coarsely_compressed_is_scored_again_as_often_as_the_recall_takes(tmp_path):
    many = np.random.default_rng(0).normal(size=(12_000, 16)).astype(np.float32)
    coarse = {"kind": "ivf_pq", "m": 2, "nlist": 20}
    few, found = made("faiss", oversample=4, **coarse), made("faiss", **coarse)
    few.build(many)
    found.build(many)
    queries = few.truth_of(np.random.default_rng(2).normal(size=(200, 16)).astype(np.float32))
    assert few.recall_of(*queries) < 0.6 and found.recall_of(*queries) > 0.9
    found.save(tmp_path)
    again = made("faiss", **coarse)
    again.load(tmp_path)
    assert again.recall_of(*queries) == found.recall_of(*queries)


@pytest.mark.parametrize(
    ("name", "options", "more"), [("annoy", {}, 20), ("faiss", {"kind": "hnsw"}, 501), ("usearch", {}, 501)]
)
def test_vectors_of_one_length_need_no_more_dimensions_until_others_come(name, options, more, tmp_path):
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
def test_a_few_longer_vectors_added_to_those_of_one_length_are_found(name):
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    index = made(name, recall=0.99)
    index.build(unit)
    index.add(np.arange(500, 520), 3 * unit[:20])
    every = np.concatenate([unit, 3 * unit[:20]])
    truth = np.sort(QUERIES @ every.T, axis=1)[:, -10:]
    assert (index.search(QUERIES, 10).scores >= truth[:, :1] - 1e-5).mean() > 0.95


@pytest.mark.parametrize(("name", "options"), [("faiss", {"ef_search": 32}), ("usearch", {"expansion_search": 32})])
def test_a_graph_of_uneven_vectors_is_made_with_the_lift_that_finds_most(name, options, tmp_path):
    rng = np.random.default_rng(0)
    many = rng.normal(size=(5000, 16)).astype(np.float32) * rng.lognormal(0, 0.5, (5000, 1)).astype(np.float32)
    queries = rng.normal(size=(300, 16)).astype(np.float32)

    def recall(**more):
        index = made(name, **options, **more)
        index.build(many)
        return index, index.recall_of(*index.truth_of(queries))

    index, found = recall()
    assert 0 < index.lift < 1 and index.inner_dim == 17
    assert found > recall(lift=1)[1] + 0.1 and found > recall(lift=0)[1] - 0.02
    index.save(tmp_path)
    again = made(name, **options)
    again.load(tmp_path)
    assert again.lift == index.lift and again.recall_of(*again.truth_of(queries)) == found


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("usearch", "graph.usearch", b"something else, and long enough to hold a header" * 9),
        ("annoy", "trees.annoy", b"x" * 33),
    ],
)
def test_a_file_that_is_not_the_librarys_is_refused(name, file, content, tmp_path):
    index = made(name)
    index.build(VECTORS)
    index.save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        made(name).load(tmp_path)


def test_vectors_added_to_a_forest_are_found_before_it_is_built_anew():
    index = made("annoy", "cosine")
    index.build(VECTORS)
    index.add(np.array([900]), QUERIES[:1])
    assert index._forest.get_n_items() == 500
    assert index.search(QUERIES[:1], 1).keys[0, 0] == 900


def test_the_filter_names_whichever_points_are_fewer(monkeypatch):
    index = made("qdrant")
    index.build(VECTORS)
    monkeypatch.setattr("anyrec.retrieval.indexes.qdrant.MOST_IDS", 50)
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


def test_a_collection_that_somebody_else_made_is_left_alone():
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


def test_a_server_that_does_not_answer_is_named():
    index = made("qdrant", url="http://127.0.0.1:9", timeout=2)
    with pytest.raises(InputError, match=r"http://127.0.0.1:9: Qdrant does not answer"):
        index.build(VECTORS)


def test_a_key_is_read_from_the_environment_and_from_nowhere_else(monkeypatch):
    monkeypatch.delenv("SHOP_KEY", raising=False)
    index = made("qdrant", url="https://127.0.0.1:9", api_key_env="SHOP_KEY")
    with pytest.raises(ConfigError, match="SHOP_KEY is not set"):
        index.build(VECTORS)
    with pytest.raises(ValidationError):
        made("qdrant", url="https://name:secret@shop.example")
