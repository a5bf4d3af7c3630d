"""The model's own ranking of the catalogue, through the index of the config if scores are dot products."""

from __future__ import annotations

import numpy as np
import torch

from anyrec.model.scoring import rank_rows
from anyrec.pipeline.candidate_lists import lists_of_ranks
from anyrec.pipeline.contracts import Lists, Request, Source
from anyrec.retrieval.model_index import item_index


class ModelSource(Source):
    """Retrieves the items with the highest scores of the model.

    It searches the index if users and items have vectors, and otherwise scores all items. The model scores what the
    index finds again.
    """

    type = "model"

    class Params(Source.Params):
        pass

    params: Params

    def in_model_order(self, request: Request) -> bool:
        """Return True if all items are scored; an index may order them by approximate scores."""
        return item_index(request.model) is None

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        model, index = request.model, item_index(request.model)
        with torch.inference_mode():
            if index is not None:
                queries = model.vectors("user", request.represented).float().cpu().numpy()
                return Lists(*index.search(queries, k, allowed, request.exclude))
            found = rank_rows(
                model.scorer,
                request.represented,
                model.representations("item"),
                k,
                request.exclude,
                allowed,
            )
        rows, items, scores, ranks = found
        return lists_of_ranks(rows, items, scores, ranks, len(request.rows))
