"""What /readyz says in each state of a server, and what the server does then."""

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import jsonschema
import pytest
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ServingConfig
from anyrec.core.errors import Fault, ModelError, OutputError
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.run import listen
from anyrec.serving.http.starting import WARMING, Starting
from anyrec.serving.live.event_log import EventLog, read_events
from anyrec.serving.live.service import Service

EXPERIMENT = {"name": "e", "variants": {"a": {}, "b": {}}}
SERVER = """
import sys, time
from pathlib import Path
from anyrec.recommender import Recommender
from anyrec.serving.http.run import listen, serve
from anyrec.serving.http.starting import Starting
from anyrec.serving.live.service import Service

def popular(self, served, k):
    print("begun", flush=True)
    sys.stdin.readline()
    return []

def loaded(folder):
    time.sleep(0.3)
    return Recommender.load(folder)

Service.popular = popular
(place,) = places = listen("127.0.0.1", 0)
folder = Path(sys.argv[1])
with Starting(places) as starting:
    print(place.getsockname()[1], flush=True)
    recommender = loaded(folder).with_config({"serving": {"drain_seconds": float(sys.argv[2]), "threads": 2}})
    options = {"watch": False, "local": True, "keys": None, "events": None}
    serve(recommender, folder, load=loaded, places=places, starting=starting, **options)
"""


@pytest.fixture(scope="module")
def recommender():
    return Recommender.from_config(small_config(name="shop")).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def folder(recommender, tmp_path_factory):
    return recommender.save(tmp_path_factory.mktemp("shop") / "model")


def ask(port, path, body=None):
    """Return the status and the document of an answer; status 0 if the connection is refused."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)
    except (URLError, ConnectionError):
        return 0, {}


def event(number):
    return {"event_id": f"e{number}", "user_id": "u001", "item_id": "i001", "value": 1.0}


@contextmanager
def no_space(most=2000):
    """Let no file grow beyond some bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Before


def test_probes_are_answered_while_the_model_is_loaded_and_no_connection_is_lost():
    (place,) = places = listen("127.0.0.1", 0)
    port = place.getsockname()[1]
    with Starting(places) as starting:
        assert ask(port, "/livez") == (200, {"status": "alive"})
        status, said = ask(port, "/readyz")
        assert status == 503 and not said["ready"] and "being loaded" in said["reasons"][0]
        starting.reason = WARMING
        assert "first lists" in ask(port, "/v1/recommend", {"user_id": "u1"})[1]["reasons"][0]
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("HEAD", "/readyz")
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["retry-after"]) == (503, b"", "1")
        connection.close()
        for line in (b"\r\n", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n"):  # other bytes are dropped
            with socket.create_connection(("127.0.0.1", port), 5) as raw:
                raw.sendall(line)
        assert ask(port, "/livez")[0] == 200
        starting.end()
        waiting = threading.Thread(target=lambda: found.append(ask(port, "/readyz")))
        found = []
        waiting.start()  # it is accepted by what listens next
        time.sleep(0.1)
        with Starting(places):
            waiting.join(60)
        assert found[0][0] == 503
    place.close()


def test_a_browser_that_comes_early_gets_a_page_that_asks_again():
    (place,) = places = listen("127.0.0.1", 0)
    with Starting(places):
        connection = HTTPConnection("127.0.0.1", place.getsockname()[1], timeout=60)
        connection.request("GET", "/", headers={"accept": "text/html,*/*"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 503 and "<p" in text and "being loaded" in text and "reload()" in text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
        assert answer.headers["content-type"].startswith("text/html")
        assert ask(place.getsockname()[1], "/")[1]["ready"] is False  # no browser
    place.close()


def test_a_model_of_a_variant_that_is_missing_is_an_error_before_the_server_starts(recommender, tmp_path):
    variants = {"a": {}, "b": {"model": str(tmp_path / "gone")}}
    config = ServingConfig.model_validate({"experiments": [{"name": "e", "variants": variants}]})
    with pytest.raises(ModelError, match="gone"):
        Service(recommender, config)


# Meanwhile


def test_the_answer_is_as_the_document_says(recommender):
    service = Service(recommender, ServingConfig())
    with TestClient(make_app(service)) as client:
        document = client.get("/openapi.json").json()
        answers = document["paths"]["/readyz"]["get"]["responses"]
        for stopping, status in ((False, 200), (True, 503)):
            client.app.state.host.stopping = stopping
            answer = client.get("/readyz")
            schema = answers[str(status)]["content"]["application/json"]["schema"]
            assert answer.status_code == status and answer.json()["ready"] is not stopping
            jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
        assert answer.json()["reasons"] == ["the server is stopping"]


def test_a_disk_without_space_is_said_until_there_is_some_again(recommender, tmp_path):
    config = ServingConfig.model_validate({"experiments": [EXPERIMENT]})
    with TestClient(make_app(Service(recommender, config, tmp_path))) as client:
        assert client.post("/v1/events", json={"events": [event(0)]}).status_code == 200
        with no_space():
            many = {"events": [event(n) for n in range(1, 50)]}
            answer = client.post("/v1/events", json=many)
            assert answer.status_code == 507 and "Free space" in answer.json()["detail"]
            for _ in range(3):
                found = client.post("/v1/recommend", json={"user_id": "u001", "k": 39, "include_seen": True})
                assert found.status_code == 200 and len(found.json()["items"]) == 39  # lists are made all the same
            found = [client.post("/v1/recommend", json={"user_id": "u002", "k": 39}) for _ in range(4)]
            assert {one.status_code for one in found} == {200}
            said = client.get("/readyz")
            assert said.status_code == 503 and said.json()["reasons"] == [
                "the log of events cannot be written: File too large",
                "the log of shown lists cannot be written: File too large",
            ]
        said = client.get("/readyz")
        assert said.status_code == 200 and said.json()["reasons"] == []
        assert client.post("/v1/events", json=many).json() == {"accepted": 49, "duplicates": 0}
    assert [one["event_id"] for one in read_events(tmp_path)] == [f"e{n}" for n in range(50)]
    assert not list(tmp_path.glob("**/*.tmp"))


@pytest.mark.parametrize("flush", ["batch", "interval", "never"])
def test_events_that_had_no_space_are_neither_whole_nor_in_part_in_the_log(tmp_path, flush):
    log = EventLog(tmp_path, flush, segment_bytes=1500)
    kept = []
    for n in range(100):
        some = [{"event_id": f"{n}-{i}", "text": "x" * 50} for i in range(1 + n % 7)]
        try:
            with no_space(700 if n % 3 else 10_000):
                log.append(some)
            kept += some
        except OutputError:
            assert log.fault
    log.close()
    assert 0 < len(kept) < 400 and list(read_events(tmp_path)) == kept
    assert len(list(tmp_path.glob("events-*.jsonl"))) > 2


def test_a_log_is_locked_by_a_file_within_its_folder(tmp_path):
    log = EventLog(tmp_path / "volume")
    assert {one.name for one in tmp_path.iterdir()} == {"volume"}  # the folder above can be read-only
    log.close()


def test_a_reload_that_failed_is_a_note_until_another_one_succeeds(recommender, tmp_path):
    errors = [ModelError(Fault("shop", "no model.")), RuntimeError("no memory")]

    def load(place):
        if errors:
            raise errors.pop()
        return recommender

    service = Service(recommender, ServingConfig(), None, load)
    with TestClient(make_app(service, folder=tmp_path), raise_server_exceptions=False) as client:
        while errors:
            assert client.post("/v1/reload", json={}).status_code >= 400
            answer = client.get("/readyz")
            (note,) = answer.json()["notes"]
            assert answer.status_code == 200 and answer.json()["ready"] and str(tmp_path) not in note
            assert note.startswith("the last reload failed at 2") and "the version before it serves" in note
        assert client.post("/v1/reload", json={}).status_code == 200
        assert client.get("/readyz").json()["notes"] == []


# The end


@pytest.mark.slow
def test_sigterm_is_said_first_and_lets_running_requests_finish(folder, drain=2.0):
    command = [sys.executable, "-c", SERVER, str(folder), str(drain)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as server:
        try:
            port = int(server.stdout.readline())
            reasons = []
            while (said := ask(port, "/readyz"))[0] != 200:
                assert said[0] == 503 and server.poll() is None  # no connection is refused
                reasons += said[1]["reasons"]
                time.sleep(0.02)
            assert "being loaded" in reasons[0]
            running = []
            thread = threading.Thread(target=lambda: running.append(ask(port, "/v1/popular")))
            thread.start()
            assert server.stdout.readline() == "begun\n"
            server.send_signal(signal.SIGTERM)
            stopped = time.monotonic()
            time.sleep(0.02)
            status, said = ask(port, "/readyz")
            assert (status, said["reasons"]) == (503, ["the server is stopping"])
            assert ask(port, "/v1/recommend", {"user_id": "u001"})[0] == 200  # until the load balancer knows
            while ask(port, "/livez")[0]:
                assert time.monotonic() < stopped + drain + 60
            assert time.monotonic() > stopped + drain and server.poll() is None  # no new connections; the request runs
            print(file=server.stdin, flush=True)
            thread.join()
            assert running == [(200, {"items": [], "model": running[0][1]["model"]})]
            assert server.wait(60) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        finally:
            server.kill()
