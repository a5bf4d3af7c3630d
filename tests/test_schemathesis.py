"""The server against its own OpenAPI document, by schemathesis if it is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from anyrec.core.config import ServingConfig
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.live.service import Service

SCRIPT = Path(__file__).parent.parent / "scripts" / "fuzz_api.py"


@pytest.fixture(scope="module")
def recommender():
    return Recommender.from_config(small_config(name="shop")).fit(small_dataset(), progress=False)


@pytest.mark.slow
def test_the_server_keeps_to_its_document(recommender, tmp_path):
    if shutil.which("st") is None:
        pytest.skip("schemathesis is not installed (pip install 'anyrec[test]')")
    model = recommender.save(tmp_path / "model")
    command = [sys.executable, SCRIPT, "--model", model, "--requests", "30", "--each", "1", "--phases", "fuzzing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-5000:]


def test_the_document_has_the_limits_and_the_ids_of_this_server(recommender):
    document = make_app(Service(recommender, ServingConfig(max_k=50, max_batch=7, max_text=99))).openapi()
    messages = {name: one["properties"] for name, one in document["components"]["schemas"].items()}
    text = {"type": "string", "minLength": 1, "maxLength": 1000}
    assert text.items() <= messages["Pair"]["user_id"].items()
    assert text.items() <= messages["Recommend"]["history"]["items"].items()
    assert text.items() <= messages["Recommend"]["user_id"]["anyOf"][0].items()
    assert messages["Recommend"]["k"]["maximum"] == 50 and messages["Score"]["pairs"]["maxItems"] == 7
    assert messages["Search"]["text"]["anyOf"][0]["maxLength"] == 99
    assert "anyOf" in messages["Item"]["item_id"]  # answers keep both types
    for path, operations in document["paths"].items():
        for operation in operations.values():
            errors = {status: one["content"] for status, one in operation["responses"].items() if status >= "400"}
            if path == "/readyz":
                assert list(errors.pop("503")) == ["application/json"]  # the reasons, as with status 200
            assert all(list(content) == ["application/problem+json"] for content in errors.values()), path
    json.dumps(document, allow_nan=False)
