"""The index is a property of the model: whatever lists items uses it and names it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.compute as pc
import pytest
from small import call, small_config, small_dataset

from anyrec import Recommender
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, InputError
from anyrec.model.result_tables import index_of
from anyrec.retrieval.item_index import ItemIndex
from anyrec.retrieval.model_index import component_of, item_index

FLAT = {"type": "faiss", "kind": "flat"}
EXACT = {"type": "exact"}


def fitted(**changes) -> Recommender:
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    return Recommender.from_config(small_config(training=training, **changes)).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture(scope="module")
def indexed():
    return fitted(index=FLAT)


def test_a_list_names_the_index_that_it_was_found_by(plain, indexed):
    for recommender, expected in ((plain, EXACT), (indexed, FLAT)):
        assert index_of(recommender.recommend(["u001"], 3)) == expected
        answer = recommender.answer(["u001"], 3)
        assert answer.index == expected == index_of(answer.table)


def test_a_configured_index_is_searched_without_a_pipeline(indexed, monkeypatch):
    searched = []
    search = ItemIndex.search
    monkeypatch.setattr(ItemIndex, "search", lambda *given: searched.append(given[2]) or search(*given))
    indexed.recommend(None, 7)
    assert searched == [7]


def test_an_index_finds_what_scoring_all_items_finds(plain, indexed):
    for options in ({}, {"exclude_seen": False}, {"candidates": [f"i{n:03d}" for n in range(9)]}):
        by_index, scored = indexed.recommend(None, 5, **options), plain.recommend(None, 5, **options)
        assert by_index.select(["user_id", "item_id", "rank"]).equals(scored.select(["user_id", "item_id", "rank"]))
        np.testing.assert_allclose(by_index["score"].to_numpy(), scored["score"].to_numpy(), rtol=1e-4)


def test_exact_search_with_options_uses_an_index_even_for_few_items(plain):
    assert item_index(plain.model) is None
    compressed = fitted(index={"type": "exact", "precision": "int8"})
    assert index_of(compressed.recommend(["u001"], 3)) == {"type": "exact", "precision": "int8"}


def test_the_index_is_saved_with_the_model_and_a_built_one_takes_its_place(indexed, tmp_path):
    directory = indexed.save(tmp_path / "run" / "model")
    assert (directory / "index" / "manifest.json").is_file()
    loaded = Recommender.load(directory)
    assert index_of(loaded.recommend(["u001"], 3)) == FLAT
    code, out, _ = call("index", "--model-path", directory, "--type", "faiss", "--set", "kind=sq8")
    assert code == 0 and "sq8" in out
    built = Recommender.load(directory)
    assert component_of(built.model).options() == {"kind": "sq8"}
    assert len(built.recommend(None, 5)) == len(indexed.recommend(None, 5))
    _, out, _ = call("recommend", "--model-path", directory, "--data", _request(tmp_path), "--top-k", "3")
    assert json.loads(out)["index"] == {"type": "faiss", "kind": "sq8"}


def test_an_index_of_another_model_is_not_used_and_a_note_says_so(plain, indexed, tmp_path):
    plain.save(tmp_path / "run" / "model")
    call("index", "--model-path", tmp_path / "run", "--type", "faiss")
    assert index_of(Recommender.load(tmp_path / "run").recommend(["u001"], 3))["type"] == "faiss"
    indexed.save(tmp_path / "run" / "model")
    loaded = Recommender.load(tmp_path / "run")
    assert any("belongs to another model" in note for note in loaded.notes)
    assert index_of(loaded.recommend(["u001"], 3)) == FLAT


def test_similar_items_are_found_by_an_index_of_the_same_type_that_is_kept_with_the_model(plain, indexed, tmp_path):
    loaded = Recommender.load(indexed.save(tmp_path / "model"))
    found, scanned = loaded.similar(["i003", "i009"], 4), plain.similar(["i003", "i009"], 4)
    assert (index_of(found), index_of(scanned)) == (FLAT, EXACT)
    assert found["item_id"].equals(scanned["item_id"])
    place = tmp_path / "model" / "search" / "similar.index"
    assert (place / "manifest.json").is_file()
    written = (place / "manifest.json").stat().st_mtime_ns
    assert Recommender.load(tmp_path / "model").similar(["i003", "i009"], 4).equals(found)
    assert (place / "manifest.json").stat().st_mtime_ns == written
    changed = Recommender.load(tmp_path / "model").with_config({"index": {"type": "faiss", "kind": "sq8"}})
    assert index_of(changed.similar(["i003"], 4)) == {"type": "faiss", "kind": "sq8"}
    _, out, err = call("similar", "--model-path", tmp_path / "model", "--item", "i003", "--top-k", "4", "--json")
    assert len(json.loads(out)) == 4


@pytest.mark.parametrize("space", ["auto", "text", "tower"])
def test_items_are_searched_by_an_index_of_the_same_type(plain, indexed, space, tmp_path):
    loaded = Recommender.load(indexed.save(tmp_path / "model"))
    for options in ({}, {"candidates": [f"i{n:03d}" for n in range(9)]}):
        found = loaded.search(text="Thing for a nurse", k=5, space=space, **options)
        scanned = plain.search(text="Thing for a nurse", k=5, space=space, **options)
        assert (index_of(found), index_of(scanned)) == (FLAT, EXACT)
        assert found["item_id"].equals(scanned["item_id"])
    assert (tmp_path / "model" / "search" / f"{space}-text.index" / "manifest.json").is_file()
    assert index_of(loaded.search(text="Thing for a nurse", user="u001", space=space)) == EXACT


def test_a_damaged_index_of_similar_items_is_built_again(indexed, tmp_path):
    loaded = Recommender.load(indexed.save(tmp_path / "model"))
    found = loaded.similar(["i003"], 4)
    (tmp_path / "model" / "search" / "similar.index" / "vectors.npy").write_bytes(b"damaged")
    assert Recommender.load(tmp_path / "model").similar(["i003"], 4).equals(found)


def test_a_further_index_on_a_server_has_a_name_of_its_own():
    registry = discover()
    cls = registry.get("index", "qdrant")
    assert cls.options_for_another({"url": "http://a"}, "similar", registry) == {
        "url": "http://a",
        "collection": "anyrec.similar",
    }


def test_items_of_a_request_are_listed_with_those_that_the_index_has(indexed):
    wider = indexed.add_items([{"item_id": "new", "continuous": {"price": 50.0}}])
    found = wider.recommend(["u001"], 41, exclude_seen=False)
    assert index_of(found) == FLAT and "new" in found["item_id"].to_pylist()


def test_similar_items_and_searches_use_the_index_of_the_trained_items_and_scan_the_added_ones(tmp_path, monkeypatch):
    saved = fitted(index=FLAT).save(tmp_path / "model")
    indexed = Recommender.load(saved)
    new = [{"item_id": f"new{n}", "text": {"title": "Thing 3 for a pilot"}} for n in range(3)] + [{"item_id": "bare"}]
    wider = indexed.add_items(new[:2]).add_items(new[2:])
    scanned = Recommender.load(saved).with_config({"index": {"type": "exact"}}).add_items(new)
    indexed.similar(["i003"], 3), indexed.search(text="pilot", k=3), indexed.search(text="pilot", k=3, space="text")
    built = []
    monkeypatch.setattr(ItemIndex, "build", lambda *arguments, **options: built.append(arguments))
    for model, kind in ((wider, FLAT), (wider.add_items([{"item_id": "last"}]), FLAT)):
        similar = model.similar(["i003", "new1"], 42)
        assert not built and index_of(similar) == kind
        assert {"new0", "new2", "bare"} <= set(
            similar.filter(pc.equal(similar["query_id"], "new1"))["item_id"].to_pylist()
        )
        found = model.search(text="a thing for a pilot", k=44)
        assert not built and index_of(found) == kind and "new2" in found["item_id"].to_pylist()
        found = model.search(text="a thing for a pilot", k=44, space="text")
        assert not built and "bare" not in found["item_id"].to_pylist()  # it has no text
    monkeypatch.undo()
    for one in ("i003", "new1"):
        ours, theirs = wider.similar([one], 43), scanned.similar([one], 43)
        assert ours["item_id"].equals(theirs["item_id"])
        np.testing.assert_allclose(ours["score"], theirs["score"], atol=1e-6)
    ours, theirs = wider.search(text="pilot", k=44), scanned.search(text="pilot", k=44)
    assert ours["item_id"].equals(theirs["item_id"])


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"index": {"type": "nosuch"}}, "there is no index 'nosuch'"),
        ({"index": {"type": "faiss", "kind": "tree"}}, "/index/kind"),
        ({"index": FLAT, "interaction": {"type": "mlp"}}, "the scores of 'mlp'"),
        ({"index": FLAT, "model": {"type": "ease"}}, "'ease' has none"),
        ({"index": {"type": "qdrant", "url": "http://127.0.0.1:9"}}, "127.0.0.1:9: Qdrant does not answer"),
        ({"index": {"type": "qdrant", "url": "http://a", "api_key_env": "ANYREC_NO_KEY"}}, "ANYREC_NO_KEY is not set"),
    ],
)
def test_an_index_that_cannot_work_is_refused_before_training(config, named):
    started = []
    with pytest.raises(InputError, match=named):
        recommender = Recommender.from_config(small_config(**config))
        recommender.fit(small_dataset(), progress=False, started=started.append)
    assert not started


def test_a_fault_of_the_index_is_reported_with_the_other_faults_of_the_config():
    with pytest.raises(ConfigError) as caught:
        Recommender.from_config({"index": {"type": "nosuch"}, "loss": {"type": "nosuch"}})
    assert len(caught.value.faults) == 2


def test_a_model_is_saved_even_if_its_index_cannot_be(indexed, tmp_path, monkeypatch, caplog):
    def fails(self, folder):
        raise RuntimeError("no space for it")

    monkeypatch.setattr(ItemIndex, "save", fails)
    directory = indexed.save(tmp_path / "model")
    assert "no space for it" in caplog.text
    assert index_of(Recommender.load(directory).recommend(["u001"], 3)) == FLAT


def _request(folder):
    path = folder / "request.json"
    path.write_text(json.dumps({"user_data": [{"user_id": "u001"}]}))
    return path
