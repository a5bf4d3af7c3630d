"""A rule that makes the items of a list different from each other."""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator

from anyrec.core.errors import Fault
from anyrec.core.types import Json
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.features import Features, check_feature
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.reranking.greedy_choice import dpp, in_blocks, mmr
from anyrec.pipeline.reranking.item_files import raise_faults
from anyrec.pipeline.reranking.quotas import choose_within
from anyrec.pipeline.reranking.reorder import chosen_first, codes_at, distinct_items, marked_first, relevance

METHODS = {"mmr": mmr, "dpp": dpp}


class DiversityRule(Rule):
    """Makes the first k items different: by a maximum number in each category, or by item vectors (MMR, DPP).

    `max_per_category` moves items above the maximum behind the others; with too few others it adds a warning. `mmr`
    (maximal marginal relevance) and `dpp` (greedy inference of a determinantal point process) weigh the score, scaled
    to [0, 1] over the user's candidates, against the cosines of item vectors.

    References:
        See `anyrec.pipeline.reranking.greedy_choice`.

    Example:
        DiversityRule(method="max_per_category", feature="item.categorical.genre", max=2)
    """

    type = "diversity"

    class Params(Rule.Params):
        method: Literal["max_per_category", "mmr", "dpp"] = Field(
            "mmr", description="How items are compared and chosen."
        )
        feature: str | None = Field(
            None, description="Item feature with the category or categories, for max_per_category."
        )
        max: int = Field(
            3,
            ge=1,
            le=10_000,
            description="Maximum number of items of one category among the first k, for max_per_category.",
        )
        relevance: float = Field(
            0.7, ge=0, le=0.99, description="Weight of the score against diversity, for mmr and dpp."
        )
        missing: Literal["keep", "drop"] = Field(
            "keep", description="Items without a category: list them without a maximum, or not at all."
        )

        @model_validator(mode="after")
        def _feature_if_needed(self) -> Self:
            if (self.method == "max_per_category") != (self.feature is not None):
                raise ValueError("give feature with max_per_category, and only with it")
            return self

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.features = Features()

    def check(self, model: ModelData) -> None:
        faults = check_feature(model, self.params.feature, "/feature", "item", ("text",))
        if self.params.method in METHODS and not model.has_vectors:
            what = f"'{self.params.method}' compares item vectors, and this model has none."
            hint = "Use max_per_category, or a model with vectors (for apply_rules: item_vectors)."
            faults.append(Fault("/method", what, hint, "no vectors"))
        raise_faults(faults)

    def allowed(self, request: Request) -> np.ndarray | None:
        return self.features.allowed(request, self.params.feature, self.params.missing)

    def k_decides(self) -> Literal["nothing", "end", "start"]:
        return "start" if self.params.method == "max_per_category" else "end"  # the others choose one after another

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        if self.params.feature is not None:
            return self._cap(request, lists, k, self.params.feature)
        items, places = distinct_items(lists)
        if not len(items):
            return lists
        vectors = unit_vectors(request.model, items)
        choose = partial(METHODS[self.params.method], weight=self.params.relevance)
        return chosen_first(lists, in_blocks(choose, vectors, places, relevance(lists), lists.items >= 0, k))

    def _cap(self, request: Request, lists: Lists, k: int, feature: str) -> Lists:
        """Apply `max_per_category`."""
        values = self.features.of(request, feature)
        size = 1 + (0 if values.names is None else len(values.names))
        found = choose_within(
            codes_at(values, lists), lists.items >= 0, np.zeros(size, np.int64), np.full(size, self.params.max), k
        )
        if found.over.any():
            request.warnings.append(
                f"diversity on '{feature}': {found.over.sum()} of {len(found.over)} users get more than "
                f"{self.params.max} of a category: too few candidates of other categories."
            )
        return marked_first(lists, found.marked)


def unit_vectors(model: FittedModel, items: np.ndarray) -> np.ndarray:
    """Return (items, dim) float32, the vectors of item rows, normalised to length 1; a zero vector stays 0."""
    with torch.inference_mode():
        rows = model.representations("item")
        vectors = model.vectors("item", rows[torch.from_numpy(items).to(rows.device)])
        return torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
