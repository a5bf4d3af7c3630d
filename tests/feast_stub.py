"""A stub of Feast's feature server: the two routes that are used, with answers of the shape that Feast 0.67 gave."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Stub(BaseHTTPRequestHandler):
    """Answers as its server's attributes say: `values` by id, or `answer` as it is, `status`, after `wait` seconds."""

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        asked, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        server.asked.append((self.path, asked, self.headers.get("Authorization")))
        time.sleep(server.wait)
        body = b"" if self.path == "/push" else json.dumps(server.answer or self.features(asked)).encode()
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
    stub.asked, stub.values, stub.answer, stub.status, stub.wait = [], {}, None, 200, 0.0
    stub.handle_error = lambda *_: None  # a client that does not wait for the answer
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
    thread.start()
    stub.url = f"http://127.0.0.1:{stub.server_port}"
    try:
        yield stub
    finally:
        stub.shutdown()
        stub.server_close()
        thread.join()
