"""The user's own earlier items, for items that are bought, played or read repeatedly."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from anyrec.pipeline.candidate_lists import is_listable, listable_items, lists_of_pairs
from anyrec.pipeline.contracts import Lists, Request, Source


class HistorySource(Source):
    """Retrieves the user's own earlier items, the latest or the most frequent first.

    It is of use only if seen items may be listed (`exclude_seen` is False).
    """

    type = "history"

    class Params(Source.Params):
        by: Literal["recency", "frequency"] = Field(
            "recency", description="Order of the items: the latest or the most frequent first."
        )

    params: Params

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        """Return the user's items, scored 1 / (1 + later interactions) or by the number of interactions."""
        rows, items, ago = request.events
        listable = is_listable(items, listable_items(request, allowed), rows)
        rows, items, ago = rows[listable], items[listable], ago[listable]
        if self.params.by == "frequency":
            return lists_of_pairs(rows, items, np.ones(len(rows)), len(request.rows), k)
        order = np.lexsort((ago, items, rows))
        rows, items, ago = rows[order], items[order], ago[order]
        last = np.append(True, (rows[1:] != rows[:-1]) | (items[1:] != items[:-1]))[: len(rows)]
        return lists_of_pairs(rows[last], items[last], 1 / (1 + ago[last]), len(request.rows), k)
