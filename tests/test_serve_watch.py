"""`anyrec serve --watch`: a model that is saved in the folder of the present one is served, with the same options."""

import logging
import os
import time

import pytest
from small import call, small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ServingConfig
from anyrec.core.manifest import MANIFEST
from anyrec.recommender import Recommender
from anyrec.serving.http import follow
from anyrec.serving.http.app import make_app
from anyrec.serving.live.query import Query
from anyrec.serving.live.served import Served
from anyrec.serving.live.service import RECENT, Service


@pytest.fixture(scope="module")
def fitted():
    return [
        Recommender.from_config(small_config(name="shop", seed=seed)).fit(small_dataset(), progress=False)
        for seed in (1, 2)
    ]


@pytest.fixture
def folder(fitted, tmp_path):
    return fitted[0].save(tmp_path / "shop")


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


def test_a_model_that_is_saved_in_the_folder_is_served(folder, fitted, monkeypatch, caplog):
    monkeypatch.setattr(follow, "SECONDS", 0.02)
    service = Service(Recommender.load(folder), ServingConfig())
    first = service.served.digest
    with TestClient(make_app(service, folder=folder, watch=True)) as client, caplog.at_level(logging.INFO):
        fitted[1].save(folder)
        wait_for(lambda: service.served.digest != first)
        second = service.served.digest
        assert client.get("/v1/models").json()["previous"]["digest"] == first
        (folder / MANIFEST).write_text("{")
        wait_for(lambda: "keeps serving" in caplog.text)
        assert service.served.digest == second and client.post("/v1/recommend", json={}).status_code == 200
        fitted[0].save(folder)
        wait_for(lambda: service.served.digest == first)
    assert caplog.text.count("keeps serving") == 1  # said once, not at each look


def test_without_watch_the_folder_is_not_read_again(folder, fitted, monkeypatch):
    monkeypatch.setattr(follow, "SECONDS", 0.02)
    monkeypatch.setattr(follow, "stamp", lambda _: pytest.fail("the folder was read"))
    with TestClient(make_app(Service(Recommender.load(folder), ServingConfig()), folder=folder)) as client:
        fitted[1].save(folder)
        assert client.post("/v1/recommend", json={}).status_code == 200


def test_a_stamp_changes_with_the_model_and_with_an_index(folder, fitted):
    stamps = [follow.stamp(folder)]
    fitted[0].save(folder)
    stamps.append(follow.stamp(folder))
    os.makedirs(folder / "index")
    (folder / "index" / MANIFEST).write_text("{}")
    stamps.append(follow.stamp(folder))
    assert stamps[0] != stamps[1] != stamps[2] and follow.stamp(folder) == stamps[2]
    assert follow.stamp(folder / "none") == []


def test_another_version_answers_the_last_requests_before_it_serves(folder, monkeypatch):
    service = Service(Recommender.load(folder), ServingConfig())
    asked = [Query(user_id=f"u{n:03}") for n in range(10, 20)] * 4
    service.lists([*asked, Query(candidates=("none",)), Query(pictures=(("photo", b"no picture"),))])
    found, lists = [], Served.lists
    monkeypatch.setattr(Served, "lists", lambda self, queries, *o: found.append(queries) or lists(self, queries, *o))
    service.reload(folder)
    assert found[1:] == [[one] for one in asked[-RECENT + 1 :]]  # neither an error nor pictures


def test_a_version_is_loaded_with_the_options_of_the_command(folder, monkeypatch):
    given = {}
    monkeypatch.setattr("anyrec.serving.http.run.serve", lambda *a, **options: given.update(options))
    code, _, message = call("serve", "--model-path", folder, "--watch", "--set", "serving.max_k=77")
    assert code == 0, message
    assert given["watch"] and given["load"](folder).config.serving.max_k == 77
