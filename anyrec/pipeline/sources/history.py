"""What the user had before, for what is bought, played or read again."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from anyrec.pipeline.candidate_lists import is_listable, listable_items, lists_of_pairs
from anyrec.pipeline.contracts import Lists, Request, Source


class HistorySource(Source):
    """The user's own earlier items, the latest or the most frequent first; of use where seen items may be listed again."""

    type = "history"

    class Params(Source.Params):
        by: Literal["recency", "frequency"] = Field("recency", description="What comes first.")

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        """An item's score: 1 / how many interactions ago it was last had, or how often it was."""
        rows, items, ago = request.events
        shown = is_listable(items, listable_items(request, allowed), rows)
        rows, items, ago = rows[shown], items[shown], ago[shown]
        if self.params.by == "frequency":
            return lists_of_pairs(rows, items, np.ones(len(rows)), len(request.rows), k)
        order = np.lexsort((ago, items, rows))
        rows, items, ago = rows[order], items[order], ago[order]
        last = np.append(True, (rows[1:] != rows[:-1]) | (items[1:] != items[:-1]))[: len(rows)]
        return lists_of_pairs(rows[last], items[last], 1 / (1 + ago[last]), len(request.rows), k)
