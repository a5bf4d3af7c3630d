"""The HTTP server against bodies that are no JSON, clients that stop, and logs that others have written."""

import asyncio
import json
import logging
import socket
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException

from anyrec import Dataset
from anyrec.core.config import ServingConfig
from anyrec.core.errors import DataError, InputError
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.guard import ID, _Body
from anyrec.serving.http.run import JsonLines, listen
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.query import Query
from anyrec.serving.live.service import Service

JSON = {"content-type": "application/json"}
PATHS = [
    ("POST", "recommend"),
    ("POST", "recommend:batch"),
    ("POST", "score"),
    ("POST", "similar"),
    ("POST", "search"),
    ("POST", "embed"),
    ("POST", "events"),
    ("PUT", "items"),
    ("PUT", "users"),
]
KEYS = ["user", "user_id", "k", "filter", "context", "history", "items", "events", "text", "categorical", "item_id"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from(["u001", "i001", "item.continuous.price", "1e999", "\0", "\ud800", "job"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def recommender():
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    return Recommender.from_config(small_config(training=training)).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def client(recommender):
    app = make_app(Service(recommender, ServingConfig()))
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def nested(depth, inner="1"):
    return ('{"a":' * depth + inner + "}" * depth).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"k": NaN}', "NaN"),
        (b'{"context": {"x": -Infinity}}', "infinity"),
        (b'{"context": {"x": 1e999}}', "out of range"),
        (b'{"context": {"x": "\\ud800"}}', "surrogate"),
        (b'{"filter": {"item.\\ud800": {"eq": "a"}}}', "surrogate"),
        (b'{"k": 1, "k": 2}', "'k' occurs more than once"),
        (b'{"user": {"text": {"bio": "a", "bio": "b"}}}', "'bio' occurs"),
        (b'{"k": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"user_id": "\xff"}', "byte 13 is not UTF-8"),
        ('{"k": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"k": 1', "not JSON"),
        (b'{"k": 1} x', "not JSON"),
        (b'{"context": ' + nested(100) + b"}", "100 levels"),
        (b'{"user": ' + nested(900) + b"}", "100 levels"),
        (nested(100_000), "100 levels"),
        (b"[" * 100_000, ""),
    ],
)
def test_what_programs_read_differently_is_no_json(client, body, said):
    answer = client.post("/v1/recommend", content=body, headers=JSON)
    assert answer.status_code == 400 and said in answer.json()["detail"], answer.text
    assert "Traceback" not in answer.text and "sys." not in answer.text


def test_a_byte_order_mark_and_98_levels_are_read(client):
    assert client.post("/v1/recommend", content=b'\xef\xbb\xbf{"k": 1}', headers=JSON).status_code == 200
    assert client.post("/v1/recommend", content=b'{"context": ' + nested(98) + b"}", headers=JSON).status_code == 200


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(PATHS), st.dictionaries(st.sampled_from(KEYS), VALUES) | VALUES)
def test_no_body_is_more_than_the_client_s_fault(client, path, value):
    method, name = path
    answer = client.request(method, f"/v1/{name}", content=json.dumps(value).encode(), headers=JSON)
    assert answer.status_code < 500, answer.text
    assert answer.status_code < 400 or answer.json()["detail"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_is_not_said_to_be_json_is_refused_with_the_header_to_send(client, kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post("/v1/recommend", content=b'{"k": 1}', headers=headers)
    assert answer.status_code == 415 and "content-type: application/json" in answer.json()["detail"]
    for good in ("application/json; charset=utf-8", "Application/JSON", "application/problem+json"):
        assert client.post("/v1/recommend", content=b'{"k": 1}', headers={"content-type": good}).status_code == 200


def test_a_compressed_body_is_refused_before_it_is_opened(client):
    answer = client.post("/v1/recommend", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert answer.status_code == 415 and "gzip" in answer.json()["detail"]


def test_a_value_of_a_wrong_type_is_one_fault_at_its_place(client):
    asked = {"user_id": 1.5, "history": [True, "i001", ""], "fields": 3}
    faults = client.post("/v1/recommend", json=asked).json()["faults"]
    assert [one["where"] for one in faults] == ["/user_id", "/history/0", "/history/2", "/fields"]
    assert "integer" in faults[0]["what"] and "string" in faults[0]["what"]


@pytest.mark.parametrize("path", ["recommend", "search"])
def test_a_fault_of_a_condition_is_within_the_key_filter(client, path):
    asked = {"text": "thing"} if path == "search" else {}
    for condition, place in (
        ({"all": [{"item.continuous.price": {"ltt": 1}}]}, "/filter/all/0/item.continuous.price/ltt"),
        ({"item.continuous.price": {"lt": None}}, "/filter/item.continuous.price/lt"),
        ({"item.categorical.tags": {"eq": "nurse"}}, "/filter/item.categorical.tags/eq"),
    ):
        answer = client.post(f"/v1/{path}", json={**asked, "filter": condition}).json()
        assert [one["where"] for one in answer["faults"]] == [place], answer


def test_warnings_on_records_name_places_of_the_request(client):
    answer = client.put("/v1/users", json={"users": [{"user_id": "n1"}, {"user_id": "n2", "text": {"boi": "x"}}]})
    assert [one.split(": ")[0] for one in answer.json()["warnings"]] == ["/users/1/text/boi"]
    answer = client.put("/v1/items", json={"items": [{"item_id": "n1", "text": {"titel": "x"}}]})
    assert answer.json()["warnings"][0].startswith("/items/0/text/titel: ")
    answer = client.post("/v1/embed", json={"items": [{"item_id": "n2", "text": {"tittle": "x"}}]})
    assert answer.json()["warnings"][0].startswith("/items/0/text/tittle: ")


def test_a_client_that_stops_sending_is_given_up_and_one_that_waits_is_not():
    async def receive(messages):
        if messages:
            return messages.pop(0)
        return await asyncio.sleep(0.2, {"type": "http.disconnect"})

    def read(*messages):
        waiting = list(messages)
        return _Body(lambda: receive(waiting), most=100, patience=0.05)

    async def stalled():
        body = read({"type": "http.request", "body": b"{", "more_body": True})
        await body()
        with pytest.raises(HTTPException) as error:
            await body()
        assert error.value.status_code == 408

    async def complete():
        body = read({"type": "http.request", "body": b"{}", "more_body": False})
        await body()
        assert (await body())["type"] == "http.disconnect"

    asyncio.run(stalled())
    asyncio.run(complete())


def test_of_two_servers_that_take_a_port_at_the_same_time_one_gets_it():
    (first,) = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with first, socket.create_connection(("127.0.0.1", port)), pytest.raises(InputError, match="in use"):
        listen("127.0.0.1", port)


def test_methods_of_clients_make_no_figures_of_their_own(client):
    for method in ("PROPFIND", "BREW", "get"):
        assert client.request(method, "/v1/nothing").status_code in (404, 405)
    figures = client.get("/metrics").text
    assert 'method="other"' in figures and "PROPFIND" not in figures and "BREW" not in figures


@pytest.mark.parametrize("wanted", ["é", "a b", "a\tb", "x" * 65, "a/b"])
def test_a_request_id_that_is_no_plain_word_is_replaced(client, wanted):
    assert not ID.fullmatch(wanted)
    given = client.get("/livez", headers={"x-request-id": wanted.encode("latin-1")}).headers["x-request-id"]
    assert ID.fullmatch(given) and given != wanted


def test_times_of_the_log_are_in_utc_whatever_the_zone_of_the_machine(monkeypatch):
    record = logging.LogRecord("x", logging.INFO, "", 0, "message", None, None)
    record.created = 1_795_000_000.25
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert json.loads(JsonLines().format(record))["time"] == "2026-11-18T11:06:40.250+00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("line", "said"), [("{broken", "line 2"), ("[1]", "line 2"), ('{"event_id": "b"}', "no 'item_id'")]
)
def test_a_line_of_the_log_that_is_no_event_is_named(recommender, tmp_path, line, said):
    event = {"event_id": "a", "user_id": "u001", "item_id": "i001", "timestamp": 1, "received": 1}
    (tmp_path / "events-000001.jsonl").write_text(f"{json.dumps(event)}\n{line}\n")
    with pytest.raises(DataError, match=said):
        Service(recommender, ServingConfig(), tmp_path)
    (tmp_path / "events-000001.jsonl").write_text(f"{json.dumps(event)}\n{line[:1]}")
    assert [one["event_id"] for one in read_events(tmp_path)] == ["a"]  # an incomplete last line is being written


def test_a_user_who_comes_back_is_there_after_a_restart_although_the_clock_was_set_back(
    recommender, tmp_path, monkeypatch
):
    service = Service(recommender, ServingConfig(), tmp_path)
    event = {"user_id": "u001", "timestamp": 1.0}
    service.receive([{**event, "event_id": "a", "item_id": "i001"}])
    service.remove_user("u001")
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    service.receive([{**event, "event_id": "b", "item_id": "i002"}])
    service.close()
    again = Service(recommender, ServingConfig(), tmp_path)
    again.receive([{**event, "event_id": "c", "item_id": "i003"}])
    assert [one["item_id"] for one in again.histories.of("u001")] == ["i002", "i003"]
    again.close()
    received = [one["received"] for one in read_events(tmp_path)]
    assert received == sorted(set(received))


def test_changes_of_records_are_the_same_after_a_restart(recommender, tmp_path):
    def thing(price):
        return {"categorical": {"tags": ["nurse", "all"]}, "continuous": {"price": price}}

    service = Service(recommender, ServingConfig(), tmp_path)
    for records in ({"n1": thing(10), "n2": thing(20)}, {"n1": thing(30), "i001": thing(5)}, {"n3": thing(1)}):
        service.put_items(records)
    service.put_users({"max": {"text": {"bio": "x"}}, "mia": {"text": {"bio": "y"}}})
    service.remove_items(["n2", "i002", "n3"])
    service.put_items({"n3": thing(2)})
    service.remove_user("mia")
    service.close()
    again = Service(recommender, ServingConfig(), tmp_path)
    for name in ("items", "users", "removed"):
        assert getattr(again.served, name) == getattr(service.served, name)
    before, after = (one.served.recommender.embed_items(["n1", "i001"]) for one in (service, again))
    np.testing.assert_allclose(before["embedding"].to_pylist(), after["embedding"].to_pylist(), atol=1e-5)
    again.close()


def test_a_start_computes_no_vectors_of_records_that_the_model_was_trained_on(recommender, tmp_path, monkeypatch):
    """After training on the log, lists are those of the model alone, with its learned vectors and its index."""
    service = Service(recommender, ServingConfig(), tmp_path / "log")
    base = service.served
    service.put_items(
        {
            "n1": {"text": {"title": "New"}, "continuous": {"price": 3}},
            "i001": {"text": {"title": "Changed"}, "categorical": {"tags": "one"}},
            "i002": {"temporal": {"restocked": ["2024-05-01"]}},
            "i003": base.records("item", ["i003"])[0],
        }
    )
    service.put_users({"u001": {"categorical": {"job": "pilot"}, "continuous": {"age": 5}}, "ann": {}})
    service.close()
    document = {}
    for side in ("user", "item"):
        ids = recommender.dataset.ids(side).to_pylist()
        records = zip(ids, base.records(side, ids), strict=True)
        document[f"{side}_data"] = [{f"{side}_id": key, **record} for key, record in records]
    pairs = small_dataset().interactions.select(["user_id", "item_id"]).to_pylist()
    (tmp_path / "data.json").write_text(json.dumps({**document, "interactions": pairs}))
    data = Dataset.read([tmp_path / "data.json", tmp_path / "log"])
    trained = Recommender.from_config(small_config(name="shop")).fit(data, progress=False)
    monkeypatch.setattr(Recommender, "add_items", lambda *_, **__: pytest.fail("vectors were computed"))
    again = Service(trained, ServingConfig(), tmp_path / "log")
    assert again.served.recommender is trained and len(again.served.items) == 4
    for user in ("u001", "u010", "ann"):
        (found,) = again.lists([Query(user_id=user, k=41, include_seen=True)])
        expected = trained.recommend([user], 41, exclude_seen=False)
        assert [one.item_id for one in found.items] == expected["item_id"].to_pylist()
    again.close()


def test_another_version_has_every_change_of_records_that_the_present_one_has(recommender, tmp_path):
    service = Service(recommender, ServingConfig())
    folder = recommender.save(tmp_path / "model")
    service.put_items({"n1": {"text": {"title": "Before"}}, "i001": {"text": {"title": "Changed"}}})
    service.put_users({"max": {"text": {"bio": "x"}}})
    service.remove_items(["i003"])
    title = ["text.title"]
    for exchange in (lambda: service.reload(folder), service.rollback, service.rollback):
        exchange()
        served = service.served
        assert served.records("item", ["n1", "i001"], title) == [
            {"text": {"title": "Before"}},
            {"text": {"title": "Changed"}},
        ]
        assert served.removed == {"i003"} and set(served.users) == {"max"}
    service.put_items({"i003": {"text": {"title": "Again"}}, "i001": {"text": {"title": "Later"}}})
    service.remove_user("max")
    service.rollback()
    assert not service.served.removed and not service.served.users
    assert service.served.records("item", ["i001"], title) == [{"text": {"title": "Later"}}]
    service.close()


def test_the_memory_of_long_conditions_is_not_kept(recommender):
    service = Service(recommender, ServingConfig())
    kept = []
    for values in (["nurse"], [f"x{n}" for n in range(5000)]):
        where = {"item.categorical.tags": {"overlaps": values}}
        (found,) = service.lists([Query(where=where, include_seen=True, k=40)])
        assert (len(found.items) > 0) == (values == ["nurse"])
        kept.append(service.served.filtered_by(where) is service.served.filtered_by(where))
    assert kept == [True, False]
