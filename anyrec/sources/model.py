"""The model's own ranking of the catalogue, through the index of the config where its scores are dot products."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from anyrec.pipeline.lists import lists_of_ranks
from anyrec.pipeline.stages import Lists, Request, Source
from anyrec.scoring import rank_rows


class ModelSource(Source):
    """What the model scores highest: by the index where users and items have vectors, else all items, block by block."""

    type = "model"

    class Params(Source.Params):
        pass

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        recommender = request.recommender
        with recommender._inference():
            found = rank_rows(
                recommender.model, request.represented, recommender._known_rows("item"), k, request.exclude, allowed
            )
        rows, items, scores, ranks = found
        return lists_of_ranks(rows, items, scores, ranks, len(request.rows))
