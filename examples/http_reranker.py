"""An endpoint for the rule `http` that lets a chat model on this machine reorder lists.

    python examples/http_reranker.py --port 8001 --chat http://127.0.0.1:8000/v1/chat/completions --model my-model

For each user in the posted request it writes a prompt and returns the order of the model's answer. See docs/rules.md.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

PROMPT = """You order recommendations. User: {user}
Context: {context}
Candidates, one per line, in their present order:
{items}
Answer with nothing but a JSON list of the item_id of the {k} best, best first."""


def order(one: dict[str, Any], document: dict[str, Any], chat: str, model: str) -> list[Any]:
    """Return the ids of one user's candidates in the model's order, without ids that are invented or repeated."""
    items = "\n".join(json.dumps(item) for item in one["items"])
    prompt = PROMPT.format(
        user=json.dumps(one["user"]), context=json.dumps(document["context"]), items=items, k=document["k"]
    )
    body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
    request = Request(chat, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        said = json.load(answer)["choices"][0]["message"]["content"]
    named = json.loads(said[said.index("[") : said.rindex("]") + 1])
    sent = {item["item_id"] for item in one["items"]}
    return [item for item in dict.fromkeys(named) if item in sent]


def make_server(port: int, chat: str, model: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                orders = [order(one, document, chat, model) for one in document["requests"]]
            except (OSError, ValueError, LookupError, TypeError) as error:
                self.send_error(502, f"{type(error).__name__}: the chat model gave no order")
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"orders": orders}).encode())

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--chat", required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    make_server(options.port, options.chat, options.model).serve_forever()
