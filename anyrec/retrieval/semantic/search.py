"""The search spaces of a model, and the items nearest to a query in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from anyrec.core.errors import Fault, InputError
from anyrec.core.once import Once
from anyrec.core.types import JsonObject
from anyrec.core.unit_vectors import unit_rows
from anyrec.model.blended import has_towers
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import score_blocks
from anyrec.retrieval.model_index import scanned
from anyrec.retrieval.semantic.projection import Projection, fit_projection
from anyrec.retrieval.semantic.queries import Kind, Query, check_query
from anyrec.retrieval.semantic.saved_vectors import item_vectors
from anyrec.retrieval.semantic.spaces import Space, find_space
from anyrec.retrieval.vector_index import VectorIndex, vector_index

TOWER_WEIGHT: dict[Kind, float] = {"text": 0.35, "image": 0.5}
"""Weight of the tower's space in `auto`, in standard deviations of the cosines. ML-1M, 600 posters that the regression
was not fitted on: the genres of the first 10 have a Jaccard similarity to the poster's own of 0.211 in the space
`visual` alone, 0.311 in the tower's, 0.298 in both and 0.174 at random. Titles: the item itself is first for 0.678 in
both, 0.626 in `text` alone (docs/search.md)."""
SAMPLE_ITEMS = 256
"""Items whose cosines to all others give the standard deviation of a space."""


class RankedItems(NamedTuple):
    """The result of a search.

    Attributes:
        items: (found,) rows of the items, best first.
        scores: (found,) float32.
        found_by: Type and options of the index that found them.
    """

    items: np.ndarray
    scores: np.ndarray
    found_by: JsonObject


@dataclass(frozen=True)
class SpaceItems:
    """The items of one space, or of a space and the tower's.

    Attributes:
        space: Encodes queries.
        vectors: (items, dim) float32, zero for an item that the space does not describe. For two spaces the vectors are
            concatenated, and the query's vectors are weighted, so that one dot product is the weighted mean of both
            cosines.
        weight: Weight of the cosine in the space; the rest is the weight of the cosine in the tower's space.
        projection: From the space into the tower's; None if the tower's space is not used.
    """

    space: Space
    vectors: np.ndarray
    weight: float
    projection: Projection | None = None

    @cached_property
    def described(self) -> np.ndarray:
        """(items,) bool, the items that have a vector."""
        return np.asarray(self.vectors.any(1))

    @property
    def name(self) -> str:
        """The spaces and their weights, for people."""
        if self.projection is None:
            return self.space.name
        tower = f"tower by {self.projection.method}"
        return (
            tower if self.weight == 0 else f"{self.space.name} ({self.weight:.0%}) and {tower} ({1 - self.weight:.0%})"
        )

    def query_vector(self, model: FittedModel, value: str) -> np.ndarray:
        """Return the vector (1, dim) of a query. Its dot products with the vectors of the index are the scores."""
        kind, features = self.space.kind, unit_rows(self.space.query_vector(value))
        if self.projection is None:
            return features
        tower = unit_rows(self.projection.project(model, kind, value, features))
        return tower if self.weight == 0 else np.concatenate([self.weight * features, (1 - self.weight) * tower], 1)


class Search:
    """The search spaces of one model. Each is computed when it is first needed, and kept."""

    def __init__(self, model: FittedModel, base: Search | None = None):
        """
        Args:
            model: The model. If it was loaded from a folder, item vectors are saved there.
            base: The search of the model before items were added to it, whose spaces, weights, projections and indexes
                hold for the added items as well; None if none were added.
        """
        self.model, self.base = model, base
        self._spaces: Once[SpaceItems] = Once()
        self._indexes: Once[VectorIndex] = Once()

    def find(
        self,
        query: Query,
        k: int,
        *,
        space: str = "auto",
        allowed: np.ndarray | None = None,
        user: torch.Tensor | None = None,
        personal: float = 0.3,
    ) -> RankedItems:
        """Find the items nearest to a query.

        The score is the cosine, or the weighted mean of two (`SpaceItems`). For a text and an image it is the mean of
        the two standardised scores. With a user it is (1 - personal) x search + personal x the model's score, both
        standardised. Scores are standardised over the items that are allowed and that the space describes.

        Args:
            query: What the items should be like.
            k: The number of items.
            space: One of `queries.SPACES`.
            allowed: (items,) bool; None allows all.
            user: (1, ...) what the scorer reads of a user (`FittedModel.represent`).
            personal: The weight of the model's score, from 0 to 1.

        Raises:
            InputError: With every fault of the query, or if the items have nothing to compare it with.
        """
        check_query(query, space, personal, self.model.context)
        parts = [(self.space_items(kind, space), value) for kind, value in query.parts()]
        if len(parts) == 1 and (user is None or personal == 0):
            (one, value), *_ = parts
            index = self.index_of(one, space)
            keys, scores = index.search(one.query_vector(self.model, value), k, allowed)
            found = keys[0] >= 0
            return RankedItems(keys[0][found], scores[0][found], index.described)
        scores = np.mean([_standardised(self._all_scores(one, value, allowed)) for one, value in parts], 0)
        if user is not None:
            scores = self._personalised(scores, user, personal)
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[np.isfinite(scores[order])]
        return RankedItems(order, scores[order].astype(np.float32), scanned(self.model))

    def spaces_of(self, query: Query, space: str = "auto") -> list[str]:
        """Return the names of the spaces in which a query is compared."""
        return [self.space_items(kind, space).name for kind, _ in query.parts()]

    def space_items(self, kind: Kind, wanted: str = "auto") -> SpaceItems:
        """Return where queries of a kind are compared.

        Args:
            kind: What the query is.
            wanted: One of `queries.SPACES`.

        Raises:
            InputError: If the items have nothing to compare such queries with.
        """
        return self._spaces.get((kind, wanted), lambda: self._make(kind, wanted))

    def _make(self, kind: Kind, wanted: str) -> SpaceItems:
        model = self.model
        if self.base is not None:
            known = self.base.space_items(kind, wanted)
            return replace(known, vectors=np.concatenate([known.vectors, self._added(known)]))
        space = find_space(model, kind, "auto" if wanted == "tower" else wanted)
        if space is None or not (vectors := item_vectors(model, space)).any():
            raise InputError(_nothing_to_compare(model, kind, wanted))
        if wanted == "tower" and not has_towers(model):
            raise InputError(Fault("--space", "this model has no item tower.", "Leave it out.", "nothing to search"))
        if wanted != "tower" and (wanted != "auto" or not has_towers(model) or space.name == "joint"):
            return SpaceItems(space, vectors, 1.0)
        projection = fit_projection(model, kind, vectors)
        if wanted == "tower":
            return SpaceItems(space, projection.items, 0.0, projection)
        # Weights of standard deviations, so that the space whose cosines differ more does not decide alone.
        own = (1 - TOWER_WEIGHT[kind]) / cosine_deviation(vectors)
        tower = TOWER_WEIGHT[kind] / cosine_deviation(projection.items)
        both = np.concatenate([vectors, projection.items], 1)
        return SpaceItems(space, both, own / (own + tower), projection)

    def _added(self, known: SpaceItems) -> np.ndarray:
        """Return (added, dim), the vectors of the items that were added to the model, in a space of the others."""
        first = len(known.vectors)
        vectors = known.space.of(self.model.dataset.items.slice(first)).item_vectors()
        if known.projection is None:
            return vectors
        tower = unit_rows(self.model.embeddings_from("item", first) - known.projection.mean).astype(np.float32)
        return tower if known.weight == 0 else np.concatenate([vectors, tower], 1)

    def index_of(self, one: SpaceItems, wanted: str) -> VectorIndex:
        """Return the index of the items that a space describes. wanted: one of `queries.SPACES`."""
        return self._indexes.get((one.space.kind, wanted), lambda: self._indexed(one, wanted))

    def _indexed(self, one: SpaceItems, wanted: str) -> VectorIndex:
        if self.base is None:
            return vector_index(self.model, f"{wanted}-{one.space.kind}", one.vectors, "dot")
        known = self.base.index_of(self.base.space_items(one.space.kind, wanted), wanted)
        return known.with_added(one.vectors[known.first :])

    def _all_scores(self, one: SpaceItems, value: str, allowed: np.ndarray | None) -> np.ndarray:
        """(items,) float64 scores; -inf for an item that is not allowed or not in the space."""
        scores = (one.vectors @ one.query_vector(self.model, value)[0]).astype(np.float64)
        return np.where(one.described if allowed is None else allowed & one.described, scores, -np.inf)

    def _personalised(self, searched: np.ndarray, user: torch.Tensor, personal: float) -> np.ndarray:
        """Mix standardised scores (items,) of a search with the model's; -inf stays."""
        kept = np.isfinite(searched)
        with torch.inference_mode():
            items = self.model.representations("item")
            own = score_blocks(self.model.scorer, user, items)[0].double().cpu().numpy()
        own = _standardised(np.where(kept, own, -np.inf))
        if personal == 1:
            return own
        return np.where(kept, (1 - personal) * searched + personal * np.where(kept, own, 0), -np.inf)


def cosine_deviation(vectors: np.ndarray) -> float:
    """Return the standard deviation of the cosines between items.

    Args:
        vectors: (items, dim) of norm 1.
    """
    rows = np.linspace(0, len(vectors) - 1, min(SAMPLE_ITEMS, len(vectors))).astype(int)
    return float((vectors[rows] @ vectors.T).std()) or 1.0


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Standardise scores (items,): subtract the mean of the finite ones and divide by their standard deviation.

    Equal scores become 0. -inf stays.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        return scores
    deviation = scores[finite].std()
    return np.where(finite, (np.where(finite, scores, 0) - scores[finite].mean()) / (deviation or 1.0), -np.inf)


def _nothing_to_compare(model: FittedModel, kind: Kind, wanted: str) -> Fault:
    values = "texts" if kind == "text" else "images"
    features = ", ".join(model.dataset.features("item")) or "nothing but ids"
    space = "" if wanted == "auto" else f" in the space '{wanted}'"
    what = (
        f"this model's items cannot be searched by {kind}{space}: it reads no {values} of them (they have: {features})."
    )
    hint = f"Train it on items with {values}" + ("." if wanted == "auto" else ", or leave --space out.")
    return Fault(f"--{kind}", what, hint, "nothing to search")
