"""The HTTP server: lists, events that change the next list, changes of records, limits, keys, errors."""

import base64
import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import chain
from urllib.parse import quote

import pytest
from small import small_config, small_dataset
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.cli.app import app
from anyrec.core.config import ServingConfig
from anyrec.core.contracts import Encoder
from anyrec.core.errors import Fault, InputError, OutputError
from anyrec.core.time_limit import check_time
from anyrec.pipeline.pipeline import Pipeline
from anyrec.recommender import Recommender
from anyrec.serving.http import answers
from anyrec.serving.http.app import make_app
from anyrec.serving.http.host import MOST_WRITES, Host
from anyrec.serving.http.keys import new_key, read_keys
from anyrec.serving.http.run import check_address, listen
from anyrec.serving.live.event_log import EventLog
from anyrec.serving.live.query import Listing, Query
from anyrec.serving.live.served import Served
from anyrec.serving.live.service import Service
from anyrec.serving.live.variants import Variants
from anyrec.serving.live.warm_up import load_encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = small_config(name="shop", features={"history": {"block": "mean"}})
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    return fitted.save(tmp_path_factory.mktemp("models") / "shop")


@pytest.fixture(scope="module")
def recommender(folder):
    return Recommender.load(folder)


def client_of(recommender, logs=None, keys=None, folder=None, local=False, **limits):
    service = Service(recommender, ServingConfig(**limits), logs)
    return TestClient(make_app(service, keys=keys, folder=folder, local=local), raise_server_exceptions=False)


@pytest.fixture
def client(recommender):
    with client_of(recommender) as found:
        yield found


def listed(client, **asked):
    answer = client.post("/v1/recommend", json=asked)
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def seen(recommender, user):
    table = small_dataset().interactions
    return {i for u, i in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True) if u == user}


def test_a_known_user_gets_the_list_of_the_library(client, recommender):
    for user in ("u000", "u031"):
        table = recommender.recommend([user], 7)
        answer = client.post("/v1/recommend", json={"user_id": user, "k": 7}).json()
        assert [one["item_id"] for one in answer["items"]] == table["item_id"].to_pylist()
        assert [one["score"] for one in answer["items"]] == pytest.approx(table["score"].to_pylist(), rel=1e-5)
        assert [one["rank"] for one in answer["items"]] == list(range(1, 8))
        assert answer["fallback"] is False and answer["model"]["digest"] == recommender.model.model_id
        assert answer["recommendation_id"] and answer["latency_ms"]["total"] >= 0


def test_a_person_is_answered_from_a_record_a_history_both_or_nothing(client, recommender):
    record = {"categorical": {"job": "pilot"}, "text": {"bio": "I work as a pilot"}}
    expected = recommender.recommend([{"user_id": "new", **record}], 5)["item_id"].to_pylist()
    assert listed(client, user=record, k=5) == expected
    had = [{"user_id": "new", "item_id": item} for item in ("i003", "i004")]
    expected = recommender.recommend([{"user_id": "new", **record}], 5, interactions=had)["item_id"].to_pylist()
    assert listed(client, user=record, history=["i003", "i004"], k=5) == expected
    nobody = client.post("/v1/recommend", json={"k": 5}).json()
    assert len(nobody["items"]) == 5 and nobody["fallback"] and "nothing is known" in nobody["fallback_reason"]
    assert "user_id" not in nobody
    assert client.post("/v1/recommend", json={"user_id": "unknown"}).json()["fallback"]


def test_pages_follow_each_other_without_repeats_and_without_excluded_items(client):
    whole = listed(client, user_id="u001", k=12)
    assert [*listed(client, user_id="u001", k=5), *listed(client, user_id="u001", k=7, offset=5)] == whole
    left = listed(client, user_id="u001", k=10, exclude=whole[:2])
    assert left == whole[2:12]
    assert set(listed(client, user_id="u001", candidates=["i001", "i002"], include_seen=True)) == {"i001", "i002"}


@pytest.mark.parametrize("method", ["epsilon_greedy", "thompson"])
def test_pages_do_not_repeat_items_that_are_drawn_at_random(recommender, method):
    rule = {"type": "explore", "method": method, "positions": [1, 3, 6, 12], "pool": 12}
    rule |= {"epsilon": 1} if method == "epsilon_greedy" else {}
    drawn = recommender.with_config({"pipeline": {"rerank": {"rules": [rule]}}}, progress=False)
    with client_of(drawn) as client:
        lists = set()
        for n in range(30):
            user = {"user_id": f"u{n:03d}"}
            pages = [listed(client, **user, k=5, offset=offset, include_seen=True) for offset in (0, 5, 10)]
            whole = [*chain(*pages)]
            requests = [{**user, "include_seen": True, "k": 15}, {"user_id": "u050", "include_seen": True, "k": 15}]
            batch = client.post("/v1/recommend:batch", json={"requests": requests}).json()["results"]
            assert whole == [one["item_id"] for one in batch[0]["items"]] and len(set(whole)) == 15
            lists.add(tuple(pages[0]))
        assert len(lists) > 20
        nobody = [tuple(listed(client, k=15)) for _ in range(10)]
        assert len(set(nobody)) > 1
        pages = [listed(client, k=5, offset=offset, now=1_795_000_000) for offset in (0, 5, 10)]
        assert len(set(chain(*pages))) == 15


def test_filters_contexts_explanations_traces_and_fields(client):
    where = {"item.categorical.tags": {"contains": "pilot"}}
    answer = client.post("/v1/recommend", json={"user_id": "u002", "k": 4, "filter": where, "fields": True}).json()
    assert all("pilot" in one["fields"]["categorical"]["tags"] for one in answer["items"]) and answer["items"]
    named = client.post("/v1/recommend", json={"user_id": "u002", "fields": ["text.title"]}).json()
    assert all(list(one["fields"]) == ["text"] for one in named["items"])
    none = client.post("/v1/recommend", json={"user_id": "u002", "fields": ["text.none"]}).json()
    assert all(one["fields"] == {} for one in none["items"])
    explained = client.post("/v1/recommend", json={"user_id": "u002", "k": 2, "explain": True, "trace": True}).json()
    assert all(one["explanation"]["sentence"] for one in explained["items"]) and explained["trace"]
    wrong = client.post("/v1/recommend", json={"user_id": "u002", "filter": {"item.categorical.tag": {"eq": "x"}}})
    assert wrong.status_code == 422 and "tags" in wrong.json()["detail"]


def test_a_batch_answers_each_request_and_an_error_concerns_its_own_only(client):
    asked = [{"user_id": "u003"}, {"user_id": "u004", "candidates": ["gone"]}, {"user_id": "u003"}, {"user_id": "u005"}]
    results = client.post("/v1/recommend:batch", json={"requests": asked}).json()["results"]
    assert [set(one) == {"error"} for one in results] == [False, True, False, False]
    assert [one["item_id"] for one in results[0]["items"]] == [one["item_id"] for one in results[2]["items"]]
    assert [one["item_id"] for one in results[3]["items"]] == listed(client, user_id="u005")


def test_an_event_changes_the_next_list_at_once(client, recommender):
    before = listed(client, user_id="u006", k=5)
    event = {"event_id": "1", "user_id": "u006", "item_id": before[0]}
    assert client.post("/v1/events", json={"events": [event]}).json() == {"accepted": 1, "duplicates": 0}
    after = listed(client, user_id="u006", k=5)
    interactions = [{"user_id": "u006", "item_id": before[0]}]
    assert before[0] not in after
    assert after == recommender.recommend(["u006"], 5, interactions=interactions)["item_id"].to_pylist()


def test_an_event_counts_once_however_often_it_is_sent(client):
    popular = {one["item_id"]: one["count"] for one in client.get("/v1/popular?k=40").json()["items"]}
    event = {"event_id": "same", "user_id": "u007", "item_id": "i001"}
    found = client.post("/v1/events", json={"events": [event, event]}).json()
    assert found == {"accepted": 1, "duplicates": 1}
    assert client.post("/v1/events", json={"events": [event]}).json() == {"accepted": 0, "duplicates": 1}
    after = {one["item_id"]: one["count"] for one in client.get("/v1/popular?k=40").json()["items"]}
    assert after == {**popular, "i001": popular["i001"] + 1}


def counts(client):
    """The number of people who had each item, which the list of popular items and the items' records agree on."""
    popular = {one["item_id"]: one["count"] for one in client.get("/v1/popular?k=40").json()["items"]}
    assert client.get("/v1/items/i001").json()["users"] == popular["i001"]
    return popular


def test_popularity_counts_a_person_once_and_no_event_that_the_model_was_updated_with(recommender, tmp_path):
    new = [user for user in recommender.dataset.ids("user").to_pylist() if "i001" not in seen(recommender, user)][:5]
    old = next(user for user in recommender.dataset.ids("user").to_pylist() if "i001" in seen(recommender, user))
    users = [*new, *new, old]  # the second event of a person counts as little as one of a person who had the item
    events = [{"event_id": str(n), "user_id": user, "item_id": "i001"} for n, user in enumerate(users)]
    before = recommender.save(tmp_path / "before")
    with client_of(Recommender.load(before), tmp_path / "log", folder=before) as client:
        trained = counts(client)
        assert client.post("/v1/events", json={"events": events}).json()["accepted"] == len(users)
        after = {**trained, "i001": trained["i001"] + len(new)}
        assert counts(client) == after
        log = tmp_path / "log" / "events-000001.jsonl"
        updated = recommender.update(log, progress=False).save(before)
        assert client.post("/v1/reload").status_code == 200
        assert Recommender.load(updated).model.item_users.sum() == recommender.model.item_users.sum() + len(new)
        assert counts(client) == after
        assert client.post("/v1/rollback", json={}).status_code == 200
        assert counts(client) == after
    with client_of(Recommender.load(updated), tmp_path / "log") as client:
        assert counts(client) == after


def test_new_users_and_items_are_accepted_with_their_records_only(client):
    event = {"event_id": "a", "user_id": "ann", "item_id": "i100"}
    refused = client.post("/v1/events", json={"events": [event]})
    assert refused.status_code == 404 and len(refused.json()["faults"]) == 2
    record = {"categorical": {"tags": ["pilot"]}, "text": {"title": "Thing 100 for a pilot"}}
    event |= {"user": {"categorical": {"job": "pilot"}}, "item": record}
    assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
    assert client.get("/v1/items/i100").json()["text"] == record["text"]
    assert "i100" not in listed(client, user_id="ann", k=40) and len(listed(client, user_id="ann", k=40)) == 40
    assert "i100" in listed(client, user_id="u001", k=40, include_seen=True)
    assert client.get("/v1/users/ann").json()["categorical"] == {"job": "pilot"}


def test_records_are_added_and_removed_without_training(client):
    put = client.put("/v1/items", json={"items": [{"item_id": "i101", "text": {"title": "A thing for a baker"}}]})
    assert put.json() == {"items": 1, "warnings": []}
    assert "i101" in listed(client, user_id="u001", k=41, include_seen=True)
    assert client.delete("/v1/items/i101").status_code == 200
    assert "i101" not in listed(client, user_id="u001", k=41, include_seen=True)
    assert client.get("/v1/items/i101").status_code == client.delete("/v1/items/none").status_code == 404
    record = {"user_id": "bob", "categorical": {"job": "baker"}, "text": {"bio": "I work as a baker"}}
    by_record = listed(client, user={key: value for key, value in record.items() if key != "user_id"})
    client.put("/v1/users", json={"users": [record]})
    assert listed(client, user_id="bob") == by_record
    assert client.delete("/v1/users/bob").status_code == 200 and client.get("/v1/users/bob").status_code == 404
    misspelt = client.put("/v1/users", json={"users": [{"user_id": "eve", "categorical": {"jobb": "x"}}]})
    assert "jobb" in misspelt.json()["warnings"][0]


def test_what_came_since_the_training_counts_in_scores_searches_and_vectors(client, recommender):
    """As in lists: new users are known, and a user's records and events count."""
    record = {"categorical": {"job": "baker"}, "text": {"bio": "I work as a baker"}}
    had = [{"user_id": user, "item_id": item} for user in ("bob", "u001") for item in ("i003", "i004")]
    client.put("/v1/users", json={"users": [{"user_id": "bob", **record}]})
    client.post("/v1/events", json={"events": [{"event_id": str(n), **one} for n, one in enumerate(had)]})
    users = {
        "bob": recommender.read_records("user", [{"user_id": "bob", **record}], interactions=had[:2]),
        "u001": recommender.read_records("user", ["u001"], interactions=had[2:]),
    }
    pairs = [{"user_id": user, "item_id": item} for item in ("i007", "i008") for user in ("bob", "u001", "u002")]
    scores = client.post("/v1/score", json={"pairs": pairs}).json()["scores"]
    assert [{name: one[name] for name in ("user_id", "item_id")} for one in scores] == pairs
    by_pair = {(one["user_id"], one["item_id"]): one["score"] for one in scores}
    vectors = client.post("/v1/embed", json={"user_ids": ["u001", "bob"]}).json()["users"]
    assert [one["user_id"] for one in vectors] == ["u001", "bob"]
    for user, vector in zip(("u001", "bob"), vectors, strict=True):
        listing = recommender.recommend(users[user], 40, exclude_seen=False).to_pylist()
        scored = {one["item_id"]: one["score"] for one in listing}
        assert [by_pair[user, item] for item in ("i007", "i008")] == pytest.approx(
            [scored[item] for item in ("i007", "i008")], rel=1e-4
        )
        expected = recommender.embed_users(users[user])["embedding"][0].as_py()
        assert vector["embedding"] == pytest.approx(expected, abs=1e-5)
        asked = {"text": "thing", "user_id": user, "personal": 1, "k": 5}
        hits = [one["item_id"] for one in client.post("/v1/search", json=asked).json()["items"]]
        assert hits == recommender.search(text="thing", user=users[user], personal=1, k=5)["item_id"].to_pylist()
    untouched = recommender.score([{"user_id": "u002", "item_id": "i007"}])["score"][0].as_py()
    assert by_pair["u002", "i007"] == pytest.approx(untouched, rel=1e-5)
    unknown = {"pairs": [{"user_id": "nobody", "item_id": "gone"}]}
    assert len(client.post("/v1/score", json=unknown).json()["faults"]) == 2


def test_users_are_found_by_their_latest_records(client):
    client.put("/v1/users", json={"users": [{"user_id": "bob", "text": {"bio": "I paint zebras"}}]})
    client.put("/v1/users", json={"users": [{"user_id": "u001", "text": {"bio": "I paint ZEBRAS"}}]})
    found = client.get("/v1/users?q=zebras").json()
    assert found["total"] == 2 and [one["user_id"] for one in found["users"]] == ["bob", "u001"]
    assert found["users"][1] == {"user_id": "u001", "text": {"bio": "I paint ZEBRAS"}}
    assert client.get("/v1/users").json()["total"] == 61


def test_a_removed_item_is_unknown_until_it_is_put_again(client):
    record = client.get("/v1/items/i001").json()
    assert client.delete("/v1/items/i001").status_code == 200
    asked = [
        ("score", {"pairs": [{"user_id": "u001", "item_id": "i001"}]}),
        ("similar", {"item_ids": ["i001"]}),
        ("embed", {"item_ids": ["i001"]}),
    ]
    assert client.get("/v1/items/i001").status_code == client.delete("/v1/items/i001").status_code == 404
    assert client.get("/v1/items?q=i001").json() == {"items": [], "total": 0}
    for path, body in asked:
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 404 and "i001" in answer.json()["detail"], path
    found = client.post("/v1/similar", json={"item_ids": ["i002"], "k": 40}).json()["similar"][0]["items"]
    assert "i001" not in {one["item_id"] for one in found}
    client.put("/v1/items", json={"items": [{key: value for key, value in record.items() if key != "users"}]})
    assert client.get("/v1/items?q=i001").json()["total"] == 1
    assert all(client.post(f"/v1/{path}", json=body).status_code == 200 for path, body in asked)


def test_a_changed_record_changes_the_items_vector_its_lists_and_the_shown_record(client, recommender):
    record = {"item_id": "i001", "text": {"title": "Another thing"}, "categorical": {"tags": ["baker"]}}
    before = client.post("/v1/embed", json={"item_ids": ["i001", "i002"]}).json()["items"]
    expected = client.post("/v1/embed", json={"items": [record]}).json()["items"][0]["embedding"]
    assert client.put("/v1/items", json={"items": [record]}).json() == {"items": 1, "warnings": []}
    after = client.post("/v1/embed", json={"item_ids": ["i001", "i002"]}).json()["items"]
    assert after[0]["embedding"] == pytest.approx(expected, abs=1e-5)
    assert after[0]["embedding"] != pytest.approx(before[0]["embedding"], abs=1e-3) and after[1] == before[1]
    found = client.get("/v1/items/i001").json()
    assert found["text"] == record["text"] and found["categorical"] == record["categorical"]
    assert "continuous" not in found  # the record was replaced as a whole
    changed = recommender.add_items([record], replace_known=True)
    assert listed(client, user_id="u009", k=9) == changed.recommend(["u009"], 9)["item_id"].to_pylist()
    where = {"item.text.title": {"eq": "Another thing"}}
    assert listed(client, user_id="u009", filter=where, include_seen=True) == ["i001"]
    assert recommender.recommend(["u009"], 9).equals(recommender.recommend(["u009"], 9))


def test_received_events_are_there_after_a_restart_and_can_be_read_as_data(recommender, tmp_path):
    with client_of(recommender, tmp_path / "log") as client:
        item = {"item_id": "i102", "text": {"title": "A thing for a clerk"}}
        client.put("/v1/items", json={"items": [item]})
        client.delete("/v1/items/i000")
        events = [{"event_id": str(n), "user_id": "u008", "item_id": f"i{n:03d}", "timestamp": n} for n in range(1, 4)]
        client.post("/v1/events", json={"events": events})
        client.post("/v1/events", json={"events": [{"event_id": "x", "user_id": "cid", "item_id": "i102", "user": {}}]})
        before = [listed(client, user_id=user, k=30) for user in ("u008", "cid")]
    with client_of(recommender, tmp_path / "log") as client:
        assert [listed(client, user_id=user, k=30) for user in ("u008", "cid")] == before
        assert client.post("/v1/events", json={"events": events}).json()["duplicates"] == 3
    lines = [json.loads(line) for line in (tmp_path / "log" / "events-000001.jsonl").read_text().splitlines()]
    assert [line["item_id"] for line in lines] == ["i001", "i002", "i003", "i102"] and lines[0]["timestamp"] == 1


def test_a_forgotten_user_stays_forgotten_after_a_restart(recommender, tmp_path):
    event = {"event_id": "1", "user_id": "u009", "item_id": "i001"}
    with client_of(recommender, tmp_path / "log") as client:
        before = listed(client, user_id="u009", k=30)
        client.post("/v1/events", json={"events": [event]})
        client.post("/v1/events", json={"events": [{**event, "event_id": "2", "user_id": "dora", "user": {}}]})
        assert client.delete("/v1/users/u009").status_code == client.delete("/v1/users/dora").status_code == 200
        client.post("/v1/events", json={"events": [{**event, "event_id": "3", "user_id": "dora", "user": {}}]})
    with client_of(recommender, tmp_path / "log") as client:
        assert listed(client, user_id="u009", k=30) == before
        assert client.get("/v1/users/u009").json()["events"] == []
        assert len(client.get("/v1/users/dora").json()["events"]) == 1
        assert client.post("/v1/events", json={"events": [event]}).json() == {"accepted": 0, "duplicates": 1}


def test_a_change_that_a_variant_refuses_changes_nothing(recommender):
    class Refusing(Variants):
        def prepare(self, change):
            raise InputError(Fault("variant", "this is refused."))

    service = Service(recommender, ServingConfig())
    service.variants, before = Refusing([], None), service.served
    with pytest.raises(InputError, match="refused"):
        service.put_users({"eve": {"categorical": {"job": "baker"}}})
    assert service.served is before


def test_a_torn_line_is_cut_off_and_files_are_rotated(tmp_path):
    log = EventLog(tmp_path, segment_bytes=100)
    events = [{"event_id": str(n), "text": "x" * 30} for n in range(10)]
    for event in events:
        log.append([event])
    with pytest.raises(OutputError, match="writing here"):
        EventLogInOtherProcess(tmp_path)
    log.close()
    files = sorted(tmp_path.glob("events-*.jsonl"))
    assert len(files) > 3
    with files[-1].open("ab") as file:
        file.write(b'{"event_id": "torn", "te')
    again = EventLog(tmp_path)
    assert list(again.read()) == events
    again.append([{"event_id": "after"}])
    assert list(again.read())[-1] == {"event_id": "after"}
    again.close()


def EventLogInOtherProcess(folder):
    """Open a log in a thread, which a lock treats like another process."""
    found = []

    def run():
        try:
            EventLog(folder)
        except OutputError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise found[0]


def test_no_acknowledged_event_is_lost_when_the_process_is_killed(tmp_path):
    program = (
        "import sys; from pathlib import Path; from anyrec.serving.live.event_log import EventLog\n"
        "log = EventLog(Path(sys.argv[1]), segment_bytes=2000)\n"
        "for n in range(10**6):\n"
        "    log.append([{'event_id': f'{sys.argv[2]}-{n}'}]); print(f'{sys.argv[2]}-{n}', flush=True)\n"
    )
    acknowledged = []
    for round_ in range(5):
        command = [sys.executable, "-c", program, str(tmp_path), str(round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            acknowledged += [process.stdout.readline().strip() for _ in range(30 + 7 * round_)]
            os.kill(process.pid, signal.SIGKILL)
            acknowledged += process.stdout.read().split("\n")[:-1]
    log = EventLog(tmp_path)
    ids = [event["event_id"] for event in log.read()]
    log.close()
    assert set(acknowledged) <= set(ids) and len(ids) == len(set(ids))


def test_similar_popular_scores_embeddings_and_search(client, recommender):
    found = client.post("/v1/similar", json={"item_ids": ["i001", "i002"], "k": 3}).json()["similar"]
    assert [one["item_id"] for one in found[1]["items"]] == recommender.similar(["i002"], 3)["item_id"].to_pylist()
    pairs = [{"user_id": "u001", "item_id": "i001"}]
    score = client.post("/v1/score", json={"pairs": pairs}).json()["scores"][0]["score"]
    assert score == pytest.approx(recommender.score(pairs)["score"][0].as_py())
    found = client.post("/v1/embed", json={"user_ids": ["u001"], "items": [{"item_id": "x", "text": {"title": "T"}}]})
    assert len(found.json()["users"][0]["embedding"]) == len(found.json()["items"][0]["embedding"]) == 16
    hits = client.post("/v1/search", json={"text": "thing for a pilot", "k": 3, "fields": ["text.title"]}).json()
    assert len(hits["items"]) == 3 and all("text" in one["fields"] for one in hits["items"])
    assert client.get("/v1/items?q=pilot&k=2").json()["total"] == sum(
        "pilot" in title for title in recommender.dataset.items["text.title"].to_pylist()
    )
    assert client.post("/v1/similar", json={"item_ids": ["gone"]}).status_code == 404


def test_pictures_are_checked_before_they_are_read(client):
    from PIL import Image

    assert client.post("/v1/search", json={"image": "no base64!"}).status_code == 422
    assert client.post("/v1/search", json={"image": "é"}).status_code == 422
    assert client.post("/v1/search", json={"image": base64.b64encode(b"text").decode()}).status_code == 415
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    answer = client.post("/v1/search", json={"image": base64.b64encode(picture.getvalue()).decode()})
    assert answer.status_code == 422  # the items of this model have no pictures


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/recommend", b"{", 400, "not JSON"),
        ("/v1/recommend", b'{"k": 0}', 422, "/k"),
        ("/v1/recommend", b'{"k": 10000}', 422, "at most"),
        ("/v1/recommend", b'{"kk": 1}', 422, "kk"),
        ("/v1/recommend", b'{"user_id": 1.5}', 422, "user_id"),
        ("/v1/recommend", b'{"user": {"text": 5}}', 422, "text"),
        ("/v1/recommend", b'{"candidates": ["gone"]}', 404, "gone"),
        ("/v1/nothing", b"{}", 404, ""),
        ("/v1/events", b'{"events": []}', 422, "/events"),
        ("/v1/score", b'{"pairs": [{"user_id": "u001", "item_id": "gone"}]}', 404, "gone"),
    ],
)
def test_errors_are_problem_documents(client, path, body, status, words):
    answer = client.post(path, content=body, headers={"content-type": "application/json", "x-request-id": "r1"})
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status and document["request_id"] == "r1" and words in document["detail"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "body", "where", "words"),
    [
        ("POST", "recommend", {"filter": {"item.genres": {"eq": "a"}}}, "/filter/item.genres", ""),
        ("POST", "search", {"text": "x", "filter": {"user.text.bio": {"eq": "a"}}}, "/filter", "user_id"),
        ("POST", "recommend", {"candidates": ["gone"]}, "/candidates", "'gone'"),
        ("POST", "similar", {"item_ids": ["gone"]}, "/item_ids", "PUT /v1/items"),
        ("POST", "score", {"pairs": [{"user_id": "u001", "item_id": "gone"}]}, "/pairs", "'gone'"),
        ("POST", "embed", {"user_ids": ["gone"]}, "/user_ids", "PUT /v1/users"),
        ("POST", "embed", {"items": [{"item_id": "n", "text": 5}]}, "/items/0/text", ""),
        ("PUT", "items", {"items": [{"item_id": "n", "text": 5}]}, "/items/0/text", ""),
        ("PUT", "users", {"users": [{"user_id": "n", "text": 5}]}, "/users/0/text", ""),
        ("POST", "recommend", {"user": {"text": 5}}, "/user/text", ""),
        ("POST", "search", {"text": "x", "user": {"text": 5}}, "/user/text", ""),
        ("POST", "search", {"text": " "}, "/text", ""),
        ("POST", "search", {"text": "x", "space": "image"}, "/text", "leave space out"),
        ("POST", "recommend", {"kk": 1}, "/kk", "'k'"),
        ("POST", "score", {"pairs": [{"user_id": "u001", "item": "i001"}]}, "/pairs/0/item", "item_id"),
        (
            "POST",
            "events",
            {"events": [{"event_id": "a", "user_id": "n", "item_id": "i001", "user": {"text": 5}}]},
            "/events",
            "user/text",
        ),
        ("POST", "events", {"events": [{"event_id": "a", "user_id": "n", "item_id": "i001"}]}, "/events/0/user_id", ""),
    ],
)
def test_faults_name_places_of_the_request(client, method, path, body, where, words):
    answer = client.request(method, f"/v1/{path}", json=body).json()
    assert where in [one["where"] for one in answer["faults"]], answer
    assert words in str(answer["faults"])
    assert "--" not in answer["detail"] and "_data" not in answer["detail"]


def test_the_faults_of_a_batch_and_of_a_reload_name_no_options_and_no_folders(client, recommender, folder):
    asked = {"requests": [{"candidates": ["gone"]}, {"user": {"text": 5}}]}
    first, second = (one["error"] for one in client.post("/v1/recommend:batch", json=asked).json()["results"])
    assert first.startswith("/candidates: 'gone'") and second.startswith("/user/text: ") and "\n" not in first + second
    with client_of(recommender, folder=folder) as other:
        answer = other.post("/v1/reload", json={"name": "no_such_run"}).json()
    assert answer["faults"][0]["where"] == "/name" and str(folder.parent) not in str(answer)


def test_unknown_candidates_and_fields_are_left_out_with_a_warning(client):
    client.delete("/v1/items/i003")
    asked = {"user_id": "u001", "candidates": ["i001", "gone", "i003"], "include_seen": True, "fields": ["text.titel"]}
    answer = client.post("/v1/recommend", json=asked).json()
    assert [(one["item_id"], one["fields"]) for one in answer["items"]] == [("i001", {})]
    candidates, fields = answer["warnings"]
    assert candidates == "/candidates: 2 unknown or removed items were left out: 'gone', 'i003'."
    assert "'text.titel'" in fields and "text.title" in fields
    for path, body in (("similar", {"item_ids": ["i001"]}), ("search", {"text": "thing"})):
        assert client.post(f"/v1/{path}", json={**body, "fields": ["text.titel"]}).json()["warnings"] == [fields]
    assert client.post("/v1/recommend", json={**asked, "fields": True, "candidates": ["i001"]}).json()["warnings"] == []


def test_ids_can_have_slashes(client):
    ids = ["a/b", "a/b/image/photo", "a b?c#d", "ä/ö"]
    client.put("/v1/items", json={"items": [{"item_id": one, "text": {"title": one}} for one in ids]})
    client.put("/v1/users", json={"users": [{"user_id": one, "text": {"bio": one}} for one in ids]})
    for one in ids:
        for side, feature in (("item", "title"), ("user", "bio")):
            path = f"/v1/{side}s/{quote(one, safe='')}"
            found = client.get(path).json()
            assert (found[f"{side}_id"], found["text"]) == (one, {feature: one})
            assert client.get(f"{path}/image/photo").status_code == 404
            assert client.delete(path).json() == {"removed": one}
            assert client.get(path).status_code == 404


def test_probes_may_ask_for_headers_only(client):
    for path in ("/livez", "/readyz", "/"):
        assert client.head(path).status_code == 200


def test_the_allowed_methods_are_those_of_all_routes_of_a_path(client):
    assert client.patch("/v1/items").headers["allow"] == "GET, PUT"
    assert client.post("/v1/items/i001").headers["allow"] == "DELETE, GET"
    assert client.post("/v1/items/a/b").headers["allow"] == "DELETE, GET"


def test_sizes_are_limited(recommender):
    with client_of(recommender, max_body_bytes=2000, max_text=50, max_batch=2, max_k=20) as client:
        large = {"user": {"text": {"bio": "x" * 3000}}}
        assert client.post("/v1/recommend", json=large).status_code == 413

        def parts():
            yield b'{"user": {"text": {"bio": "'
            yield from [b"x" * 500] * 10

        assert client.post("/v1/recommend", content=parts()).status_code == 413
        assert client.post("/v1/recommend", json={"user": {"text": {"bio": "x" * 60}}}).status_code == 422
        assert client.post("/v1/recommend", json={"k": 15, "offset": 21}).status_code == 422
        assert client.post("/v1/recommend:batch", json={"requests": [{}] * 3}).status_code == 422
        assert client.post("/v1/recommend", json={"k": 20}).status_code == 200


def test_only_the_latest_events_of_a_user_are_kept(recommender):
    with client_of(recommender, events={"history": 2}) as client:
        events = [{"event_id": str(n), "user_id": "u001", "item_id": f"i{n:03d}"} for n in range(4)]
        client.post("/v1/events", json={"events": events})
        assert [one["item_id"] for one in client.get("/v1/users/u001").json()["events"]] == ["i002", "i003"]


def test_an_image_is_at_most_as_large_as_allowed(recommender):
    with client_of(recommender, max_image_bytes=1024) as client:
        image = base64.b64encode(b"\x89PNG" + b"0" * 2000).decode()
        assert client.post("/v1/search", json={"image": image}).status_code == 413


@pytest.mark.parametrize("flush", ["interval", "never"])
def test_events_are_in_the_file_with_any_flush(tmp_path, flush):
    log = EventLog(tmp_path, flush=flush, segment_bytes=1 << 20)
    log.append([{"event_id": "1"}])
    log.close()
    again = EventLog(tmp_path)
    assert list(again.read()) == [{"event_id": "1"}]
    again.close()


def test_the_page_of_the_api_describes_every_route_without_scripts(client):
    page = client.get("/docs").text
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    assert "<script" not in page and "Items the person had, oldest first." in page


def test_a_local_server_answers_no_other_names_and_no_other_websites(recommender):
    with client_of(recommender, local=True) as client:

        def status(method, path, host, origin=None):
            headers = {"host": host, **({} if origin is None else {"origin": origin})}
            return client.request(method, path, headers=headers).status_code

        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.2:80", "[::1]", "[::1]:8000"):
            assert status("GET", "/v1/models", host) == 200, host
            assert status("POST", "/v1/rollback", host) == 409, host  # no other version is there
            assert status("POST", "/v1/rollback", host, f"http://{host}") == 409, host
            for origin in ("http://evil.example", "null", "http://localhost:9", f"http://{host}.evil.example"):
                assert status("POST", "/v1/rollback", host, origin) == 403, origin
                assert status("DELETE", "/v1/items/i001", host, origin) == 403, origin
                assert status("GET", "/v1/models", host, origin) == 200, origin  # the browser keeps the answer
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a@127.0.0.1",
            "",
            "[",
            "8.8.8.8",
        ):
            for path in ("/", "/livez", "/v1/models"):
                assert status("GET", path, host) == 421, host
    with client_of(recommender) as client:
        assert client.get("/v1/models", headers={"host": "shop.example"}).status_code == 200


def test_a_port_in_use_is_said_before_a_model_is_loaded(folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port.*{port}.*in use"):
            listen("127.0.0.1", port)
        found = CliRunner().invoke(app, ["serve", "--model_path", "nothing here", "--port", str(port)])
        assert isinstance(found.exception, InputError) and "--port" in str(found.exception)
    with pytest.raises(InputError, match="--host"):
        listen("no such host.invalid", 0)
    for place in listen("localhost", port):
        place.close()


def test_keys_have_scopes_and_only_their_hashes_are_kept(recommender, tmp_path):
    file = tmp_path / "keys.json"
    reading, writing = new_key(file, "page", ["read"]), new_key(file, "shop", ["read", "write"])
    assert reading not in file.read_text() and file.stat().st_mode & 0o077 == 0
    with client_of(recommender, keys=read_keys(file)) as client:

        def status(path, secret=None, **body):
            headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
            return client.post(path, json=body, headers=headers).status_code

        event = {"event_id": "k", "user_id": "u001", "item_id": "i001"}
        assert client.get("/livez").status_code == 200
        assert status("/v1/recommend") == status("/v1/recommend", "wrong") == 401
        assert status("/v1/recommend", reading) == 200
        assert status("/v1/events", reading, events=[event]) == 403
        assert status("/v1/events", writing, events=[event]) == 200
        assert status("/v1/rollback", writing) == 403
        assert client.get("/metrics").status_code == 401
    with pytest.raises(InputError, match="name 'page'"):
        new_key(file, "page", ["read"])
    file.chmod(0o666)
    with pytest.raises(InputError, match="chmod 600"):
        read_keys(file)


def test_other_addresses_need_keys_unless_insecure(tmp_path):
    new_key(tmp_path / "k", "a", ["read"])
    keys = read_keys(tmp_path / "k")
    for host in ("127.0.0.1", "::1", "localhost"):
        check_address(host, None, False)
    for host in ("0.0.0.0", "10.1.2.3", "shop.example"):
        check_address(host, keys, False)
        check_address(host, None, True)
        with pytest.raises(InputError, match="api-key-file"):
            check_address(host, None, False)


def test_encoders_load_what_they_read_records_with_before_a_request_waits_for_it(recommender, monkeypatch, caplog):
    loaded = []

    def load(encoder):
        loaded.append(encoder.type)
        if encoder.type == "hashed":
            raise InputError(Fault("model", "no weights."))

    monkeypatch.setattr(Encoder, "load", load)
    load_encoders(Served.of(recommender))
    towers = recommender.model.scorer.user, recommender.model.scorer.item
    assert loaded == [one.type for tower in towers for one in tower.encoders] and "hashed" in loaded
    assert "no weights" in caplog.text


def test_a_model_is_exchanged_only_for_one_that_answers(folder, tmp_path, recommender):
    with client_of(recommender, folder=folder) as client:
        client.put("/v1/items", json={"items": [{"item_id": "i103", "text": {"title": "New"}}]})
        client.delete("/v1/items/i001")
        loaded = client.get("/v1/models").json()["serving"]["loaded"]
        assert client.post("/v1/rollback", json={}).status_code == 409
        assert client.post("/v1/reload", json={"name": "none"}).status_code == 422
        assert client.post("/v1/reload", json={"name": ".."}).status_code == 422
        assert client.get("/v1/models").json()["serving"]["loaded"] == loaded
        assert client.post("/v1/reload", json={}).status_code == 200
        assert client.get("/v1/models").json()["serving"]["loaded"] > loaded
        whole = listed(client, user_id="u010", k=41, include_seen=True)
        assert "i103" in whole and "i001" not in whole
        assert client.post("/v1/rollback", json={}).status_code == 200
        assert client.get("/v1/models").json()["serving"]["loaded"] == loaded
        assert listed(client, user_id="u010", k=41, include_seen=True) == whole


def test_the_memory_of_a_version_is_free_when_it_is_exchanged(folder, recommender):
    service = Service(recommender, ServingConfig())
    query = Query(user_id="u010", where={"item.categorical.tags": {"contains": "pilot"}})
    gc.disable()
    try:
        versions = []
        for _ in range(2):
            service.reload(folder)
            service.put_items({"i103": {"text": {"title": "New"}}})
            assert isinstance(service.lists([query])[0], Listing)
            assert service.served.changed_by({"index": {"type": "exact"}}).recommender is not None
            versions += [weakref.ref(service.served), weakref.ref(service.served.recommender.model)]
        service.reload(folder)
        assert service.previous is versions[2]()
        assert [version() is None for version in versions] == [True, True, False, False]
    finally:
        gc.enable()


def test_many_threads_get_the_answers_of_one(recommender):
    with client_of(recommender, threads=8, micro_batch=8) as client:
        users = [f"u{n:03d}" for n in range(40)] * 3
        alone = {user: listed(client, user_id=user) for user in users}
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda user: listed(client, user_id=user), users))
    assert together == [alone[user] for user in users]


def test_a_request_that_takes_too_long_is_answered_with_503(recommender, monkeypatch):
    waits = threading.Event()
    with client_of(recommender, timeout_seconds=0.05) as client:
        service = client.app.state.host.service
        monkeypatch.setattr(service, "popular", lambda *_: waits.wait(5))
        answer = client.get("/v1/popular")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert client.get("/livez").status_code == 200
        waits.set()


LONG = 100
"""Seconds after which a test that would wait for ever fails, also on a busy machine."""


class Slow:
    """Lets `add_items` of all recommenders wait until `go` is set."""

    def __init__(self, monkeypatch):
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        add_items = Recommender.add_items

        def slowly(recommender, *arguments, **options):
            self.begun.release()
            assert self.go.wait(LONG)
            return add_items(recommender, *arguments, **options)

        monkeypatch.setattr(Recommender, "add_items", slowly)


NEW = {"item_id": "i103", "text": {"title": "pilot"}, "categorical": {"tags": ["pilot"]}}


@pytest.mark.parametrize(
    "slow",
    [
        ("PUT", "/v1/items", {"items": [NEW]}),
        (
            "POST",
            "/v1/events",
            {
                "events": [
                    {"event_id": "e1", "user_id": "u030", "item_id": "i103", "item": {"text": {"title": "pilot"}}}
                ]
            },
        ),
    ],
)
def test_vectors_of_new_items_may_take_longer_than_the_limit_while_everything_else_goes_on(
    recommender, tmp_path, monkeypatch, slow
):
    service = Service(recommender, ServingConfig(timeout_seconds=0.05), tmp_path)
    hasty = make_app(service)
    service.config = ServingConfig()  # the same model, for clients who have time
    with TestClient(hasty) as limited, TestClient(make_app(service)) as client, ThreadPoolExecutor(1) as pool:
        gate = Slow(monkeypatch)
        answer = pool.submit(limited.request, slow[0], slow[1], json=slow[2])
        assert gate.begun.acquire(timeout=LONG)
        item, *_ = listed(client, user_id="u010")
        event = {"event_id": "e2", "user_id": "u010", "item_id": item}
        known = {"event_id": "e3", "user_id": "eve", "user": {}, "item_id": item, "item": {"text": {"title": "Old"}}}
        assert client.post("/v1/events", json={"events": [event, known]}).json()["accepted"] == 2
        assert item not in listed(client, user_id="u010")
        assert client.delete("/v1/items/i001").status_code == 200
        assert client.put("/v1/users", json={"users": [{"user_id": "max", "text": {"bio": "x"}}]}).status_code == 200
        assert client.delete("/v1/users/eve").status_code == 200
        everything = {"user_id": "u010", "k": 41, "include_seen": True}
        assert {"i103", "i001"}.isdisjoint(listed(client, **everything))
        time.sleep(0.2)  # longer than the limit
        assert not answer.done()
        gate.go.set()
        assert answer.result().status_code == 200
        whole = listed(client, **everything)
        assert "i103" in whole and "i001" not in whole and item not in listed(client, user_id="u010")
        assert client.get("/v1/users/max").json()["text"] == {"bio": "x"}
    with client_of(recommender, tmp_path) as again:  # the log has the changes in the same order
        assert listed(again, **everything) == whole


def test_changes_and_events_are_checked_in_threads_so_that_the_event_loop_stays_free(client, monkeypatch):
    threads, check = [], Host.check
    monkeypatch.setattr(Host, "check", lambda *args: threads.append(threading.current_thread().name) or check(*args))
    client.put("/v1/items", json={"items": [{"item_id": "i200"}]})
    client.put("/v1/users", json={"users": [{"user_id": "u200"}]})
    client.post("/v1/events", json={"events": [{"event_id": "200", "user_id": "u200", "item_id": "i200"}]})
    assert [name.split("_")[0] for name in threads] == ["write", "write", "model"]


def test_changes_that_would_wait_too_long_are_refused(recommender, monkeypatch):
    items = [f"i2{n:02d}" for n in range(MOST_WRITES + 1)]
    with client_of(recommender) as client, ThreadPoolExecutor(len(items)) as pool:
        gate = Slow(monkeypatch)
        putting = [pool.submit(client.put, "/v1/items", json={"items": [NEW | {"item_id": item}]}) for item in items]
        done, waiting = wait(putting, return_when=FIRST_COMPLETED)
        gate.go.set()
        (refused,) = [one.result() for one in done]
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert {one.result().status_code for one in waiting} == {200}
        whole = listed(client, user_id="u010", k=60, include_seen=True)
        assert len(set(items) & set(whole)) == MOST_WRITES


def test_a_model_is_exchanged_with_what_changed_while_it_was_loaded(folder, recommender, monkeypatch):
    with client_of(recommender, folder=folder) as client, ThreadPoolExecutor(1) as pool:
        client.put("/v1/items", json={"items": [NEW]})
        gate = Slow(monkeypatch)
        answer = pool.submit(client.post, "/v1/reload", json={})
        assert gate.begun.acquire(timeout=LONG)
        assert client.delete("/v1/items/i001").status_code == 200
        assert client.put("/v1/users", json={"users": [{"user_id": "max", "text": {"bio": "x"}}]}).status_code == 200
        gate.go.set()
        assert answer.result().status_code == 200
        whole = listed(client, user_id="u010", k=41, include_seen=True)
        assert "i103" in whole and "i001" not in whole
        assert client.get("/v1/users/max").json()["text"] == {"bio": "x"}


def test_an_answer_is_of_the_version_that_made_its_list(recommender):
    """Records and the model change after a request was read: the answer names the version, and has its records."""

    class Changing(Service):
        def lists(self, queries):
            self.put_items({"i104": {"text": {"title": "New"}}})
            self.served = replace(self.served, digest="another")
            return super().lists(queries)

    service = Changing(recommender, ServingConfig())
    with TestClient(make_app(service)) as client:
        asked = {"user_id": "u001", "k": 41, "filter": {"item.text.title": {"eq": "New"}}, "fields": True}
        one = client.post("/v1/recommend", json=asked).json()
        service.served = Served.of(recommender)
        several = client.post("/v1/recommend:batch", json={"requests": [asked]}).json()["results"]
        for answer in (one, *several):
            assert answer["items"][0]["fields"] == {"text": {"title": "New"}}
            assert answer["model"]["digest"] == "another"


def test_popular_items_and_models_are_of_the_version_that_the_answer_names(recommender):
    """Another version serves while the items are counted: without an item that had been put into the former one."""

    class Changing(Service):
        def popular(self, served, k):
            self.previous, self.served = self.served, Served.of(recommender)
            return super().popular(served, k)

    service = Changing(recommender, ServingConfig())
    with TestClient(make_app(service)) as client:
        client.put("/v1/items", json={"items": [NEW]})
        service.served = replace(service.served, digest="former")
        answer = client.get("/v1/popular?k=100").json()
        assert (answer["model"]["digest"], len(answer["items"])) == ("former", 41)
        assert len(client.get("/v1/popular?k=100").json()["items"]) == 40
        service.previous = replace(service.served, digest="former")
        models = client.get("/v1/models").json()
        assert (models["serving"]["digest"], models["previous"]["digest"]) == (recommender.model.model_id, "former")


def test_the_figures_have_the_sizes_of_the_index_and_of_the_log(recommender, tmp_path):
    def figures(client):
        lines = (line.split() for line in client.get("/metrics").text.splitlines() if line.startswith("anyrec_"))
        return {name: float(value) for name, value in lines}

    indexed = recommender.with_config({"index": {"type": "faiss"}}, progress=False)
    with client_of(indexed, tmp_path) as client:
        assert figures(client)["anyrec_event_log_bytes"] == 0
        client.post("/v1/recommend", json={})
        client.post("/v1/events", json={"events": [{"event_id": "1", "user_id": "u001", "item_id": "i001"}]})
        found = figures(client)
        assert found["anyrec_index_items"] == 40 and found["anyrec_index_bytes"] > 0
        assert found["anyrec_event_log_bytes"] == (tmp_path / "events-000001.jsonl").stat().st_size > 0
    with client_of(recommender) as client:  # few items are all scored, without an index
        found = figures(client)
        assert found["anyrec_index_items"] == found["anyrec_index_bytes"] == found["anyrec_event_log_bytes"] == 0


def test_every_answer_has_the_security_headers_and_the_figures_count_it(client):
    for answer in (client.get("/livez"), client.post("/v1/recommend", json={}), client.get("/v1/none")):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-request-id"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = client.get("/metrics").text
    assert 'anyrec_requests_total{method="POST",route="/v1/recommend",status="200"} 1.0' in text
    assert "anyrec_fallbacks_total 1.0" in text and "anyrec_items 40.0" in text
    assert client.get("/readyz").json()["ready"]


def test_requests_of_a_batch_are_scored_together_and_answered_as_alone(recommender, monkeypatch):
    persons = [{}, {"user_id": "nobody"}, {"user": {"categorical": {"job": "pilot"}}}, {"history": ["i001", "i002"]}]
    persons += [{"user_id": "u010"}, {"user_id": "u010", "user": {"categorical": {"job": "baker"}}}, {}]
    persons += [{"user": {"categorical": {"no": "such"}}}]  # what the model cannot read is said to this person alone
    with client_of(recommender) as client:
        alone = [client.post("/v1/recommend", json=one).json() for one in persons]
        scored = []
        answer = Pipeline.answer
        monkeypatch.setattr(Pipeline, "answer", lambda *given, **o: scored.append(1) or answer(*given, **o))
        together = client.post("/v1/recommend:batch", json={"requests": persons}).json()["results"]
        assert len(scored) > 2
        for one, other in zip(alone, together, strict=True):
            assert [item["item_id"] for item in one["items"]] == [item["item_id"] for item in other["items"]]
            assert (one["warnings"], one.get("fallback_reason")) == (other["warnings"], other.get("fallback_reason"))
        assert [len(one["warnings"]) for one in together] == [0] * 7 + [1]
        scored.clear()
        client.post("/v1/recommend:batch", json={"requests": persons[:7] * 100})
        assert len(scored) < 5


def test_ids_of_another_type_than_the_models_are_refused_everywhere(client):
    for method, path, body in [
        ("POST", "/v1/recommend", {"user_id": 7}),
        ("POST", "/v1/recommend", {"history": ["i001", 7]}),
        ("POST", "/v1/recommend:batch", {"requests": [{}, {"exclude": [7]}]}),
        ("POST", "/v1/score", {"pairs": [{"user_id": "u010", "item_id": 7}]}),
        ("POST", "/v1/events", {"events": [{"event_id": "e", "user_id": 7, "item_id": "i001", "user": {}}]}),
        ("PUT", "/v1/users", {"users": [{"user_id": 7}]}),
        ("PUT", "/v1/items", {"items": [{"item_id": 7}]}),
    ]:
        answer = client.request(method, path, json=body)
        assert answer.status_code == 422 and "texts; found 7" in answer.json()["detail"], path


def test_work_that_nobody_waits_for_any_more_is_stopped(recommender, monkeypatch):
    begun, stopped = threading.Event(), threading.Event()

    def endless(*_):
        begun.set()
        try:
            while True:
                check_time()
                time.sleep(0.005)
        finally:
            stopped.set()

    with client_of(recommender, timeout_seconds=0.1) as client:
        monkeypatch.setattr(client.app.state.host.service, "popular", endless)
        while not begun.is_set():  # a busy machine may be late to begin: then it is not begun at all
            assert client.get("/v1/popular").status_code == 503
        assert stopped.wait(LONG)


def test_answers_are_as_the_document_of_the_api_says(client):
    """Clients that are generated read every answer: no key is missing, and none is undocumented."""
    client.post("/v1/events", json={"events": [{"event_id": "a", "user_id": "u001", "item_id": "i001"}]})
    asked = [
        ("POST", "/v1/score", {"pairs": [{"user_id": "u001", "item_id": "i001"}]}),
        ("POST", "/v1/similar", {"item_ids": ["i001"], "k": 2, "fields": True}),
        ("POST", "/v1/search", {"text": "nurse", "k": 2, "fields": ["text.title"]}),
        ("POST", "/v1/embed", {"user_ids": ["u001"], "items": [{"item_id": "n", "text": {"title": "x"}}]}),
        ("GET", "/v1/popular", None),
        ("GET", "/v1/items/{item_id}", "/v1/items/i001"),
        ("GET", "/v1/items", None),
        ("GET", "/v1/users/{user_id}", "/v1/users/u001"),
        ("GET", "/v1/users", None),
        ("PUT", "/v1/items", {"items": [{"item_id": "n", "text": {"title": "x"}}]}),
        ("PUT", "/v1/users", {"users": [{"user_id": "n", "text": {"bio": "x"}}]}),
        ("DELETE", "/v1/items/{item_id}", "/v1/items/n"),
        ("DELETE", "/v1/users/{user_id}", "/v1/users/n"),
        ("GET", "/v1/models", None),
    ]
    document = client.get("/openapi.json").json()
    for method, path, given in asked:
        place, body = (given, None) if isinstance(given, str) else (path, given)
        answer = client.request(method, place, json=body)
        assert answer.status_code == 200, answer.text
        schema = document["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
        message = getattr(answers, schema["$ref"].rpartition("/")[2])
        message.model_validate(answer.json(), strict=True)
        assert "maxItems" not in str(document["components"]["schemas"][message.__name__])
    page = client.get("/docs").text
    for name, message in document["components"]["schemas"].items():
        assert all(f"<code>{key}</code>" in page for key in message.get("properties", {})), name
    assert document["components"]["schemas"]["Event"]["properties"]["user_id"]["type"] == "string"
    assert "from 1, 1,000 at most, default 10" in page
