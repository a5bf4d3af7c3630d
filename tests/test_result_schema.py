"""Lists over HTTP against schemas/result.schema.json and the OpenAPI document, which must not contradict each other."""

import json

import jsonschema
import pytest
from conftest import ROOT
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.core.config import ServingConfig
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.messages import Explanation, Item, List, ListBatch, Reason, Step
from anyrec.serving.live.service import Service

SCHEMA = json.loads((ROOT / "schemas" / "result.schema.json").read_text(encoding="utf-8"))
MESSAGES = {
    "list": List,
    "lists": ListBatch,
    "recommendation": Item,
    "explanation": Explanation,
    "reason": Reason,
    "event": Step,
}
FILTER = {"item.continuous.price": {"gt": 45}}
EVERYTHING = {"explain": True, "trace": True, "fields": True, "k": 5}
ASKED = [
    {"user_id": "u001"},
    {"user_id": "u002", **EVERYTHING},
    {"user_id": "u003", **EVERYTHING, "filter": FILTER, "offset": 2},
    {"user_id": "unknown", **EVERYTHING},  # a fallback with its reason
    {"user": {"categorical": {"job": "nurse"}, "image": {"x": "y.png"}}, **EVERYTHING},  # warnings
    {"history": ["i001", "i002"], **EVERYTHING},
    {"candidates": ["i001", "none"], "k": 2},
    {"filter": {"item.continuous.price": {"gt": 1e9}}},  # no item is eligible
    {},
]


def part(name):
    return {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]}


@pytest.fixture(scope="module")
def client():
    pipeline = {"retrieve": {"sources": [{"type": "model", "k": 30}]}, "rerank": {"rules": [{"type": "diversity"}]}}
    recommender = Recommender.from_config(small_config(name="shop", pipeline=pipeline))
    with TestClient(make_app(Service(recommender.fit(small_dataset(), progress=False), ServingConfig()))) as client:
        yield client


def components(client):
    return client.get("/openapi.json").json()["components"]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_list_is_as_the_file_and_the_document_describe_it(client, asked):
    answer = client.post("/v1/recommend", json=asked)
    assert answer.status_code == 200
    found = answer.json()
    jsonschema.validate(found, part("list"))
    jsonschema.validate(found, {"$ref": "#/components/schemas/List", "components": components(client)})
    assert ("trace" in found) == asked.get("trace", False) and ("user_id" in found) == ("user_id" in asked)
    assert all(("explanation" in one) == asked.get("explain", False) for one in found["items"])
    assert found["fallback"] == ("fallback_reason" in found)
    if asked.get("trace"):
        assert found["trace"] and not any("user_id" in one for one in found["trace"])


def test_a_batch_with_errors_is_as_the_file_and_the_document_describe_it(client):
    wrong = {"user_id": "u001", "filter": {"item.text.nothing": {"eq": "x"}}}
    found = client.post("/v1/recommend:batch", json={"requests": [*ASKED, wrong]}).json()
    jsonschema.validate(found, part("lists"))
    jsonschema.validate(found, {"$ref": "#/components/schemas/ListBatch", "components": components(client)})
    assert [*found["results"][-1]] == ["error"] and len(found["results"]) == len(ASKED) + 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"results": [{"error": "x", "items": []}]}, part("lists"))


@pytest.mark.parametrize("name", MESSAGES)
def test_the_file_and_the_document_have_the_same_keys(name):
    """A key that is optional in one is optional in the other: over HTTP absent values are left out."""
    published, message = SCHEMA["$defs"][name], MESSAGES[name].model_json_schema()
    assert published["additionalProperties"] is False
    own = {"List": {"user_id", "fallback_reason", "trace"}}.get(message["title"], set())
    assert set(published["properties"]) == set(message["properties"])
    assert set(published["required"]) == set(message.get("required", [])) and own.isdisjoint(published["required"])
    for key, value in published["properties"].items():
        described = message["properties"][key]
        if "enum" in value:
            assert value["enum"] == described["enum"], key


def test_the_users_of_a_result_and_the_lists_of_the_server_share_their_parts(client):
    """What the command line returns for a user has the form of an item, an explanation and a trace over HTTP."""
    user = SCHEMA["properties"]["users"]["items"]["properties"]
    lists = SCHEMA["$defs"]["list"]["properties"]
    assert user["recommendations"]["items"] == lists["items"]["items"] == {"$ref": "#/$defs/recommendation"}
    assert user["trace"]["items"] == lists["trace"]["items"] == {"$ref": "#/$defs/event"}
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_files_schema_is_no_description_of_the_answers_by_mistake(client):
    """A client that validates an answer against the whole file gets an error at once, and not by chance."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(client.post("/v1/recommend", json={}).json(), SCHEMA)
