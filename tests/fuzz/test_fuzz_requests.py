"""Any request to a fitted model is answered in full or refused; the answer is JSON by the letter."""

import json

import pytest
from hostile import FUZZ, encode, mutated, mutated_bytes, refusal
from hypothesis import given
from hypothesis import strategies as st
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.serving.result import infer, read_request

REQUESTS = [
    {
        "user_data": [
            {"user_id": "u001"},
            {"user_id": "new", "categorical": {"job": "nurse"}, "text": {"bio": "I sail"}},
        ]
    },
    {
        "user_data": [{"user_id": "new"}],
        "interactions": [{"user_id": "new", "item_id": "i001", "timestamp": "2024-03-01"}],
    },
    {"user_data": [{"user_id": "new", "temporal": {"prev_interactions": ["i001", "i002"]}}]},
    {
        "user_data": [{"user_id": "u002"}],
        "item_data": [{"item_id": "new", "categorical": {"tags": ["nurse"]}, "continuous": {"price": 5}}],
    },
    {"interactions": [{"user_id": "u001", "item_id": "i002"}]},
    ["u001", "u002"],
    [{"user_id": "u003", "continuous": {"age": 40}}],
    {"user_id": "u004", "image": {"face": "missing.png"}},
]
TINY = {"epochs": 1, "batch_size": 128, "patience": None}
STAGED = {"retrieve": {"k": 20, "sources": [{"type": "model"}, {"type": "item_to_item"}, {"type": "popularity"}]}}
CONFIGS = {
    "history": small_config(training=TINY, features={"history": {"layers": 1, "window": 8}}),
    "pipeline": small_config(training=TINY, pipeline=STAGED),
    "ease": {"model": {"type": "ease"}},
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def model(request):
    return Recommender.from_config(CONFIGS[request.param]).fit(small_dataset(), progress=False)


@FUZZ
@given(data=mutated_bytes(mutated(st.sampled_from(REQUESTS)).map(encode)), k=st.integers(1, 50))
def test_a_request_is_answered_in_full_or_refused(model, data, k, tmp_path):
    path = tmp_path / "request.json"
    path.write_bytes(data)
    answers = []
    if refusal(lambda: answers.append(infer(model, read_request(model, path), k))) is not None:
        return
    result = json.loads(json.dumps(answers[0], allow_nan=False))
    for user in result["users"]:
        listed = user["recommendations"]
        assert [entry["rank"] for entry in listed] == list(range(1, len(listed) + 1))
        assert len({json.dumps(entry["item_id"]) for entry in listed}) == len(listed)
