"""Exports: the graphs, with ONNX Runtime and in NumPy, and HTTP answer as the model does."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import call, small_config, small_dataset
from tiny_clip import tiny_clip

pytest.importorskip("onnx", reason="pip install 'anyrec[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'anyrec[export]'")
pytest.importorskip("onnxscript", reason="pip install 'anyrec[export]'")
from anyrec.core.columns import FlatLists, PreparedColumn, with_presence
from anyrec.core.context import Context
from anyrec.core.contracts import Encoder
from anyrec.core.discovery import discover
from anyrec.core.errors import InputError, ModelError
from anyrec.core.ragged import Padded, Ragged
from anyrec.data.dataset import Dataset
from anyrec.data.preparation.kinds import KINDS
from anyrec.export import load
from anyrec.export.backends import NumPyGraph, OnnxRuntimeGraph
from anyrec.export.check import exportable
from anyrec.export.graphs import write_graph
from anyrec.export.ranking import top_k
from anyrec.model import scoring
from anyrec.recommender import Recommender
from anyrec.testing import encoders as examples

CLOSE = 1e-5
"""Largest difference of scores, relative to the largest score."""
EVERYTHING = {
    "fusion": {"type": "adaptive_mimic", "hidden_dims": [8]},
    "interaction": {"type": "cosine"},
    "heads": {"kind": {"type": "interaction_type"}, "rating": {"hidden_dims": [4]}},
    "features": {
        "categorical": {"fields": {"job": {"hash_buckets": 8}}},
        "continuous": {"encoding": "periodic", "bins": 4, "fields": {"price": {"encoding": "piecewise", "bins": 4}}},
        "temporal": {"pooling": "gru", "hidden_dim": 4},
        "text": {"buckets": 512, "fields": {"review": {"type": "text_statistics", "bins": 2}}},
        "image": {"type": "cnn", "size": 8, "channels": 8},
        "history": {
            "window": 4,
            "layers": 1,
            "use_gap": True,
            "use_kind": True,
            "fields": {"totals": {"type": "aggregates", "top": 3}},
        },
    },
}
TOKENS = {
    "fusion": {"type": "gated"},
    "interaction": {"type": "attention"},
    "heads": {"kind": {"type": "interaction_type"}},
    "features": {
        "categorical": {},
        "continuous": None,
        "temporal": None,
        "text": None,
        "image": {"type": "visual_descriptor", "cells": 2},
        "history": {"type": "set"},
    },
}


PLAIN = {
    "fusion": {"type": "sum"},
    "features": {
        "categorical": {},
        **dict.fromkeys(("identity", "continuous", "temporal", "text", "image")),
        "history": {"type": "set"},
    },
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The small world with pictures, reviews, lists of numbers, and items that users name as favourites.

    Some names of features begin with those of others, and go on as the names of a graph's inputs do.
    """
    small, root = small_dataset(), tmp_path_factory.mktemp("pictures")
    for number in range(6):
        Image.new("RGB", (9 + number, 12), (40 * number, 255 - 40 * number, 90)).save(root / f"{number}.png")
    rows = range(len(small.items))
    photos = [None if n % 5 == 4 else [f"{n % 6}.png", f"{n % 4}.png"][: 1 + n % 2] for n in rows]
    items = small.items.append_column("image.photo", pa.array(photos, pa.list_(pa.string())))
    reviews = [None if n % 3 == 0 else f"Good thing number {n}! " * (n % 4) for n in rows]
    items = items.append_column("text.review", pa.array(reviews))
    marks = [[float(n), float(n % 7)] for n in range(len(small.users))]
    users = small.users.append_column("continuous.marks", pa.array(marks))
    favourites = [[f"i{(n * k) % 40:03d}" for k in range(n % 4)] for n in range(len(small.users))]
    users = users.append_column("temporal.favourites", pa.array(favourites, pa.list_(pa.string())))
    users = users.append_column("categorical.job.mask", pa.array([["on", "off"][: n % 3] for n in range(len(users))]))
    users = users.append_column("categorical.job.mask.present", pa.array(["yes", "no"] * (len(users) // 2)))
    users = users.append_column("continuous.age.values", pa.array([float(n % 9) for n in range(len(users))]))
    return Dataset.from_tables(users, items, small.interactions, root=root)


def fitted(shop, options):
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(name="shop", training=training, split={"protocol": "none"}, **options)
    return Recommender.from_config(config).fit(shop, progress=False)


@pytest.fixture(scope="module")
def everything(shop, tmp_path_factory):
    """A model of nearly all encoders, and its export."""
    recommender, folder = fitted(shop, EVERYTHING), tmp_path_factory.mktemp("exports") / "everything"
    return recommender, recommender.export(folder)


@pytest.fixture(scope="module")
def tokens(shop, tmp_path_factory):
    """A model whose interaction reads the vectors of the features, and its export."""
    recommender, folder = fitted(shop, TOKENS), tmp_path_factory.mktemp("exports") / "tokens"
    return recommender, recommender.export(folder)


def hard_request(count, seed):
    """A document of users: known and unknown ids, missing groups, unknown values, no, one or many interactions."""
    rng = np.random.default_rng(seed)
    users, interactions = [], []
    for number in rng.permutation(100_000)[:count]:
        known = rng.random() < 0.4
        one = {"user_id": f"u{rng.integers(60):03d}" if known else f"new{number}"}
        if rng.random() < 0.7:
            one["categorical"] = {"job": str(rng.choice(["nurse", "pilot", "acrobat", ""])), "job.mask": ["on"]}
        if rng.random() < 0.7:
            one["continuous"] = {"age": float(rng.choice([18.5, 1e9, -3])), "marks": [1.0, 2.0][: rng.integers(3)]}
        if rng.random() < 0.5:
            one["text"] = {"bio": str(rng.choice(["", "I work as a nurse", "something else", "ß 東京 " * 50]))}
        if rng.random() < 0.5:
            one["temporal"] = {"spending": rng.normal(20, 9, rng.integers(0, 90)).tolist()}
        users.append(one)
        for _ in range(rng.choice([0, 0, 1, 3, 4, 9])):
            one_more = {"user_id": one["user_id"], "item_id": f"i{rng.integers(44):03d}"}
            if rng.random() < 0.7:
                one_more["timestamp"] = int(1_720_000_000 + rng.integers(10**6))
            if rng.random() < 0.7:
                one_more["interaction_type"] = str(rng.choice(["view", "buy", "stare"]))
            interactions.append(one_more)
    distinct = {one["user_id"]: one for one in users}
    return {"user_data": list(distinct.values()), "interactions": interactions}


def assert_same_lists(found, expected):
    """The same users, scores and ranks, and the same items where scores are not tied by rounding."""
    assert found.schema.names == expected.schema.names
    assert found["user_id"].equals(expected["user_id"]) and found["rank"].equals(expected["rank"])
    ours, theirs = expected["score"].to_numpy(), found["score"].to_numpy()
    limit = CLOSE * max(1.0, np.abs(ours).max(initial=0))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=limit)
    for row in np.flatnonzero(found["item_id"].to_numpy() != expected["item_id"].to_numpy()):
        near = ours[max(0, row - 1) : row + 2]  # an item can only change places with one of an equal score
        assert np.sort(np.abs(near - ours[row]))[1] < 2 * limit, (row, near)


@pytest.mark.parametrize("backend", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("name", ["everything", "tokens"])
def test_300_hard_records_get_the_lists_of_the_model(name, backend, request):
    recommender, export = request.getfixturevalue(name)
    runtime = load(export.folder, backend=backend, threads=1)
    for count, seed in ((1, 1), (2, 2), (40, 3), (257, 4)):
        document = hard_request(count, seed)
        assert_same_lists(runtime.recommend(document, 10), recommender.recommend(document, 10))


def http_request(count, seed):
    """A hard request as HTTP can make it, with histories of known items without times, and some users by id alone."""
    document = hard_request(count, seed)
    records = [
        {"user_id": one["user_id"]} if n % 3 == 0 and one["user_id"].startswith("u") else one
        for n, one in enumerate(document["user_data"])
    ]
    did = [{name: one[name] for name in ("user_id", "item_id")} for one in document["interactions"]]
    known = [one for one in did if one["item_id"] < "i040"]
    anyone = {one["user_id"] for one in known}
    records = [one for one in records if len(one) > 1 or one["user_id"] in anyone or one["user_id"].startswith("u")]
    asked = {one["user_id"] for one in records}
    return {"user_data": records, "interactions": [one for one in known if one["user_id"] in asked]}


@pytest.fixture(scope="module")
def over_http():
    """Returns the lists of a recommender for documents, over HTTP; options: those of the requests of each."""
    pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
    from fastapi.testclient import TestClient

    from anyrec.core.config import ServingConfig
    from anyrec.serving.http.app import make_app
    from anyrec.serving.live.service import Service

    def lists(recommender, documents, options):
        with TestClient(make_app(Service(recommender, ServingConfig(timeout_seconds=600), None))) as client:
            for document, more in zip(documents, options, strict=True):
                history = {one["user_id"]: [] for one in document["user_data"]}
                for one in document["interactions"]:
                    history[one["user_id"]].append(one["item_id"])
                requests = []
                for one in document["user_data"]:
                    record = {name: value for name, value in one.items() if name != "user_id"}
                    asked = {"user_id": one["user_id"], "history": history[one["user_id"]], "k": 10, **more}
                    requests.append(asked | ({"user": record} if record else {}))
                answer = client.post("/v1/recommend:batch", json={"requests": requests}).json()
                assert "results" in answer, answer
                read = {name.split(".")[0] for name in recommender.model.reads().features["user"]}
                for one, asked in zip(answer["results"], requests, strict=True):
                    assert not one["fallback"] or not read & asked.get("user", {}).keys(), one["fallback_reason"]
                rows = [item | {"user_id": one["user_id"]} for one in answer["results"] for item in one["items"]]
                yield pa.Table.from_pylist(rows).select(["user_id", "item_id", "score", "rank"])

    return lists


@pytest.mark.parametrize("name", ["everything", "tokens"])
def test_torch_onnx_numpy_and_http_give_300_known_and_new_users_the_same_lists(name, over_http, request):
    recommender, export = request.getfixturevalue(name)
    documents = [http_request(count, seed) for count, seed in ((1, 5), (2, 6), (40, 7), (257, 8))]
    some = {"candidates": [f"i{n:03d}" for n in range(30)], "exclude": ["i003", "i017", "i039"]}
    options = [{}, {"include_seen": True}, {"include_seen": True, **some}, {}]
    users = [one for document in documents for one in document["user_data"]]
    known = [one["user_id"].startswith("u") for one in users]
    assert 50 < sum(known) < len(known) - 100 and sum(len(one) == 1 for one in users) > 20
    runtimes = [load(export.folder, backend=one, threads=1) for one in ("onnxruntime", "numpy")]
    for document, more, found in zip(documents, options, over_http(recommender, documents, options), strict=True):
        asked = {"exclude_seen": "include_seen" not in more}
        among = sorted(set(more["candidates"]) - set(more["exclude"])) if more.get("exclude") else None
        expected = recommender.recommend(document, 10, candidates=among, **asked)
        assert_same_lists(found, expected.cast(found.schema))
        both = {name: more[name] for name in ("candidates", "exclude") if name in more}
        for runtime in runtimes:
            assert_same_lists(runtime.recommend(document, 10, **asked, **both), expected)


@pytest.mark.parametrize("name", ["everything", "tokens"])
def test_heads_of_pairs_are_those_of_the_model(name, request):
    recommender, export = request.getfixturevalue(name)
    rng = np.random.default_rng(0)
    pairs = [{"user_id": f"u{rng.integers(60):03d}", "item_id": f"i{rng.integers(40):03d}"} for _ in range(90)]
    ours = recommender.score(pairs)
    for backend in ("onnxruntime", "numpy"):
        theirs = load(export.folder, backend=backend, threads=1).score(pairs)
        assert theirs.schema == ours.schema and "kind" in ours.column_names
        for mine, other in zip(ours.flatten().columns[2:], theirs.flatten().columns[2:], strict=True):
            np.testing.assert_allclose(other, mine, rtol=CLOSE, atol=CLOSE)
    runtime = load(export.folder, threads=1)
    users, rows = [{"user_id": "new", "categorical": {"job": "nurse"}}, {"user_id": "u003"}], np.array([0, 1, 1])
    ours, theirs = (one.score_rows(users, rows, np.array([3, 4, 5])) for one in (recommender, runtime))
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(theirs["score"], ours["score"], rtol=CLOSE, atol=CLOSE)
    assert exportable(recommender.parts, ["heads"]).heads == {} != recommender.model.heads
    with pytest.raises(InputError, match="knows no such item"):
        runtime.score([{"user_id": "u000", "item_id": "nothing"}])


def test_known_users_restricted_candidates_and_vectors_are_those_of_the_model(tokens):
    recommender, export = tokens
    runtime = load(export.folder, threads=1)
    assert_same_lists(runtime.recommend(), recommender.recommend())
    options = {"candidates": ["i003", "i001", "i030"], "exclude_seen": False}
    assert_same_lists(runtime.recommend(["u001"], 2, **options), recommender.recommend(["u001"], 2, **options))
    new = [{"item_id": "new", "categorical": {"tags": ["pilot"]}}]
    for side, records in (("users", [{"user_id": "n", "categorical": {"job": "pilot"}}]), ("items", new)):
        ours, theirs = (getattr(one, f"embed_{side}")(records)["embedding"] for one in (recommender, runtime))
        np.testing.assert_allclose(np.stack(theirs.to_numpy()), np.stack(ours.to_numpy()), atol=1e-6)
    assert_same_lists(
        runtime.add_items(new).recommend(["u002"], 50), recommender.add_items(new).recommend(["u002"], 50)
    )
    hidden = recommender.recommend(["u002"], 3)["item_id"].to_pylist()
    left = recommender.recommend(["u002"], 10)["item_id"].to_pylist()[3:]
    found = runtime.recommend(["u002"], 7, exclude=hidden, to="pandas")
    assert list(found["item_id"]) == left and list(found["rank"]) == [1, 2, 3, 4, 5, 6, 7]
    among = runtime.recommend(["u002"], candidates=[*hidden, *left], exclude=pa.array(hidden))
    assert among["item_id"].to_pylist() == left
    for asked in (
        {"users": ["u001", "nobody", "noone"]},
        {"users": ["u001"], "candidates": ["i001", "nothing"]},
        {"users": [7]},
        {"users": ["u001"], "k": 0},
        {"users": [{"categorical": {"job": "nurse"}}]},
        {"users": [{"user_id": "new", "categorical": {"work": "nurse"}}], "strict": True},
        {"users": ["u001"], "to": "excel"},
    ):
        with pytest.raises(InputError) as ours:
            recommender.recommend(**asked)
        with pytest.raises(type(ours.value), match=re.escape(str(ours.value))):
            runtime.recommend(**asked)
    with pytest.raises(InputError, match="knows no such item"):
        runtime.recommend(["u001"], exclude=["nothing"])


def test_a_request_is_padded_and_encoded_in_blocks(everything, monkeypatch):
    runtime = load(everything[1].folder, threads=1)
    document = hard_request(64, 6)
    document["user_data"][40]["text"] = {"bio": " ".join(f"word{n}" for n in range(300))}
    records, sizes = runtime.read_records("user", document), []
    whole = runtime.represent(records)

    class Recorded:
        def run(self, inputs):
            sizes.append({name: array.shape for name, array in inputs.items()})
            return runtime.bundle.towers["user"].run(inputs)

    bundle = replace(runtime.bundle, towers={**runtime.bundle.towers, "user": Recorded()})
    monkeypatch.setattr("anyrec.export.runtime.ROWS_AT_A_TIME", 8)
    np.testing.assert_allclose(replace(runtime, bundle=bundle).represent(records), whole, rtol=0, atol=1e-6)
    rows = [one["text.bio.present"][0] for one in sizes]
    assert sum(rows) == len(records.rows) > 40 and max(rows) == 8
    lengths = [one["text.bio.values"][1] for one in sizes]
    assert lengths[5] == max(lengths) > 2 * sorted(lengths)[-2], "only the block with the long text is padded for it"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=9), st.integers(0, 9), st.integers(0, 9))
def test_rows_of_a_prepared_column_are_those_of_its_lists(lists, start, stop):
    start, stop = sorted((min(start, len(lists)), min(stop, len(lists))))
    flat = FlatLists(np.array([n for one in lists for n in one]), np.cumsum([0, *map(len, lists)]))
    present = np.array([bool(one) for one in lists], bool)
    column = PreparedColumn({"lists": flat, "lengths": flat.lengths}, present).rows(start, stop)
    found = column.values["lists"]
    assert [found.values[a:b].tolist() for a, b in pairwise(found.offsets)] == lists[start:stop]
    assert column.values["lengths"].tolist() == [len(one) for one in lists[start:stop]]
    assert column.present.tolist() == [bool(one) for one in lists[start:stop]]


def test_the_runtime_loads_no_torch_and_needs_only_what_the_page_lists(tokens):
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers', 'scipy', 'sklearn', 'matplotlib', 'faiss'):\n"
        "    sys.modules[name] = None\n"
        "from anyrec.export import load\n"
        "users = [{'user_id': 'x', 'categorical': {'job': 'nurse'}}]\n"
        "print(load(sys.argv[1], threads=1).recommend(users, 3).num_rows)\n"
    )
    folder = str(tokens[1].folder)
    done = subprocess.run(
        [sys.executable, "-c", program, folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "3", done.stderr


def test_the_code_on_the_page_works_and_openvino_runs_the_same_files(everything, tmp_path):
    pytest.importorskip("openvino", reason="pip install openvino")
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "shop").symlink_to(everything[1].folder)
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = [one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "recommender.export" not in one]
    program = "\n".join(blocks).replace("user 1", "u001").replace('"i7"', '"i007"')
    program += """
listed = runtime.recommend(["u000"], exclude_seen=False)["item_id"].to_pylist()
assert listed == items.take(best).to_pylist(), (listed, items.take(best).to_pylist())
print(abs(vectors - runtime.bundle.towers["item"].run(arrays)[0]).max() < 1e-5)
"""
    # OpenVINO computes with its own oneDNN, which crashes under the limit that conftest.py sets for that of torch.
    env = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines()[-1:] == ["True"], (run.returncode, run.stderr)
    assert (tmp_path / "item_tower.xml").exists()


def test_a_bundle_is_whole_and_names_nothing_of_this_machine(everything, shop, tmp_path):
    folder = everything[1].folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["opset"] == 18 and {"torch", "onnx"} <= set(manifest["versions"])
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == written - {"manifest.json"}
    for path in folder.rglob("*"):
        assert path.is_dir() or not any(place.encode() in path.read_bytes() for place in (str(ROOT), str(shop.root)))
    copy = tmp_path / "copy"
    for damage, fault in (
        (lambda: (copy / "scorer.onnx").write_bytes(b"x"), "not the one that was saved"),
        (lambda: (copy / "user_tower.onnx").unlink(), "missing"),
        (lambda: (copy / "more.txt").write_text(""), "does not list"),
    ):
        shutil.copytree(folder, copy)
        damage()
        with pytest.raises(ModelError, match=fault):
            load(copy)
        shutil.rmtree(copy)
    with pytest.raises(ModelError, match="no export is here"):
        load(tmp_path)
    with pytest.raises(InputError, match="no backend 'tensorrt'"):
        load(folder, backend="tensorrt")


def test_an_export_without_users_answers_records(shop, tmp_path):
    recommender = fitted(shop, PLAIN)
    folder = recommender.export(tmp_path / "export", users=False).folder
    runtime = load(folder)
    assert len(runtime.dataset.users) == 0 and b"u001" not in (folder / "users.arrow").read_bytes()
    document = {"user_data": [{"user_id": "u9", "categorical": {"job": "nurse"}}]}
    document["interactions"] = [{"user_id": "u9", "item_id": "i001"}]
    assert_same_lists(runtime.recommend(document), recommender.recommend(document))


def test_all_reasons_against_an_export_are_given_at_once(shop, tmp_path):
    class Plain(Encoder):
        """A number as it is."""

        type = "plain"
        group = "continuous"

        def prepare(self, column):
            return torch.tensor(column.to_pylist()).nan_to_num().unsqueeze(1)

    config = small_config(
        features={"categorical": {}, "continuous": {"fields": {"age": {"type": "plain"}, "marks": None}}},
        pipeline={"retrieve": {"sources": [{"type": "popularity"}]}},
    )
    recommender = Recommender.from_config(config)
    recommender.registry.add_class("encoder", Plain, "test")
    recommender.fit(shop, progress=False)
    with pytest.raises(InputError) as error:
        recommender.export(tmp_path / "export")
    assert "the pipeline (popularity) cannot be exported because" in str(error.value)
    assert "the encoder 'plain' cannot be exported because its prepare() has no counterpart in NumPy" in str(
        error.value
    )
    assert not (tmp_path / "export").exists()
    knn = Recommender.from_config(small_config(model={"type": "item_knn"})).fit(small_dataset(), progress=False)
    saved = knn.save(tmp_path / "knn")
    code, _, message = call("export", "--model-path", saved, "--output", tmp_path / "export", "--without", "towers")
    assert code == 2 and "no part 'towers'" in message
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    code, _, message = call("export", "--model-path", saved, "--output", tmp_path / "notes")
    assert code == 2 and "exists and is not an export" in message


def test_a_pipeline_is_left_out_on_request_and_named(tmp_path):
    pipeline = {"retrieve": {"sources": [{"type": "popularity"}]}}
    config = small_config(model={"type": "popularity"}, pipeline=pipeline)
    saved = Recommender.from_config(config).fit(small_dataset(), progress=False).save(tmp_path / "model")
    options = ("export", "--model-path", saved, "--output", tmp_path / "export")
    code, _, message = call(*options)
    assert code == 2 and "Leave it out with --without pipeline." in message and not (tmp_path / "export").exists()
    code, _, message = call(*options, "--without", "pipeline")
    assert code == 0 and "The pipeline is left out" in message
    alone = Recommender.load(saved).with_pipeline(None)
    assert_same_lists(load(tmp_path / "export").recommend(), alone.recommend())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.mark.parametrize("name", [plugin.type for plugin in discover(drop_in=False).plugins("encoder")])
def test_every_encoder_prepares_in_numpy_what_it_prepares_in_torch(name, minilm, clip):
    cls = discover(drop_in=False).get("encoder", name, "")
    trained = {"sentence": {"model": str(minilm), "frozen": False}, "torchvision": {"weights": None, "frozen": False}}
    trained |= {key: {"model": clip, "frozen": False} for key in ("clip", "clip_text")}
    encoder = cls(cls.Params(**trained.get(name, {})), 8)
    assert encoder.preparation in KINDS
    assert encoder.export_fault() == ""
    column = pa.nulls(9, pa.string()) if encoder.group == "image" else examples._example(cls)
    encoder.context = Context(items=examples._items())
    encoder.fit(column)
    prepared = encoder.encode_column(column)
    found = KINDS[encoder.preparation](encoder.saved_params(), encoder.exported_state())(column, encoder.context)
    found = with_presence(found, column)
    assert np.array_equal(found.present, prepared.present.numpy())
    values = prepared.values["now"] if name == "aggregates" else prepared.values
    both = (
        [(values, found.values)]
        if not isinstance(values, dict)
        else [(values[n], found.values[n]) for n in found.values]
    )
    for ours, theirs in both:
        if isinstance(ours, Ragged):
            assert isinstance(theirs, FlatLists) and np.array_equal(ours.offsets.numpy(), theirs.offsets)
            ours, theirs = ours.values, theirs.values
        assert np.array_equal(ours.numpy(), theirs)


class Parts(torch.nn.Module):
    """All fusions, interactions and sequence models in one graph."""

    def __init__(self, fusions, interactions, histories):
        super().__init__()
        self.fusions, self.interactions = torch.nn.ModuleList(fusions), torch.nn.ModuleList(interactions)
        self.histories = torch.nn.ModuleList(histories)

    def forward(self, inputs):
        features, present = inputs["features"], inputs["present"]
        fused = [one(features[:, : len(one.names)], present[:, : len(one.names)]) for one in self.fusions]
        sides = {"tokens": (features, inputs["items"]), "vectors": (features[:, 0], inputs["items"][:, 0])}
        scores = [one.score(*sides[one.reads]) for one in self.interactions]
        vectors, mask = inputs["vectors"], inputs["mask"]
        events = {"items": Padded(torch.arange(mask.shape[0] * mask.shape[1]), mask)}
        events |= {part: Padded.of(inputs[part], mask) for part in ("gaps", "kinds")}
        return (*fused, *scores, *(one(events, vectors.flatten(0, 1)) for one in self.histories))


@pytest.mark.slow
def test_every_fusion_interaction_and_sequence_model_is_exported(tmp_path):
    registry, names = discover(drop_in=False), ["categorical.kind", "identity.id", "text.title"]
    torch.manual_seed(0)
    fusions = [
        registry.get("fusion", one.type, "")(names[:1] if one.type == "identity" else names, 8, 8)
        for one in registry.plugins("fusion")
    ]
    interactions = [
        registry.get("interaction", one.type, "")(8, None, (names, names)) for one in registry.plugins("interaction")
    ]
    blocks = [{"block": one} for one in ("transformer", "bidirectional", "gru", "mean")]
    histories = []
    for options in [*blocks, {"variant": "pre_norm"}]:
        cls = registry.get("encoder", "history", "")
        one = cls(cls.Params(window=5, layers=1, **options), 8)
        one.item_dim, one.kinds = 8, pa.array([], pa.string())
        one.build()
        histories.append(one)
    assert not any(one.export_fault() for one in [*fusions, *interactions])
    parts = Parts(fusions, interactions, histories).eval()

    def inputs(batch, items, length):
        draw = np.random.default_rng(batch)
        return {
            "features": draw.normal(size=(batch, 3, 8)).astype(np.float32),
            "present": draw.random((batch, 3)) < 0.6,
            "items": draw.normal(size=(items, 3, 8)).astype(np.float32),
            "vectors": draw.normal(size=(batch, length, 8)).astype(np.float32),
            "gaps": draw.random((batch, length)).astype(np.float32),
            "kinds": np.zeros((batch, length), np.int64),
            "mask": np.arange(length) < draw.integers(0, length + 1, batch)[:, None],
        }

    dynamic = {"features": {0: "batch"}, "present": {0: "batch"}, "items": {0: "items"}}
    dynamic |= {name: {0: "batch", 1: "length"} for name in ("vectors", "gaps", "kinds", "mask")}
    outputs = [f"out{n}" for n in range(len(fusions) + len(interactions) + len(histories))]
    sample = {name: torch.from_numpy(one) for name, one in inputs(3, 7, 4).items()}
    write_graph(parts, sample, dynamic, outputs, tmp_path / "parts.onnx", "all parts")
    for graph in (OnnxRuntimeGraph(tmp_path / "parts.onnx", 1), NumPyGraph(tmp_path / "parts.onnx")):
        for shape in ((1, 1, 1), (2, 5, 5), (9, 40, 3)):
            some = inputs(*shape)
            with torch.no_grad():
                expected = parts({name: torch.from_numpy(one) for name, one in some.items()})
            for ours, theirs in zip(expected, graph.run(some), strict=True):
                np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=2e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_lists_of_ties_are_those_of_torch(seed, k):
    scores = np.random.default_rng(seed).integers(0, 4, (5, 9)).astype(np.float32)
    scores[scores == 3] = -np.inf
    values, places = top_k(scores, k)
    expected = scoring.top_k(torch.from_numpy(scores), k)
    listed = values > -np.inf  # the others are not listed, so their order means nothing
    assert np.array_equal(values, expected[0].numpy())
    assert np.array_equal(places[listed], expected[1].numpy()[listed])
