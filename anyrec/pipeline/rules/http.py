"""A rule that sends candidates to an external reranker over HTTP, for example a large language model."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from anyrec.core.errors import AnyrecError
from anyrec.core.outside import Outside
from anyrec.core.post_json import is_http, post_json
from anyrec.core.types import Json, JsonObject
from anyrec.data.ids import Side, rows_of
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.features import check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.reorder import chosen_first, distinct_items


class Http(Rule):
    """Sends the user's and the candidates' records to an HTTP endpoint, which returns an order.

    It sends data, including personal data, to `url` and nowhere else: redirects and proxies are not followed.
    docs/rules.md describes the format, with an example. A candidate that the answer does not name comes after those
    it names. The rule fails without an answer in time, or with an invalid one.
    """

    type = "http"

    class Params(Rule.Params):
        url: Annotated[str, Outside("an address")] = Field(
            description="Address of the endpoint, for example http://127.0.0.1:8000/rerank."
        )
        timeout_seconds: float = Field(
            2.0, ge=0.001, le=600, description="Seconds until the whole answer to one request must have arrived."
        )
        candidates: int = Field(50, ge=1, le=1000, description="Number of candidates sent, from the top of each list.")
        users: int = Field(1, ge=1, le=1024, description="Number of users in one request.")
        user_features: list[str] | None = Field(
            None, description="User features that are sent, for example user.continuous.age; by default all."
        )
        item_features: list[str] | None = Field(
            None, description="Item features that are sent, for example item.text.title; by default all."
        )

        @field_validator("url")
        @classmethod
        def _is_http(cls, url: str) -> str:
            if not is_http(url):
                raise ValueError("give an address that begins with http:// or https://")
            return url

    params: Params

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
            self._read(
                post_json(self.params.url, document, self.params.timeout_seconds),
                request,
                lists.items[block, :sent],
                chosen[block],
            )
        return chosen_first(lists, chosen)

    def _document(self, request: Request, lists: Lists, block: slice, sent: int, k: int) -> JsonObject:
        """Return the body of a request: records as in the dataset's JSON, without missing values.

        Args:
            request: The request.
            lists: Its lists.
            block: The users to send.
            sent: The number of candidates.
            k: The number of items that each user gets.
        """
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

    def _read(self, answer: Json, request: Request, rows: np.ndarray, chosen: np.ndarray) -> None:
        """Write the orders of an answer into `chosen`.

        Args:
            answer: The answer.
            request: The request.
            rows: (users, sent) item rows that were sent, -1 past the end.
            chosen: (users, sent) places in the order of the answer.

        Raises:
            AnyrecError: The answer is not valid.
        """
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
                raise AnyrecError(f"{self.params.url}: an order is not a list of item ids") from None
            where = {int(row): place for place, row in enumerate(own) if row >= 0}
            if len(set(named.tolist())) < len(named) or not all(row in where for row in named.tolist()):
                raise AnyrecError(f"{self.params.url}: an order contains an item twice, or one that was not sent")
            places[: len(named)] = [where[row] for row in named.tolist()]


def _records(table: pa.Table, side: Side, features: list[str] | None) -> list[JsonObject]:
    """Return records as in the dataset's JSON: the id, and the features in their groups."""
    key = f"{side}_id"
    names = table.column_names if features is None else [key, *(name.split(".", 1)[1] for name in features)]
    records = []
    for row in table.select([name for name in dict.fromkeys(names) if name in table.column_names]).to_pylist():
        record: JsonObject = {key: row.pop(key)}
        for name, value in row.items():
            if value is not None:
                group, field = name.split(".", 1)
                record.setdefault(group, {})[field] = value
        records.append(record)
    return records
