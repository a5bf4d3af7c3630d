"""Loading a model directory from anyone runs no code, opens no file outside it, and reports every fault."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import Field
from safetensors.torch import load, save_file
from small import small_config, small_dataset

from anyrec.core.config import Component, Config
from anyrec.core.contracts import Context, Params
from anyrec.core.discovery import discover
from anyrec.core.errors import AnyrecError, ConfigError, InputError, ModelError
from anyrec.core.files import sha256_of
from anyrec.core.load_config import load_config
from anyrec.core.outside import Outside
from anyrec.core.trust import declared
from anyrec.recommender import Recommender
from anyrec.retrieval.item_index import ItemIndex
from anyrec.storage.model_directory import CARD, _id_of

PIPELINE = {
    "retrieve": {
        "k": 10,
        "sources": [{"type": "model"}, {"type": "item_to_item"}, {"type": "popularity"}, {"type": "classical"}],
    },
    "rank": {"type": "dcn", "k": 8, "training": {"epochs": 1}},
}
REGISTRY = discover()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    config = small_config(pipeline=PIPELINE, heads={"kind": {"type": "interaction_type"}}, features={"history": {}})
    recommender = Recommender.from_config(config).fit(small_dataset(users=24, items=16), progress=False)
    return recommender.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def model(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def resign(folder):
    """The manifest as a stranger writes it: every file listed, every hash right."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    names = [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file() and one != path]
    manifest["files"] = {name: sha256_of(folder / name) for name in names}
    manifest["id"] = _id_of(manifest["files"], CARD)
    path.write_text(json.dumps(manifest))


def edit(folder, name, change):
    path = folder / name
    document = json.loads(path.read_text())
    changed = change(document)
    path.write_text(json.dumps(document if changed is None else changed))
    if name != "manifest.json":
        resign(folder)


def write_table(path, table):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_table(path):
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


def refused(folder, match=None, **options):
    with pytest.raises(ModelError, match=match) as error:
        Recommender.load(folder, **options)
    assert error.value.exit_code == 2
    return str(error.value)


# What a config names outside the folder


def test_code_in_a_folder_that_the_config_names_is_not_run_unless_the_model_is_trusted(model, tmp_path, monkeypatch):
    mark = tmp_path / "run"
    for folder in (tmp_path / "evil", model.parent / "plugins"):
        folder.mkdir()
        code = "from anyrec.pipeline.contracts import Rule\nclass Evil(Rule):\n    '''Evil.'''\n    type = 'evil'\n"
        (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n{code}")
    edit(model, "config.json", lambda config: config.update(plugins=[str(tmp_path / "evil")]))
    loaded = Recommender.load(model)
    assert [note for note in loaded.notes if f"plugins ({tmp_path / 'evil'})" in note and "--trust-plugins" in note]
    edit(model, "config.json", lambda config: config["pipeline"].update(rerank={"rules": [{"type": "evil"}]}))
    message = refused(model, "no rule 'evil'")
    assert f"left out: {tmp_path / 'evil'}" in message and not mark.exists()
    monkeypatch.chdir(model.parent)
    refused(model, "no rule 'evil'")
    assert not mark.exists()
    (model.parent / "plugins" / "evil.py").unlink()
    Recommender.load(model, trust_plugins=True)
    assert mark.exists()


def test_addresses_and_files_of_rules_are_refused_together_and_allowed_by_trust(model, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("i001\n")
    rules = [{"type": "http", "url": "http://127.0.0.1:9/x"}, {"type": "availability", "file": str(ids)}]
    edit(model, "config.json", lambda config: config["pipeline"].update(rerank={"rules": rules}))
    message = refused(model, "2 faults")
    for part in ("rules/0/url", "http://127.0.0.1:9/x", "rules/1/file", str(ids), "--trust-plugins"):
        assert part in message
    assert Recommender.load(model, trust_plugins=True).pipeline is not None


@pytest.mark.parametrize(
    ("encoder", "value"),
    [
        ({"type": "sentence", "params": {"model": "/somewhere/minilm"}}, "/somewhere/minilm"),
        ({"type": "clip", "params": {"model": "../clip"}}, "../clip"),
        ({"type": "torchvision", "params": {"weights": "weights.pth"}}, "weights.pth"),
    ],
)
def test_paths_of_pretrained_models_are_refused(model, encoder, value):
    def change(state):
        state["item"]["text.title"].update(encoder)

    edit(model, "preprocessing/state.json", change)
    assert value in refused(model, "outside its folder")


def test_a_folder_that_bears_a_published_name_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "organisation" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    change = {"type": "sentence", "params": {"model": "organisation/name"}}
    edit(model, "preprocessing/state.json", lambda state: state["item"]["text.title"].update(change))
    refused(model, "organisation/name")


def test_nothing_is_downloaded_for_a_model_that_is_not_trusted():
    from anyrec.encoders.image import make_backbone
    from anyrec.encoders.sentence import backbone

    with pytest.raises(ConfigError, match="not downloaded for a model that is not trusted"):
        backbone("nobody/no-such-model", Context(trusted=False), "/features/text/model")
    with pytest.raises(ConfigError, match="cache on this machine"):
        make_backbone("vit_h_14", "DEFAULT", Context(trusted=False))


def test_the_folder_of_pictures_and_addresses_are_left_out_with_a_note(model):
    edit(model, "config.json", lambda config: config["data"].update(image_root="/etc", allow_urls=True))
    loaded = Recommender.load(model)
    assert not loaded.model.context.allow_urls and loaded.config.data.image_root is None
    assert "data.image_root (/etc)" in loaded.notes[-1] and "data.allow_urls" in loaded.notes[-1]
    trusted = Recommender.load(model, trust_plugins=True)
    assert trusted.model.context.allow_urls and trusted.config.data.image_root == "/etc"


def test_the_file_of_a_split_is_not_read_for_a_model_that_is_not_trusted(model, tmp_path):
    edit(model, "config.json", lambda config: config["split"].update(file=str(tmp_path / "split.parquet")))
    loaded = Recommender.load(model)
    with pytest.raises(ModelError, match="the file of its split"):
        loaded.with_data(small_dataset(users=24, items=16))


def test_an_option_that_a_plugin_declares_is_found_wherever_it_is():
    class Inner(Params):
        place: Path | None = None

    class Options(Params):
        source: Annotated[str | None, Outside("a file")] = Field(None)
        several: Annotated[list[str], Outside("a file")] = Field(default_factory=list)
        inner: list[Inner] = Field(default_factory=list)
        name: str = "x"

    options = Options(source="a", several=["b", "c"], inner=[Inner(), Inner(place=Path("d"))])
    found = [(one.where, one.value) for one in declared(options, REGISTRY, "/rule")]
    assert found == [
        ("/rule/source", "a"),
        ("/rule/several", "b"),
        ("/rule/several", "c"),
        ("/rule/inner/1/place", "d"),
    ]


def test_every_text_option_of_a_component_is_declared_or_known_to_name_nothing_outside():
    harmless = {"collection", "feature", "user", "item", "min", "max", "since", "until", "group", "model", "weights"}
    for plugin in REGISTRY.plugins():
        if plugin.kind in ("encoder", "index", "source", "rule", "classical", "sampler", "loss", "head", "fusion"):
            for name, field in plugin.load().Params.model_fields.items():
                outside = any(isinstance(one, Outside) for one in field.metadata)
                assert outside or name in harmless or field.annotation not in (str, str | None), (plugin.type, name)
    named = {"data.sources", "data.image_root", "data.allow_urls", "data.allow_outside_root", "split.file", "plugins"}
    named |= {"cluster.address", "feast.url", "feast.token_env"}
    sections = [(f"{name}.", field.annotation) for name, field in Config.model_fields.items()]
    found = {
        f"{prefix}{name}"
        for prefix, section in [("", Config), *sections]
        for name, field in getattr(section, "model_fields", {}).items()
        if any(isinstance(one, Outside) for one in field.metadata)
    }
    assert found == named


@pytest.mark.parametrize("name", ["..", ".", "...", "a/b", "../x", "", "a\0b", "a\nb", "x" * 300, "/etc"])
def test_a_run_cannot_be_named_like_a_path(name):
    with pytest.raises(ConfigError, match="/name"):
        load_config({"name": name})


# The manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].update({"../secret.txt": "0" * 64}),
        lambda m: m["files"].update({"/etc/passwd": "0" * 64}),
        lambda m: m["files"].update({"/dev/zero": "0" * 64}),
        lambda m: m["files"].update({"a\0b": "0"}),
        lambda m: m["files"].update({"a" * 5000: "0"}),
        lambda m: m["files"].update({"config.json": None}),
        lambda m: m["files"].update({"./config.json": m["files"]["config.json"]}),
        lambda m: m["files"].pop("model.safetensors") and None,
        lambda m: m["files"].pop("history.arrow") and None,
        lambda m: m.update(files={}),
        lambda m: m.update(files=[]),
        lambda m: m.pop("files") and None,
        lambda m: m.pop("roles") and None,
        lambda m: (m.pop("root"), None)[1],
        lambda m: m.update(root=3),
        lambda m: m.update(root="a\0b"),
        lambda m: m.update(roles={"user.x": "zzz"}),
        lambda m: m.update(metrics={"test": [1]}),
        lambda m: m.update(modules="x"),
        lambda m: m.update(format=True),
        lambda m: [m],
        lambda m: "text",
    ],
)
def test_a_manifest_lists_exactly_the_files_of_the_folder(model, tmp_path, change):
    (tmp_path / "secret.txt").write_text("secret")
    edit(model, "manifest.json", change)
    refused(model)


@pytest.mark.parametrize(
    "text", ["", "{", "\xff", '{"format": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"x": ' + "9" * 5000 + "}"]
)
def test_a_manifest_that_is_no_json_is_refused(model, text):
    (model / "manifest.json").write_bytes(text.encode("latin-1"))
    refused(model, "not valid JSON")


def test_entries_that_are_not_regular_files_of_the_folder_are_refused(model, tmp_path):
    (tmp_path / "outside").write_text("x")
    for name, make in {
        "extra.bin": lambda path: path.write_bytes(b"x"),
        "link": lambda path: path.symlink_to(tmp_path / "outside"),
        "loop": lambda path: path.symlink_to(path),
        "folder": lambda path: path.symlink_to(tmp_path),
        "search": lambda path: path.symlink_to(tmp_path),
        "fifo": lambda path: os.mkfifo(path),
    }.items():
        make(model / name)
        assert name in refused(model, "1 fault")
        (model / name).unlink()
    weights = model / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    for make in (lambda: weights.symlink_to(tmp_path / "elsewhere"), weights.mkdir, lambda: os.mkfifo(weights)):
        make()
        refused(model, "model.safetensors")
        weights.rmdir() if weights.is_dir() else weights.unlink()
    shutil.copy(tmp_path / "elsewhere", weights)
    (model / ".DS_Store").write_text("x")
    (tmp_path / "name").symlink_to(model)
    assert Recommender.load(tmp_path / "name").model.model_id


# Content, with hashes that fit


def state_cases():
    def first(state):
        return state["user"]["categorical.job"]

    yield "arrow file outside", lambda s: first(s)["state"].update(vocabulary={"$arrow": "../../secret.txt"})
    yield "arrow name is a number", lambda s: first(s)["state"].update(vocabulary={"$arrow": 3})
    yield "unknown encoder", lambda s: first(s).update(type="zzz")
    yield "unknown option", lambda s: first(s).update(params={"zzz": 1})
    yield "no side", lambda s: s.pop("user") and None
    yield "no state", lambda s: first(s).update(state={})
    yield "vocabulary is a text", lambda s: first(s)["state"].update(vocabulary="x")
    yield "huge input_dim", lambda s: s["item"]["temporal.restocked"].update(input_dim=2**40)
    yield "huge width", lambda s: s["user"]["continuous.age"]["state"].update(width=10**9)
    yield "mean is a text", lambda s: s["user"]["continuous.age"]["state"].update(mean="x")
    yield "mean is NaN", lambda s: s["user"]["continuous.age"]["state"].update(mean=[float("nan")])
    yield "time is a text", lambda s: s["item"]["temporal.restocked"]["state"].update(newest="x")
    yield "a list", lambda s: [1]
    yield "no heads", lambda s: s.update(heads={})


def config_cases():
    yield "unknown key", lambda c: c.update(zzz=1)
    yield "dim 2^40", lambda c: c.update(dim=2**40)
    yield "dim 4", lambda c: c.update(dim=4)
    yield "dim 10^30", lambda c: c.update(dim=10**30)
    yield "a list", lambda c: [1]
    yield "another model", lambda c: c.update(model={"type": "ease"}, pipeline=None)
    yield "other sources", lambda c: c["pipeline"]["retrieve"].update(sources=[{"type": "item_to_item"}])
    yield (
        "a rule of an unknown feature",
        lambda c: c["pipeline"].update(rerank={"rules": [{"type": "where", "where": {"item.categorical.nope": 1}}]}),
    )
    yield "a huge head", lambda c: c["heads"]["kind"].update(hidden_dims=[10**7, 10**7])


def test_every_bad_key_of_the_config_is_named(model):
    edit(model, "config.json", lambda config: config | {"dim": "large", "traning": {}})
    with pytest.raises(
        ModelError, match=r"(?s)config\.json#/dim.*config\.json#/traning: unknown key\. Did you mean 'training'"
    ):
        Recommender.load(model)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *[pytest.param("preprocessing/state.json", change, id=f"state: {what}") for what, change in state_cases()],
        *[pytest.param("config.json", change, id=f"config: {what}") for what, change in config_cases()],
    ],
)
def test_states_and_configs_that_do_not_fit_are_refused(model, name, change):
    edit(model, name, change)
    refused(model)


FILES = ("model", "known", "pipeline/ranker", "pipeline/source-1", "pipeline/source-2", "pipeline/source-3")


@pytest.mark.parametrize("name", FILES)
def test_damaged_weights_are_refused(model, name):
    path = model / f"{name}.safetensors"
    weights = load(path.read_bytes())

    def header(document):
        text = json.dumps(document).encode()
        return len(text).to_bytes(8, "little") + text

    floats = {key: values for key, values in weights.items() if values.is_floating_point()}
    infinite = {key: torch.full_like(values, torch.nan) for key, values in floats.items()}
    other = {key: values[:1] if values.ndim else values.reshape(1) for key, values in weights.items()}
    doubled = {key: torch.cat([values, values]) for key, values in weights.items() if values.ndim}
    integers = {
        key: values if values.is_floating_point() else values.long() * 0 + 10**9 for key, values in weights.items()
    }
    variants = [
        header({"a": {"dtype": "F32", "shape": [2**50], "data_offsets": [0, 2**52]}}),
        (2**62).to_bytes(8, "little") + b"{}",
        header({}),
        b"garbage" * 100,
        weights | infinite,
        weights | doubled,
    ]
    variants += [integers] if name == "pipeline/source-1" else []
    variants += [other] if name in ("model", "known", "pipeline/ranker") else []
    for variant in variants:
        path.write_bytes(variant) if isinstance(variant, bytes) else save_file(variant, path)
        resign(model)
        refused(model)


def test_tables_whose_rows_do_not_fit_are_refused(model):
    users, items, seen = (read_table(model / f"{name}.arrow") for name in ("users", "items", "seen"))
    count = len(seen)

    def pairs(user=seen["user"], item=seen["item"]):
        return pa.table({"user": user, "item": item})

    cases = [
        ("users", users.slice(0, 3)),
        ("users", pa.concat_tables([users, users])),
        ("users", users.drop_columns(["user_id"])),
        ("users", users.set_column(1, users.column_names[1], pa.array([1.5] * len(users))).rename_columns(["x"] * 5)),
        ("items", items.slice(0, 3)),
        ("items", items.set_column(0, "item_id", pa.nulls(len(items), pa.string()))),
        ("items", items.set_column(0, "item_id", pa.array([1.5] * len(items)))),
        ("items", items.set_column(1, "continuous.price", pa.array(["x"] * len(items)))),
        ("seen", pairs(item=pa.array([10**9] * count))),
        ("seen", pairs(item=pa.array([-5] * count))),
        ("seen", pairs(user=pa.array([10**10] * count))),
        ("seen", pairs(user=pa.array([-1] * count))),
        ("seen", pairs(user=pa.array(seen["user"].to_pylist()[::-1]))),
        ("seen", pairs(user=pa.array([None] * count, pa.int64()))),
        ("seen", pairs(user=pa.array(["x"] * count))),
        ("seen", seen.select(["user"])),
        ("history", read_table(model / "history.arrow").slice(0, 2)),
        ("history", pa.table({"events": pa.array([1] * len(users))})),
    ]
    for name, table in cases:
        path = model / f"{name}.arrow"
        whole = path.read_bytes()
        write_table(path, table)
        resign(model)
        refused(model, f"{name}.arrow|history.arrow|known.safetensors")
        path.write_bytes(whole)
    for garbage in (b"", b"ARROW1\0\0" + b"\xff" * 200, b"x" * 99):
        (model / "users.arrow").write_bytes(garbage)
        resign(model)
        refused(model, "users.arrow")


def test_a_classical_model_with_indices_out_of_range_is_refused(tmp_path):
    fitted = Recommender.from_config({"model": {"type": "item_knn"}}).fit(small_dataset(), progress=False)
    folder = fitted.save(tmp_path / "model")
    for name in ("model", "history"):
        path = folder / f"{name}.safetensors"
        whole, parts = path.read_bytes(), load(path.read_bytes())
        for change in (
            {"columns": torch.full_like(parts["columns"], 10**6)},
            {"columns": torch.full_like(parts["columns"], -7)},
            {"offsets": torch.flip(parts["offsets"], [0])},
            {"offsets": parts["offsets"][:-1].clone()},
        ):
            save_file(parts | change, path)
            resign(folder)
            refused(folder, name)
        path.write_bytes(whole)
    resign(folder)
    Recommender.load(folder)


# Indexes and checkpoints


def test_an_index_that_names_a_server_or_lists_other_files_is_refused(tmp_path):
    ids = pa.array([f"i{n}" for n in range(40)])
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    place = ItemIndex.build(Component(type="exact"), REGISTRY, ids, vectors, measured=False).save(tmp_path / "index")
    manifest = json.loads((place / "manifest.json").read_text())
    for change in (
        {"index": {"type": "qdrant", "url": "http://127.0.0.1:9"}},
        {"index": {"type": "zzz"}},
        {"index": {}},
        {"dim": 2**40},
        {"dim": 0},
        {"dim": -1},
        {"dim": 3},
        {"dim": True},
        {"metric": "zzz"},
        {"figures": {"recall@10": "x"}},
        {"files": {}},
        {"files": {**manifest["files"], "../secret": "0"}},
        {"files": {name: one for name, one in manifest["files"].items() if name != "ids.arrow"}},
    ):
        (place / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ModelError):
            ItemIndex.load(place, REGISTRY)
    keys = np.load(place / "keys.npy")
    for name, values in {
        "keys.npy": [keys + 1, keys * 0, keys - 2, keys.astype(np.int32), keys[:-1], np.full(40, 1 << 40)],
        "vectors.npy": [vectors * np.nan, vectors[:, :3], vectors[:-1], vectors.astype(np.float64), vectors[0]],
    }.items():
        whole = (place / name).read_bytes()
        for value in values:
            np.save(place / name, value)
            files = {**manifest["files"], name: sha256_of(place / name)}
            (place / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
            with pytest.raises(ModelError):
                ItemIndex.load(place, REGISTRY)
        (place / name).write_bytes(whole)


def test_an_index_whose_files_are_those_of_another_type_is_refused(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    options = {"type": "annoy"}
    pytest.importorskip("annoy")
    ids = pa.array([f"i{n}" for n in range(40)])
    place = ItemIndex.build(Component(**options), REGISTRY, ids, vectors, measured=False).save(tmp_path / "index")
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps({**manifest, "index": {"type": "exact"}}))
    with pytest.raises(ModelError, match="cannot be read"):
        ItemIndex.load(place, REGISTRY)


def test_any_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    config = small_config(training={"epochs": 1, "batch_size": 64})
    Recommender.from_config(config).fit(small_dataset(), run_dir=tmp_path, progress=False)
    path = tmp_path / "checkpoints" / "last.safetensors"
    whole = path.read_bytes()
    for spot in np.random.default_rng(0).integers(0, len(whole), 40).tolist():
        hurt = bytearray(whole)
        hurt[spot] ^= 1 << spot % 8
        path.write_bytes(bytes(hurt))
        with pytest.raises(InputError):
            Recommender.from_config(config).fit(small_dataset(), run_dir=tmp_path, resume=True, progress=False)


# A writer and a reader at the same time

SWAPPER = """
import shutil, sys
from pathlib import Path
from anyrec.core.files import atomic_folder
place, sources = Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]]
print("ready", flush=True)
while True:
    for source in sources:
        with atomic_folder(place, "manifest.json") as new:
            shutil.copytree(source, new, dirs_exist_ok=True)
"""


def read_during_writes(place, sources, read, times):
    """Results of `read` while another process replaces `place` by each of `sources` in turn."""
    shutil.copytree(sources[0], place)
    process = subprocess.Popen([sys.executable, "-c", SWAPPER, *map(str, (place, *sources))], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        return [read(place) for _ in range(times)]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_reader_gets_one_whole_version_of_a_model_while_a_writer_replaces_it(tmp_path):
    sources, answers = [], {}
    for dim in (4, 8):
        config = small_config(dim=dim, training={"epochs": 1, "batch_size": 64}, name=f"m{dim}")
        fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
        sources.append(fitted.save(tmp_path / f"m{dim}"))
        answers[fitted.config.name] = fitted.recommend(None, 3)

    def read(place):
        loaded = Recommender.load(place)
        assert loaded.recommend(None, 3).equals(answers[loaded.config.name])
        return loaded.config.name

    assert set(read_during_writes(tmp_path / "model", sources, read, 15)) <= set(answers)


def test_a_reader_gets_one_whole_version_of_an_index_while_a_writer_replaces_it(tmp_path):
    ids = pa.array([f"i{n}" for n in range(50)])
    sources = []
    for dim in (4, 8):
        vectors = np.full((50, dim), dim, np.float32)
        made = ItemIndex.build(Component(type="exact"), REGISTRY, ids, vectors, model=str(dim), measured=False)
        sources.append(made.save(tmp_path / f"index{dim}"))

    def read(place):
        found = ItemIndex.load(place, REGISTRY)
        assert found.model == str(found.index.dim) and (found.index.store.vectors == found.index.dim).all()
        return found.model

    assert set(read_during_writes(tmp_path / "index", sources, read, 60)) <= {"4", "8"}


def test_a_request_to_a_damaged_model_never_raises_anything_but_its_own_errors(model):
    rng = np.random.default_rng(0)
    files = sorted(path for path in model.rglob("*.json") if path.name != "manifest.json")
    for path in files:
        whole = path.read_text()
        paths = []

        def visit(value, place, paths=paths):
            paths.append(place)
            pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            for key, one in pairs:
                visit(one, (*place, key))

        visit(json.loads(whole), ())
        for place in [paths[n] for n in rng.choice(len(paths), min(10, len(paths)), replace=False)]:
            document = json.loads(whole)
            holder = document
            for key in place[:-1]:
                holder = holder[key]
            odd = [None, -1, 10**15, 1.5, "", "x\0", [], {}, [[]], True][rng.integers(10)]
            if place:
                holder[place[-1]] = odd
            path.write_text(json.dumps(document if place else odd))
            resign(model)
            with suppress(AnyrecError):
                Recommender.load(model).recommend(["u001"], 3)
        path.write_text(whole)
