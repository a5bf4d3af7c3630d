"""An index of item ids on disk: whole or absent, the model it belongs to, and what was measured.

`tests/saved_indexes/` has indexes written in format 2, and what they found then. They are never written again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from forked import run_program
from small import call, small_config, small_dataset

from anyrec.core.config import Component
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError, ModelError
from anyrec.core.load_config import load_config
from anyrec.recommender import Recommender
from anyrec.retrieval.choose import choose
from anyrec.retrieval.item_index import ItemIndex

REGISTRY = discover()
SAVED = Path(__file__).parent / "saved_indexes"
KINDS = [
    Component(type="exact"),
    Component(type="exact", precision="int8"),
    *(Component(type="faiss", kind=kind) for kind in ("flat", "hnsw", "ivf", "ivf_pq", "sq8")),
]


def some(rows: int = 400, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def make(component: Component = KINDS[0], rows: int = 400, **options) -> ItemIndex:
    ids = pa.array([f"i{n}" for n in range(rows)])
    return ItemIndex.build(component, REGISTRY, ids, some(rows), model="mine", **options)


@pytest.mark.parametrize("component", KINDS, ids=str)
def test_a_saved_index_comes_back_with_its_ids_and_figures(component, tmp_path):
    made = make(component)
    place = made.save(tmp_path / "index")
    again = ItemIndex.load(place, REGISTRY, "mine")
    for old, new in zip(made.search(some(5, seed=1), 7), again.search(some(5, seed=1), 7), strict=True):
        np.testing.assert_array_equal(old, new)
    assert again.ids.equals(made.ids)
    assert again.figures == made.figures
    assert {"rows", "bytes", "build_seconds", "recall@10", "queries_per_second"} <= set(made.figures)
    assert json.loads((place / "manifest.json").read_text())["counts"] == {"items": 400, "rows": 400}


def test_a_recall_that_was_not_reached_is_reported():
    assert make(Component(type="faiss", kind="hnsw")).missed is None
    narrow = make(Component(type="faiss", kind="ivf", nlist=10, nprobe=1, recall=0.99))
    assert (
        narrow.missed is not None and f"{narrow.figures['recall@10']} of the 10 nearest, not the 0.99" in narrow.missed
    )
    assert make(Component(type="exact")).missed is None


def test_items_are_added_replaced_and_removed_by_id(tmp_path):
    index = make()
    index.add(pa.array(["new", "i3"]), np.array([[9] * 8, [-9] * 8], np.float32))
    index.remove(pa.array(["i5", "nobody"]))
    assert len(index) == 400
    index.save(tmp_path / "index")
    for one in (index, ItemIndex.load(tmp_path / "index", REGISTRY)):
        found = one.search(np.ones((1, 8), np.float32), 400).keys[0]
        names = one.ids.take(pa.array(found)).to_pylist()
        assert names[0] == "new"
        assert names[-1] == "i3"
        assert "i5" not in names
    for ids in (["a", "a"], [None, "b"]):
        with pytest.raises(DataError):
            index.add(pa.array(ids), some(2))
    with pytest.raises(DataError):
        index.add(pa.array([1, 2]), some(2))


def test_an_index_of_another_model_is_refused(tmp_path):
    place = make().save(tmp_path / "index")
    with pytest.raises(ModelError, match="another model"):
        ItemIndex.load(place, REGISTRY, "another")


@pytest.mark.parametrize("component", KINDS, ids=str)
def test_damaged_files_are_refused_before_a_library_reads_them(component, tmp_path):
    place = make(component).save(tmp_path / "index")
    for path in sorted(place.iterdir()):
        whole = path.read_bytes()
        for bad in (b"", whole[: len(whole) // 2], os.urandom(len(whole)), whole + b"\0", b"{}", b"[]"):
            path.write_bytes(bad)
            with pytest.raises(ModelError):
                ItemIndex.load(place, REGISTRY)
        path.unlink()
        with pytest.raises(ModelError):
            ItemIndex.load(place, REGISTRY)
        path.write_bytes(whole)
    ItemIndex.load(place, REGISTRY)


@pytest.mark.parametrize("component", KINDS, ids=str)
def test_a_file_of_other_content_is_refused_even_if_the_manifest_has_its_hash(component, tmp_path):
    from anyrec.core.files import sha256_of

    place = make(component).save(tmp_path / "index")
    for path in sorted(place.iterdir()):
        whole, manifest = path.read_bytes(), (place / "manifest.json").read_bytes()
        if path.name == "manifest.json" or not whole:
            continue
        path.write_bytes(b"not what you think")
        document = json.loads(manifest)
        document["files"][path.name] = sha256_of(path)
        (place / "manifest.json").write_text(json.dumps(document))
        with pytest.raises(ModelError):
            ItemIndex.load(place, REGISTRY)
        path.write_bytes(whole)
        (place / "manifest.json").write_bytes(manifest)


@pytest.mark.parametrize("name", ["faiss_hnsw", "ivf", "usearch"])
def test_an_index_of_format_2_finds_what_it_found_when_it_was_saved(name, tmp_path):
    pytest.importorskip("usearch" if name == "usearch" else "faiss")
    found_then = json.loads((SAVED / "expected.json").read_text())
    expected, queries = found_then[name], np.array(found_then["queries"], np.float32)
    index = ItemIndex.load(shutil.copytree(SAVED / name, tmp_path / "former"), REGISTRY, "a model")
    for one in (index, ItemIndex.load(index.save(tmp_path / "present"), REGISTRY, "a model")):
        found = one.search(queries, 10)
        assert [one.ids.take(pa.array(keys)).to_pylist() for keys in found.keys] == expected["items"]
        np.testing.assert_allclose(found.scores, expected["scores"], rtol=1e-5)
        assert one.index.norm_weight == expected["norm_weight"]
        assert one.index.search_width == expected["search_width"]


def test_an_index_of_an_unreadable_format_is_refused(tmp_path):
    place = make(measured=False).save(tmp_path / "index")
    manifest = (place / "manifest.json").read_text()
    (place / "manifest.json").write_text(manifest.replace("anyrec index 3", "anyrec index 1"))
    with pytest.raises(ModelError, match="Run anyrec index again"):
        ItemIndex.load(place, REGISTRY)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "anyrec index 3"}', '{"format": 7}', "\xff"])
def test_a_file_that_is_no_manifest_is_refused(text, tmp_path):
    place = make(measured=False).save(tmp_path / "index")
    (place / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError):
        ItemIndex.load(place, REGISTRY)


def test_a_file_outside_the_folder_is_refused(tmp_path):
    place = make(measured=False).save(tmp_path / "index")
    manifest = json.loads((place / "manifest.json").read_text())
    (tmp_path / "outside").write_text("")
    manifest["files"]["../outside"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        ItemIndex.load(place, REGISTRY)


def test_a_folder_that_is_no_index_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError):
        make(measured=False).save(tmp_path)
    with pytest.raises(ModelError):
        ItemIndex.load(tmp_path / "nowhere", REGISTRY)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


WRITER = """
import os, sys
import numpy as np, pyarrow as pa
from pathlib import Path
from anyrec.core.config import Component
from anyrec.core.discovery import discover
from anyrec.retrieval.item_index import ItemIndex

place, registry = Path(sys.argv[1]), discover()
ids = pa.array([f"i{n}" for n in range(50)])
old, new = (
    ItemIndex.build(Component(type="exact"), registry, ids, np.full((50, 4), value, np.float32), measured=False)
    for value in (1, 2)
)
old.save(place)
at, count = 0, 0

def die(event, arguments):
    global count
    written = event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
    if at and written and place.name in str(arguments[0]):
        count += 1
        if count == at:
            os._exit(9)

sys.addaudithook(die)
status, states = 9, set()
while status:
    at += 1
    child = os.fork()
    if not child:
        new.save(place)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    step, at = at, 0
    found = ItemIndex.load(place, registry)
    states.add(float(found.index.store.vectors.min()))
    assert found.index.store.vectors.min() == found.index.store.vectors.max(), step
    at = step
last, at = at, 0
old.save(place)
print(last, sorted(states), os.listdir(place.parent))
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_the_old_index_or_the_new_one(tmp_path):
    """The writer is killed before its first file operation, then before its second, and so on, until it finishes."""
    code, out, message = run_program("-c", WRITER, tmp_path / "index")
    assert code == 0, message
    steps, states = out.split(" ", 1)
    assert int(steps) > 20
    assert states.strip() == "[1.0, 2.0] ['index']", "a later save removes what the killed ones left"


@pytest.mark.slow
def test_the_cheapest_index_that_reaches_the_recall_is_chosen():
    vectors = some(2000)
    best, tried = choose(REGISTRY, pa.array(range(2000)), vectors, 0.99, shown=False)
    assert best.figures["recall@10"] >= 0.99
    assert {component.type for component, _ in tried} >= {"exact", "faiss"}


def test_an_unknown_index_or_option_is_refused():
    for component in (Component(type="exakt"), Component(type="faiss", kind="tree"), Component(type="faiss", colour=1)):
        with pytest.raises(ConfigError):
            make(component)


def test_an_option_works_by_its_former_name_with_one_note():
    index = {"type": "faiss", "lift": 0.25}
    config, notes = load_config({"index": index})
    assert len([note for note in notes if "'lift' is now called 'norm_weight'" in note]) == 1
    params = REGISTRY.params("index", config.index.type, config.index.options())
    assert params == REGISTRY.params("index", "faiss", {"norm_weight": 0.25})
    assert load_config({"index": {"type": "faiss", "norm_weight": 0.25}})[1] == []
    with pytest.raises(ConfigError, match="'lift' is the former name of 'norm_weight'"):
        load_config({"index": {**index, "norm_weight": 0.5}})


def test_the_command_builds_an_index_of_a_model_and_notes_a_former_option(tmp_path):
    fitted = Recommender.from_config(small_config(training={"epochs": 1})).fit(small_dataset(), progress=False)
    fitted.save(tmp_path / "run" / "model")
    arguments = ("--model_path", tmp_path / "run", "--type", "faiss", "--set", "lift=0.25")
    code, shown, message = call("index", *arguments)
    assert code == 0 and "recall@10" in shown and message.count("'lift' is now called 'norm_weight'") == 1
    index = ItemIndex.load(tmp_path / "run" / "index", REGISTRY)
    assert index.index.params.norm_weight == 0.25 and len(index) == len(fitted.dataset.items)
