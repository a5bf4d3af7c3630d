"""docs/rules.md is true: every example shows what it says, every rule, operator and option of the language is in it."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from asked import ask, lists_of, make, registry
from conftest import ROOT

from anyrec.core.errors import AnyrecError
from anyrec.pipeline.conditions.conditions import Condition
from anyrec.pipeline.conditions.syntax import GROUPS, OPERATORS

sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "examples"))
import http_reranker
import rules_examples

PAGE = (ROOT / "docs/rules.md").read_text()


def test_the_examples_of_the_page_on_rules_are_current():
    assert len(rules_examples.EXAMPLE.findall(PAGE)) >= 13
    assert rules_examples.made(PAGE) == PAGE


def test_every_rule_has_an_example_and_every_operator_is_explained():
    shown = set(re.findall(r'^\{"type": "(\w+)"', PAGE, re.MULTILINE)) | {"http"}
    assert shown == {plugin.type for plugin in registry().plugins("rule") if plugin.origin.startswith("rules/")}
    for word in (*GROUPS, *OPERATORS):
        assert f"`{word}`" in PAGE


def test_conditions_and_configs_shown_are_well_formed():
    for block in re.findall(r"```(?:json)?\n(\{.*?)\n```", PAGE, re.DOTALL):
        document = json.loads(block)
        for rule in document.get("pipeline", {}).get("rerank", {}).get("rules", []):
            registry().params("rule", rule["type"], {name: value for name, value in rule.items() if name != "type"})
        if any(name.startswith("item.") for name in document):
            Condition(document)


@pytest.fixture
def chat():
    """A chat endpoint that answers with `chat.says(prompt)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = self.server.says(body["messages"][0]["content"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": said}}]}).encode())

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    reranker = http_reranker.make_server(0, f"http://127.0.0.1:{server.server_port}/chat", "any")
    reranker.RequestHandlerClass.log_message = lambda *arguments: None
    threads = [threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}) for one in (server, reranker)]
    for thread in threads:
        thread.start()
    server.url = f"http://127.0.0.1:{reranker.server_port}/rerank"
    yield server
    for one, thread in zip((server, reranker), threads, strict=True):
        one.shutdown()
        thread.join()
        one.server_close()


def test_the_example_with_a_chat_model_orders_by_what_the_model_says(chat):
    prompts = []
    chat.says = lambda prompt: prompts.append(prompt) or 'Sure: ["i2", "made up", "i0", "i2"]'
    request = ask({"text.title": ["one", "two", "three"]}, {"categorical.job": ["pilot"]}, context={"device": "phone"})
    before = lists_of([(0, 3.0), (1, 2.0), (2, 1.0)])
    assert make("http", url=chat.url).apply(request, before, 2).items.tolist() == [[2, 0, 1]]
    assert '"job": "pilot"' in prompts[0] and '"title": "three"' in prompts[0] and "phone" in prompts[0]
    chat.says = lambda prompt: "I would rather not."
    with pytest.raises(AnyrecError, match="status 502"):
        make("http", url=chat.url).apply(request, before, 2)
    assert np.isfinite(before.scores).all()
