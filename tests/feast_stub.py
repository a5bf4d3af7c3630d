"""A stub of Feast's feature server: the two routes that are used, with answers of the shape that Feast 0.67 gave."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Stub(BaseHTTPRequestHandler):
    """Answers as its server says: `values` by id, or `answer` as it is, with `status`, once `answer_now` is set."""

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        asked, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        server.asked.append((self.path, asked, self.headers.get("Authorization")))
        server.answer_now.wait()
        body = b"" if self.path == "/push" else json.dumps(server.answer or self.features(asked)).encode()
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        server.answered += 1

    def features(self, asked):
        ids, names = asked["entities"]["user_id"], [one.split(":")[1] for one in asked["features"]][::-1]
        found = [[self.server.values.get(one, {}).get(name) for one in ids] for name in names]
        results = [{"values": ids, "statuses": ["PRESENT"] * len(ids)}]
        for values in found:
            results.append(
                {"values": values, "statuses": ["NOT_FOUND" if one is None else "PRESENT" for one in values]}
            )
        return {"results": results, "metadata": {"feature_names": ["user_id", *names]}}


@contextmanager
def feast_server() -> Iterator[Any]:
    """A stub that runs for the time of the block: its `url`, and what it was `asked`."""
    stub: Any = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    stub.asked, stub.values, stub.answer, stub.status = [], {}, None, 200
    stub.answered, stub.answer_now = 0, threading.Event()
    stub.answer_now.set()
    stub.handle_error = lambda *_: None  # a client that does not wait for the answer
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
    thread.start()
    stub.url = f"http://127.0.0.1:{stub.server_port}"
    try:
        yield stub
    finally:
        stub.answer_now.set()
        stub.shutdown()
        stub.server_close()
        thread.join()
