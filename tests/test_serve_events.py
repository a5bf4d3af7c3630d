"""Events over HTTP are interactions of the data format: ratings, labels and times count as they do in data."""

import json

import pytest
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ServingConfig
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.live.service import Service


@pytest.fixture(scope="module")
def recommender():
    config = small_config(features={"history": {"block": "mean"}}, data={"min_rating": 3}, training={"epochs": 1})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.fixture
def client(recommender, tmp_path):
    service = Service(recommender, ServingConfig(), tmp_path / "log")
    with TestClient(make_app(service), raise_server_exceptions=False) as found:
        yield found


def listed(client, **asked):
    answer = client.post("/v1/recommend", json=asked)
    assert answer.status_code == 200, answer.text
    return [(item["item_id"], item["score"]) for item in answer.json()["items"]]


EVENTS = [
    {"item_id": "i001", "timestamp": "2026-05-03T10:00:00+02:00", "rating": 5},
    {"item_id": "i002", "timestamp": 1777881600.25, "rating": 1},
    {"item_id": "i003", "timestamp": "2026-05-05", "label": 0},
    {"item_id": "i004", "timestamp": "2026-05-01T00:00:00Z", "rating": 1, "label": 1, "weight": 2.5},
    {"item_id": "i005", "timestamp": "2026-05-06T01:02:03.5Z", "rating": 4, "weight": 0, "context": {"screen": 6}},
]


def test_events_are_read_as_the_interactions_of_a_request(client, recommender):
    events = [{"event_id": str(n), "user_id": "new", "user": {}, **one} for n, one in enumerate(EVENTS)]
    assert client.post("/v1/events", json={"events": events}).json() == {"accepted": len(EVENTS), "duplicates": 0}
    request = {"user_data": [{"user_id": "new"}], "interactions": [{"user_id": "new", **one} for one in EVENTS]}
    wanted = recommender.recommend(request, 40)
    assert [item for item, _ in listed(client, user_id="new", k=40)] == wanted["item_id"].to_pylist()
    assert [score for _, score in listed(client, user_id="new", k=40)] == pytest.approx(wanted["score"].to_pylist())
    liked = [{"user_id": "new", "item_id": one["item_id"]} for one in EVENTS]
    other = recommender.recommend({**request, "interactions": liked}, 40)
    assert other["score"].to_pylist() != wanted["score"].to_pylist(), "ratings and labels count"


def test_the_log_keeps_all_that_training_reads_of_an_event(client, tmp_path):
    events = [{"event_id": str(n), "user_id": "u001", **one} for n, one in enumerate(EVENTS)]
    client.post("/v1/events", json={"events": events})
    lines = [json.loads(line) for line in (tmp_path / "log" / "events-000001.jsonl").read_text().splitlines()]
    for line, event in zip(lines, EVENTS, strict=True):
        assert {name: value for name, value in event.items() if name != "timestamp"}.items() <= line.items()
    assert [line["timestamp"] for line in lines[:4]] == [1777795200, 1777881600.25, 1777939200, 1777593600]


EMPTY = [{}, {"text": {}}, {"text": {"bio": None}, "categorical": {"job": None}}]


@pytest.mark.parametrize("record", EMPTY)
def test_a_record_without_a_value_replaces_none(client, record):
    bio = {"text": {"bio": "I work as a clerk"}}
    client.put("/v1/users", json={"users": [{"user_id": "u001", **bio}, {"user_id": "new", **bio}]})
    users = ["u000", "u001", "new"]  # trained, changed and added
    before = [client.get(f"/v1/users/{user}").json() for user in users]
    answer = client.put("/v1/users", json={"users": [{"user_id": user, **record} for user in [*users, "bare"]]})
    assert answer.status_code == 200
    events = [{"event_id": user, "user_id": user, "item_id": "i001", "user": record} for user in users]
    assert client.post("/v1/events", json={"events": events}).status_code == 200
    after = [client.get(f"/v1/users/{user}").json() for user in users]
    assert [one | {"events": []} for one in after] == before
    assert client.get("/v1/users/bare").status_code == 200, "it was unknown, so it is added"
    item = client.get("/v1/items/i002").json()
    assert client.put("/v1/items", json={"items": [{"item_id": "i002", "text": {"title": None}}]}).status_code == 200
    assert client.get("/v1/items/i002").json() == item


def test_times_of_requests_are_texts_or_seconds(client):
    user = {"user_id": "u002", "k": 5}
    assert listed(client, now="2026-05-01T12:00:00Z", **user) == listed(client, now=1777636800, **user)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("timestamp", "yesterday", "'yesterday' is not a time. Write it as 2024-05-17T12:30:00Z"),
        ("timestamp", 1777636800000, "It looks like milliseconds since 1970: divide it by 1,000."),
        ("timestamp", "2026-02-30", "'2026-02-30' is not a time"),
        ("timestamp", "9000-01-01", "is not a time of the years 1 to 5138"),
        ("label", 2, "less than or equal to 1"),
        ("label", False, "valid integer"),
        ("timestamp", True, "valid number"),
        ("weight", -1, "greater than or equal to 0"),
        ("rating", "5", "number"),
    ],
)
def test_an_invalid_interaction_is_refused_with_its_place(client, key, value, message):
    event = {"event_id": "1", "user_id": "u001", "item_id": "i001", key: value}
    answer = client.post("/v1/events", json={"events": [event]})
    (error,) = answer.json()["faults"]
    assert answer.status_code == 422 and error["where"].startswith(f"/events/0/{key}")
    assert message in f"{error['what']} {error.get('hint', '')}", error
