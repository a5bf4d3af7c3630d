"""The hook for any reranker, against a real server on this machine."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from asked import ask, lists_of, make

from anyrec.core.errors import AnyrecError

ITEMS = {"text.title": ["one", "two", "three", None], "continuous.price": [4.0, 3.0, 2.0, 1.0]}
USERS = {"user_id": ["u", "v"], "continuous.age": [20.0, None], "text.bio": ["a", "b"]}
BEFORE = [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)], [(3, 2.0), (2, 1.0)]


@pytest.fixture
def server():
    """Answers with what `server.answer(document)` returns: bytes, or anything JSON; keeps what was posted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.posted.append(document)
            found = self.server.answer(document)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(self.server.status)
            if self.server.status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            try:
                for part in self.server.pieces(body):
                    self.wfile.write(part)
            except OSError:
                pass  # the caller has given up

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.posted, server.status, server.pieces = [], 200, lambda body: [body]
    server.answer = cheapest_first
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def cheapest_first(document):
    return {
        "orders": [
            [item["item_id"] for item in sorted(one["items"], key=lambda item: item["continuous"]["price"])]
            for one in document["requests"]
        ]
    }


def asked(server, **options):
    request = ask(ITEMS, USERS, context={"hour": 9})
    rule = make("http", url=f"http://127.0.0.1:{server.server_port}/rerank?by=price", **options)
    rule.check(request.model)
    return rule.apply(request, lists_of(*BEFORE), 2)


def test_the_order_comes_from_the_endpoint(server):
    after = asked(server)
    assert after.items.tolist() == [[3, 2, 1, 0], [3, 2, -1, -1]]
    assert after.scores[0].tolist() == [1, 2, 3, 4] and np.isinf(after.scores[1, 2:]).all()


@pytest.mark.parametrize("users, posts", [(1, 2), (2, 1), (100, 1)])
def test_records_and_scores_are_sent(server, users, posts):
    asked(server, users=users)
    assert len(server.posted) == posts
    requests = [one for document in server.posted for one in document["requests"]]
    assert server.posted[0]["k"] == 2 and server.posted[0]["context"] == {"hour": 9}
    assert requests[0]["user"] == {"user_id": "u", "continuous": {"age": 20.0}, "text": {"bio": "a"}}
    assert requests[1]["user"] == {"user_id": "v", "text": {"bio": "b"}}
    assert requests[1]["items"] == [
        {"item_id": "i3", "continuous": {"price": 1.0}, "score": 2.0},
        {"item_id": "i2", "text": {"title": "three"}, "continuous": {"price": 2.0}, "score": 1.0},
    ]


def test_only_the_features_named_are_sent_and_only_the_first_candidates(server):
    after = asked(server, user_features=[], item_features=["item.continuous.price"], candidates=2)
    sent = server.posted[0]["requests"][0]
    assert sent["user"] == {"user_id": "u"} and sent["items"][0] == {
        "item_id": "i0",
        "continuous": {"price": 4.0},
        "score": 4.0,
    }
    assert after.items.tolist() == [[1, 0, 2, 3], [3, 2, -1, -1]]


def test_candidates_that_the_answer_does_not_name_come_after(server):
    server.answer = lambda document: {"orders": [["i2"] for _ in document["requests"]]}
    assert asked(server).items.tolist() == [[2, 0, 1, 3], [2, 3, -1, -1]]


@pytest.mark.parametrize(
    "answer, said",
    [
        (b"not json", "did not answer with JSON"),
        (b"\xff\xfe", "did not answer with JSON"),
        ([["i0"]], "expected"),
        ({"orders": []}, "a list of item ids for each of 1 users"),
        ({"orders": ["i0"]}, "not a list of item ids"),
        ({"orders": [[1, 2]]}, "not a list of item ids"),
        ({"orders": [[["i0"]]]}, "not a list of item ids"),
        ({"orders": [["i0", "i0"]]}, "contains an item twice"),
        ({"orders": [["i77"]]}, "was not sent"),
        (b" " * (17 << 20), "more than 16 MB"),
    ],
)
def test_an_invalid_answer_fails_the_stage(server, answer, said):
    server.answer = lambda document: answer
    with pytest.raises(AnyrecError, match=said):
        asked(server)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_error_or_a_redirect_fails_the_stage_and_nothing_is_sent_elsewhere(server, status):
    server.status = status
    with pytest.raises(AnyrecError, match=f"status {status}"):
        asked(server)
    assert len(server.posted) == 1


def test_no_answer_in_time_fails_the_stage(server):
    server.answer = lambda document: time.sleep(1)
    with pytest.raises(AnyrecError, match="took more than"):
        asked(server, timeout_seconds=0.2)
    server.answer, server.pieces = cheapest_first, slowly
    with pytest.raises(AnyrecError, match=r"took more than 0\.3 s"):
        asked(server, timeout_seconds=0.3)


def slowly(body):
    """A byte now and then, until the caller hangs up: that it does is what ends the test."""
    while True:
        time.sleep(0.05)
        yield b" "


def test_no_server_at_all_fails_the_stage():
    request = ask(ITEMS, USERS)
    with pytest.raises(AnyrecError, match="did not answer"):
        make("http", url="http://127.0.0.1:9/").apply(request, lists_of(*BEFORE), 2)
