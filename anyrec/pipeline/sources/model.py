"""The model's own ranking of the catalogue, through the index of the model if scores are dot products."""

from __future__ import annotations

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.model.blended import BlendedModel
from anyrec.model.fitted import FittedModel
from anyrec.pipeline.candidate_lists import lists_of_ranks
from anyrec.pipeline.contracts import Lists, Request, Source
from anyrec.retrieval.best_items import best_items
from anyrec.retrieval.model_index import item_index, used_index


class ModelSource(Source):
    """Retrieves the items with the highest scores of the model, through its index if it has one.

    The model scores again what the index finds.
    """

    type = "model"
    is_complete = True

    class Params(Source.Params):
        pass

    params: Params

    def in_model_order(self, request: Request) -> bool:
        """Return True if the model scores the listed items; an index may order items by approximate scores."""
        return item_index(request.model) is None or isinstance(request.model, BlendedModel)

    def index(self, model: FittedModel) -> JsonObject:
        return used_index(model)

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        found = best_items(request.model, request.represented, k, request.exclude, allowed)
        return lists_of_ranks(*found, len(request.rows))
