"""No file that a request names is opened, whichever encoder reads it: encoders declare it by `reads_files`."""

import sys
import uuid

import pyarrow as pa
import pytest
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ServingConfig
from anyrec.core.discovery import discover
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.live.files import FileRules, names_files
from anyrec.serving.live.service import Service

PLUGIN = '''
import torch
from anyrec import Encoder

OPENED = []


class Sound(Encoder):
    """Encodes a file by its size."""

    type = "sound"
    reads_files = True

    def prepare(self, column):
        sizes = []
        for name in column.to_pylist():
            path = self.context.root / (name or "")
            if name is not None:
                OPENED.append(name)
            sizes.append([float(len(path.read_bytes())) if path.is_file() else 0.0])
        return torch.tensor(sizes).reshape(len(sizes), 1)


class Transcript(Sound):
    """Encodes the file that a text names."""

    type = "transcript"
    group = "text"
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a plugin in `plugins`, and sounds in `sounds`."""
    place = tmp_path_factory.mktemp("sounds")
    for name in ("plugins", "sounds"):
        (place / name).mkdir()
    (place / "plugins" / "sound.py").write_text(PLUGIN)
    (place / "sounds" / "new.wav").write_bytes(b"new")
    (place / "secret").write_bytes(b"secret")
    return place


def trained(folder, **features):
    data = small_dataset()
    data.root = folder / "sounds"
    for side, table in (("user", data.users), ("item", data.items)):
        ids = data.ids(side).to_pylist()
        for one in ids:
            (data.root / f"{one}.wav").write_bytes(one.encode() * (1 + int(one[1:]) % 3))
        table = table.append_column("sound.clip", pa.array([f"{one}.wav" for one in ids]))
        table = table.append_column("text.notes", pa.array([f"{one}.wav" for one in ids]))
        setattr(data, f"{side}s", table)
    config = small_config(name="sounds", features=features, training={"epochs": 1, "patience": None})
    return Recommender.from_config(config, plugins=[folder / "plugins"]).fit(data, progress=False)


@pytest.fixture(scope="module")
def recommender(folder):
    return trained(folder, text={"fields": {"notes": {"type": "transcript"}}})


def opened(recommender):
    return sys.modules[recommender.model.registry.get("encoder", "sound").__module__].OPENED


def opened_by_requests(client, recommender, name):
    """Return the names that the encoders open for requests whose records have the name `name`."""
    record, new = {"sound": {"clip": name}, "text": {"notes": name}}, uuid.uuid4().hex
    opened(recommender).clear()
    event = {"event_id": new, "user_id": new, "item_id": new, "user": record, "item": record}
    answers = [
        client.post("/v1/recommend", json={"user": record}),
        client.post("/v1/recommend:batch", json={"requests": [{"user": record}]}),
        client.post("/v1/embed", json={"users": [{"user_id": "n", **record}], "items": [{"item_id": "n", **record}]}),
        client.post("/v1/search", json={"text": "pilot", "user": record}),
        client.post("/v1/events", json={"events": [event]}),
        client.put("/v1/items", json={"items": [{"item_id": "n", **record}]}),
        client.put("/v1/users", json={"users": [{"user_id": "n", **record}]}),
        client.post("/v1/recommend", json={"user_id": "n"}),
    ]
    assert [one.status_code for one in answers] == [200] * len(answers)
    assert "pilot" not in opened(recommender)  # the text of a search is no name of a file
    of_training = {f"{one}.wav" for side in ("user", "item") for one in recommender.dataset.ids(side).to_pylist()}
    return set(opened(recommender)) - of_training, [one.json().get("warnings", []) for one in answers]


def test_a_group_names_files_if_its_default_encoder_says_so(folder):
    registry = discover([folder / "plugins"])
    assert registry.file_groups() >= {"image", "sound"}
    assert "text" not in registry.file_groups()  # `transcript` reads files, and is no default of `text`
    assert {one.type for one in registry.plugins("encoder") if one.reads_files} >= {
        "sound",
        "transcript",
        "cnn",
        "clip",
    }


@pytest.mark.parametrize("name", ["new.wav", ["new.wav"], "../secret", "/etc/passwd", "http://127.0.0.1:1/a.wav"])
def test_no_file_of_any_group_that_a_request_names_is_opened(recommender, name):
    with TestClient(make_app(Service(recommender, ServingConfig()))) as client:
        found, warnings = opened_by_requests(client, recommender, name)
    assert not found
    assert sum(any("were not opened" in text for text in one) for one in warnings) == 6  # not of the batch and the last


def test_files_within_the_root_are_opened_if_the_config_says_so(recommender):
    service = Service(recommender, ServingConfig(image_names=True))
    with TestClient(make_app(service)) as client:
        assert opened_by_requests(client, recommender, "new.wav")[0] == {"new.wav"}
        for name in ("../secret", "/etc/passwd", "http://127.0.0.1:1/a.wav"):
            assert not opened_by_requests(client, recommender, name)[0]


def test_a_version_that_is_loaded_later_opens_none_of_the_files_that_earlier_requests_named(
    folder, recommender, tmp_path
):
    without = trained(folder, sound=None)
    service = Service(without, ServingConfig(), tmp_path, load=lambda place: recommender)
    with TestClient(make_app(service)) as client:
        record = {"sound": {"clip": "new.wav"}, "text": {"notes": "new.wav"}}
        client.put("/v1/users", json={"users": [{"user_id": "n", **record}]})
        client.put("/v1/items", json={"items": [{"item_id": "n", **record}]})
        assert client.get("/v1/users/n").json()["text"] == {"notes": "new.wav"}  # a text for this version
        opened(recommender).clear()
        service.reload(tmp_path)
        client.post("/v1/recommend", json={"user_id": "n"})
        assert not opened(recommender) and client.get("/v1/users/n").json()["text"] == {"notes": None}
    opened(recommender).clear()
    again = Service(recommender, ServingConfig(), tmp_path)  # reads the log of changed records
    again.lists([])
    again.close()
    assert not opened(recommender)


def test_an_untrusted_model_says_that_it_opens_no_files_of_plugins(folder, recommender, tmp_path):
    place = recommender.save(tmp_path / "model")
    for features in ({}, {"image_root": folder / "sounds"}):
        notes = Recommender.load(place, plugins=[folder / "plugins"], **features).notes
        assert any("Left out, because" in one and "root (" in one for one in notes) == (not features)


def test_values_are_left_out_by_group_and_by_feature(tmp_path):
    features, record = {"sound", "text.notes"}, {"sound": {"a": "x", "b": None}, "text": {"notes": ["x"], "bio": "x"}}
    none, all_, own = (
        FileRules(frozenset(features), *roots) for roots in ((None,) * 2, (tmp_path,) * 2, (None, tmp_path))
    )
    kept = none.readable(record, lambda: record)
    assert kept == {"sound": {"a": None, "b": None}, "text": {"notes": None, "bio": "x"}}
    assert names_files(record, features) and not names_files(kept, features)
    assert none.readable(kept, dict) is kept and none.readable({"sound": 1}, dict) == {"sound": 1}
    (tmp_path / "x").write_bytes(b"")
    assert all_.readable(record, lambda: None) is record
    assert own.readable(record, lambda: None) == kept and own.readable(record, lambda: record) is record
    known = {"sound": {"a": ["x", "../y"]}}
    for name, expected in (("x", "x"), (["x", "z", "../y"], ["x"]), ("z", None), ("../y", None)):
        assert own.readable({"sound": {"a": name}}, lambda: known) == {"sound": {"a": expected}}
    assert own.readable({"text": {"notes": "x"}}, lambda: known) == {"text": {"notes": None}}  # of another feature
