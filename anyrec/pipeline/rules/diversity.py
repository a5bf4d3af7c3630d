"""Keeps lists from saying the same thing many times."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator

from anyrec.core.errors import Fault
from anyrec.model.fitted import FittedModel, ModelData
from anyrec.pipeline.conditions.features import Features, check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.diversity import dpp, in_blocks, mmr
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.quotas import take_within
from anyrec.pipeline.reranking.reorder import chosen_first, codes_at, distinct_items, marked_first, relevance

METHODS = {"mmr": mmr, "dpp": dpp}


class Diversity(Rule):
    """Makes the first k unlike each other: at most so many of a category, or by the model's item vectors (MMR, DPP).

    max_per_category moves what is too many behind the rest; where too few others are left, a warning says so. `mmr` (Carbonell
    and Goldstein 1998) and `dpp` (greedy MAP, Chen et al. 2018) weigh the score, scaled to [0, 1] over the user's candidates,
    against the cosines of item vectors.
    """

    type = "diversity"

    class Params(Rule.Params):
        method: Literal["max_per_category", "mmr", "dpp"] = Field(
            "mmr", description="What makes items alike, and how they are chosen."
        )
        feature: str | None = Field(
            None, description="Item feature with the category or categories, for max_per_category."
        )
        max: int = Field(
            3, ge=1, le=10_000, description="Items of one category among the first k, for max_per_category."
        )
        relevance: float = Field(
            0.7, ge=0, le=0.99, description="Weight of the score against diversity, for mmr and dpp."
        )
        missing: Literal["keep", "drop"] = Field(
            "keep", description="An item without a category: counts for none, or not listed."
        )

        @model_validator(mode="after")
        def _feature_where_needed(self):
            if (self.method == "max_per_category") != (self.feature is not None):
                raise ValueError("feature goes with max_per_category, and only with it")
            return self

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        self.features = Features()

    def check(self, model: ModelData) -> None:
        faults = check_feature(model, self.params.feature, "/feature", "item", ("text",))
        if self.params.method in METHODS and not model.has_vectors:
            what = f"'{self.params.method}' compares item vectors, and '{model.config.model.type}' has none."
            faults.append(Fault("/method", what, "Use max_per_category.", "no vectors"))
        raise_faults(faults)

    def allowed(self, request: Request) -> np.ndarray | None:
        return self.features.allowed(request, self.params.feature, self.params.missing)

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        if self.params.feature is not None:
            return self._cap(request, lists, k)
        items, places = distinct_items(lists)
        if not len(items):
            return lists
        vectors = unit_vectors(request.model, items)
        choose = partial(METHODS[self.params.method], weight=self.params.relevance)
        return chosen_first(lists, in_blocks(choose, vectors, places, relevance(lists), lists.items >= 0, k))

    def _cap(self, request: Request, lists: Lists, k: int) -> Lists:
        values = self.features.of(request, self.params.feature)
        size = 1 + (0 if values.names is None else len(values.names))
        found = take_within(
            codes_at(values, lists), lists.items >= 0, np.zeros(size, np.int64), np.full(size, self.params.max), k
        )
        if found.over.any():
            request.warnings.append(
                f"diversity on '{self.params.feature}': {found.over.sum()} of {len(found.over)} users get more than "
                f"{self.params.max} of a category: too few candidates of others."
            )
        return marked_first(lists, found.marked)


def unit_vectors(model: FittedModel, items: np.ndarray) -> np.ndarray:
    """(items, dim) float32 vectors of item rows, of length 1, or 0 where the vector is."""

    with torch.inference_mode():
        rows = model.representations("item")
        vectors = model.vectors("item", rows[torch.from_numpy(items).to(rows.device)])
        return torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
