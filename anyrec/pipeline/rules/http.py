"""Asks any reranker, an LLM among them, over HTTP."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from anyrec.core.deadline import Deadline
from anyrec.core.errors import AnyrecError
from anyrec.core.outside import Outside
from anyrec.data.ids import rows_of
from anyrec.model.fitted import ModelData
from anyrec.pipeline.conditions.features import check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.reorder import chosen_first, distinct_items

MOST_BYTES = 16 << 20
"""Of an answer."""


class Http(Rule):
    """Sends the user's and the candidates' records to an HTTP endpoint, which gives the order back.

    It sends data, personal data among them, to `url`; nothing is sent anywhere else, redirects and proxies included. docs/rules.md
    has the format, and an example with an LLM. A candidate that the answer does not name comes after the named ones. No answer
    in time, or one that is not understood, fails the stage: the pipeline goes on without it, or with `strict` raises.
    """

    type = "http"

    class Params(Rule.Params):
        url: Annotated[str, Outside("an address")] = Field(description="Where to: http://127.0.0.1:8000/rerank.")
        timeout_seconds: float = Field(2.0, ge=0.001, le=600, description="For the whole answer to one post.")
        candidates: int = Field(50, ge=1, le=1000, description="Candidates sent, the first of each list.")
        users: int = Field(1, ge=1, le=1024, description="Users in one post.")
        user_features: list[str] | None = Field(
            None, description="User features sent, as user.continuous.age; by default all."
        )
        item_features: list[str] | None = Field(
            None, description="Item features sent, as item.text.title; by default all."
        )

        @field_validator("url")
        @classmethod
        def _is_http(cls, url: str) -> str:
            parts = urlsplit(url)
            port_is_valid = parts.port is None or parts.port > 0  # the property raises ValueError beyond 65535
            if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
                raise ValueError("expected an address that begins with http:// or https://")
            return url

    def check(self, model: ModelData) -> None:
        faults = []
        for side in ("user", "item"):
            for n, name in enumerate(getattr(self.params, f"{side}_features") or ()):
                faults += check_feature(model, name, f"/{side}_features/{n}", side)
        raise_faults(faults)

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        if not lists.items.size:
            return lists
        users, sent = len(lists.items), min(self.params.candidates, lists.items.shape[1])
        chosen = np.full((users, sent), -1)
        for start in range(0, users, self.params.users):
            block = slice(start, min(start + self.params.users, users))
            document = self._document(request, lists, block, sent, k)
            self._read(self._post(document), request, lists.items[block, :sent], chosen[block])
        return chosen_first(lists, chosen)

    def _document(self, request: Request, lists: Lists, block: slice, sent: int, k: int) -> dict[str, Any]:
        """What is posted: records as in the dataset's JSON, less what is missing."""
        part = Lists(lists.items[block, :sent], lists.scores[block, :sent])
        distinct, places = distinct_items(part)
        items = _records(request.items.take(pa.array(distinct)), "item", self.params.item_features)
        users = _records(request.users.slice(block.start, block.stop - block.start), "user", self.params.user_features)
        return {
            "k": k,
            "context": request.context,
            "requests": [
                {
                    "user": user,
                    "items": [
                        {**items[place], "score": float(score)}
                        for place, row, score in zip(own, rows, scores, strict=True)
                        if row >= 0
                    ],
                }
                for user, own, rows, scores in zip(users, places, part.items, part.scores, strict=True)
            ],
        }

    def _post(self, document: dict[str, Any]) -> Any:
        """The answer's JSON. Raises AnyrecError."""
        parts = urlsplit(self.params.url)
        make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = make(parts.hostname or "", parts.port, timeout=self.params.timeout_seconds)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        deadline = Deadline(self.params.timeout_seconds)
        try:
            with deadline:
                body = json.dumps(document, default=str).encode()
                connection.connect()
                deadline.watch(connection.sock)
                connection.request(
                    "POST", path, body, {"Content-Type": "application/json", "Accept": "application/json"}
                )
                answer = connection.getresponse()
                if answer.status != 200:
                    raise AnyrecError(f"{self.params.url} answered with status {answer.status}, not 200")
                data = answer.read(MOST_BYTES + 1)
                deadline.left()
            if len(data) > MOST_BYTES:
                raise AnyrecError(f"{self.params.url} answered with more than {MOST_BYTES >> 20} MB")
            return json.loads(data)
        except TimeoutError:
            raise self._late() from None
        except (OSError, HTTPException) as error:
            if deadline.over():
                raise self._late() from None
            raise AnyrecError(f"{self.params.url} gave no answer ({type(error).__name__}: {error})") from None
        except ValueError as error:
            raise AnyrecError(f"{self.params.url} gave no JSON ({error})") from None
        finally:
            connection.close()

    def _late(self) -> AnyrecError:
        return AnyrecError(f"{self.params.url} took more than {self.params.timeout_seconds} s")

    def _read(self, answer: Any, request: Request, rows: np.ndarray, chosen: np.ndarray) -> None:
        """The orders of an answer, as places, into `chosen: (users, sent)`. rows: (users, sent) what was sent."""
        orders = answer.get("orders") if isinstance(answer, dict) else None
        if not isinstance(orders, list) or len(orders) != len(rows):
            raise AnyrecError(
                f'{self.params.url}: expected {{"orders": [...]}} with a list of item ids for each of {len(rows)} users'
            )
        ids = request.model.dataset.ids("item")
        for own, order, places in zip(rows, orders, chosen, strict=True):
            try:
                if not isinstance(order, list):
                    raise TypeError
                named = rows_of(pa.array(order, ids.type), ids)
            except (pa.ArrowException, TypeError):
                raise AnyrecError(f"{self.params.url}: an order is no list of item ids") from None
            where = {int(row): place for place, row in enumerate(own) if row >= 0}
            if len(set(named.tolist())) < len(named) or not all(row in where for row in named.tolist()):
                raise AnyrecError(f"{self.params.url}: an order names an item twice, or one that was not sent")
            places[: len(named)] = [where[row] for row in named.tolist()]


def _records(table: pa.Table, side: str, features: list[str] | None) -> list[dict[str, Any]]:
    """Records as in the dataset's JSON: `user_id`, and the features under their groups."""
    key = f"{side}_id"
    names = table.column_names if features is None else [key, *(name.split(".", 1)[1] for name in features)]
    records = []
    for row in table.select([name for name in dict.fromkeys(names) if name in table.column_names]).to_pylist():
        record: dict[str, Any] = {key: row.pop(key)}
        for name, value in row.items():
            if value is not None:
                group, field = name.split(".", 1)
                record.setdefault(group, {})[field] = value
        records.append(record)
    return records
