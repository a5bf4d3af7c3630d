"""Items by a text or a picture, in a space of the model's own, perhaps weighed with what a user likes."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from anyrec.core.errors import Fault, InputError, OutputError, did_you_mean
from anyrec.core.files import atomic_write
from anyrec.core.once import Once
from anyrec.data.hashing import HashSink
from anyrec.data.images import ImageFault, open_image
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import score_blocks
from anyrec.retrieval.index import Index
from anyrec.retrieval.semantic.projection import Projection, project
from anyrec.retrieval.semantic.spaces import LOOKS, Kind, Space, find_space

SPACES = ("auto", "joint", "text", "image", LOOKS, "tower")
FOLDER = "search"
TOWER = {"text": 0.35, "image": 0.5}
"""Share of the tower's space beside another, in deviations of its cosines. On ML-1M, 600 posters left out of the regression: genres of
the first 10 against the poster's own, by Jaccard, 0.21 by looks alone, 0.29 with the tower, 0.17 at random (docs/search.md)."""
SAMPLED = 256


class Queries(NamedTuple):
    """What is looked for: a text, the name of a picture's file, or both."""

    text: str | None = None
    image: str | None = None


class Found(NamedTuple):
    """items: (found,) rows, best first; scores: (found,) float32."""

    items: np.ndarray
    scores: np.ndarray


class Place(NamedTuple):
    """Spaces with the items in them, side by side in one index.

    own: the share of the space's cosine in a score; the rest is of the cosine in the item tower's space, to which `projection` leads.
    """

    space: Space
    index: Index
    own: float
    projection: Projection | None = None

    @property
    def name(self) -> str:
        """As told to people."""
        if self.projection is None:
            return self.space.name
        tower = f"tower by {self.projection.way}"
        return tower if self.own == 0 else f"{self.space.name} ({self.own:.0%}) and {tower} ({1 - self.own:.0%})"


class Search:
    """The spaces of one model, made when first asked for and kept, in memory and beside the model."""

    def __init__(self, model: FittedModel):
        """
        Args:
            model: The model. If it was loaded from a folder, vectors are kept there as well.
        """
        self.model, self.folder = model, model.directory
        self._places: Once[Place] = Once()

    def find(
        self,
        queries: Queries,
        k: int,
        *,
        space: str = "auto",
        allowed: np.ndarray | None = None,
        liking: torch.Tensor | None = None,
        personal: float = 0.3,
    ) -> Found:
        """The k items nearest to the query by cosine, or by a mean of two; for two queries by the mean of the standardised scores.

        allowed: (items,) bool. liking: (1, ...) what the interaction reads of a user: items then come in the order of
        (1 - personal) * search + personal * liking, both standardised over the allowed items that the space holds.
        Raises InputError with every fault of the query.
        """
        kinds = _checked(self.model, queries, space, personal)
        places = [self.place(kind, space) for kind in kinds]
        if len(kinds) == 1 and (liking is None or personal == 0):
            keys, scores = places[0].index.search(self._query(places[0], queries), k, allowed)
            kept = keys[0] >= 0
            return Found(keys[0][kept], scores[0][kept])
        parts = [self._all(place, queries, allowed) for place in places]
        joined = np.mean([_standardised(part) for part in parts], 0)
        if liking is not None:
            joined = self._weighed(joined, np.isfinite(joined), liking, personal)
        order = np.argsort(-joined, kind="stable")[:k]
        order = order[np.isfinite(joined[order])]
        return Found(order, joined[order].astype(np.float32))

    def places_of(self, text: str | None, image: str | None, space: str = "auto") -> list[str]:
        """Where these queries are compared, in words."""
        given: list[tuple[Kind, str | None]] = [("text", text), ("image", image)]
        return [self.place(kind, space).name for kind, value in given if value is not None]

    def place(self, kind: Kind, wanted: str = "auto") -> Place:
        """Where queries of a kind are compared. Raises InputError where the items have nothing to compare them with."""
        return self._places.get((kind, wanted), lambda: self._make(kind, wanted))

    def _make(self, kind: Kind, wanted: str) -> Place:
        model = self.model
        space = find_space(model, kind, "auto" if wanted == "tower" else wanted)
        if space is None or not (vectors := self._kept(space)).any():
            raise InputError(_nothing(model, kind, wanted))
        if wanted == "tower" and not model.has_vectors:
            raise InputError(Fault("--space", "this model has no item tower.", "Leave it out.", "nothing to search"))
        if wanted == "tower" or (wanted == "auto" and model.has_vectors and space.name != "joint"):
            projection = project(model, space, vectors)
            if wanted == "tower":
                return Place(space, self._index(projection.items), 0.0, projection)
            own, tower = (1 - TOWER[kind]) / _spread(vectors), TOWER[kind] / _spread(projection.items)
            both = np.concatenate([vectors, projection.items], 1)
            return Place(space, self._index(both), own / (own + tower), projection)
        return Place(space, self._index(vectors), 1.0)

    def _index(self, vectors: np.ndarray) -> Index:
        """vectors: (items, dim); those of zeros are not found."""
        index: Index = self.model.registry.get("index", "exact")(vectors.shape[1], "dot")
        held = np.flatnonzero(vectors.any(1))
        index.build(vectors[held], held)
        return index

    def _kept(self, space: Space) -> np.ndarray:
        """The space's item vectors: those on disk, else made, and written where a disk takes them."""
        path = None if self.folder is None else self.folder / FOLDER / f"{space.name}-{space.kind}.safetensors"
        if path is None or path.is_symlink() or (path.exists() and not path.is_file()):
            return space.items()
        identity = np.frombuffer(f"{self._model()} {space.identity}".encode(), np.uint8)
        try:
            kept = load_file(path)
            vectors, rows = kept["items"], len(self.model.dataset.items)
            fits = (
                vectors.dtype == np.float32
                and vectors.ndim == 2
                and len(vectors) == rows
                and np.isfinite(vectors).all()
            )
            if fits and np.array_equal(kept["identity"], identity):
                return vectors
        except (SafetensorError, KeyError, OSError, ValueError):
            pass  # not there, or damaged: made anew
        vectors = space.items()
        try:
            with atomic_write(path) as temporary:
                save_file({"items": vectors, "identity": identity}, temporary)
        except OutputError:
            pass  # a disk that cannot be written makes the next search slower, no more
        return vectors

    def _model(self) -> str:
        """Changes with the saved model and with the items it knows."""
        digest = hashlib.sha256(self.model.model_id.encode())
        ids = self.model.dataset.items.select(["item_id"])
        with pa.ipc.new_stream(pa.PythonFile(HashSink(digest), mode="w"), ids.schema) as writer:
            writer.write_table(ids)
        return digest.hexdigest()

    def _query(self, place: Place, queries: Queries) -> np.ndarray:
        """(1, dim), whose dot products with what the index holds are the scores."""
        value = queries.text if place.space.kind == "text" else queries.image
        assert value is not None
        own = _unit(place.space.query(value))
        if place.projection is None:
            return own
        tower = _unit(place.projection.query(self.model, place.space.kind, value, own))
        return tower if place.own == 0 else np.concatenate([place.own * own, (1 - place.own) * tower], 1)

    def _all(self, place: Place, queries: Queries, allowed: np.ndarray | None) -> np.ndarray:
        """(items,) float64 the cosine of each, -inf for one that is not allowed or not in the space."""
        items = len(self.model.dataset.items)
        keys, scores = place.index.search(self._query(place, queries), items, allowed)
        found = np.full(items, -np.inf)
        found[keys[0][keys[0] >= 0]] = scores[0][keys[0] >= 0]
        return found

    def _weighed(self, searched: np.ndarray, kept: np.ndarray, liking: torch.Tensor, personal: float) -> np.ndarray:
        with torch.inference_mode():
            rows = self.model.representations("item")
            own = score_blocks(self.model.scorer, liking, rows)[0].double().cpu().numpy()
        own = _standardised(np.where(kept, own, -np.inf))
        if personal == 1:
            return own
        return np.where(kept, (1 - personal) * searched + personal * np.where(kept, own, 0), -np.inf)


def _unit(query: np.ndarray) -> np.ndarray:
    return query / max(float(np.linalg.norm(query)), 1e-12)


def _spread(vectors: np.ndarray) -> float:
    """The deviation of the cosines of items: (items, dim), of unit length."""
    rows = np.linspace(0, len(vectors) - 1, min(SAMPLED, len(vectors))).astype(int)
    return float((vectors[rows] @ vectors.T).std()) or 1.0


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Less their mean and over their deviation, those that are finite; all equal ones are 0."""
    finite = np.isfinite(scores)
    if not finite.any():
        return scores
    spread = scores[finite].std()
    return np.where(finite, (np.where(finite, scores, 0) - scores[finite].mean()) / (spread or 1.0), -np.inf)


def _checked(model: FittedModel, queries: Queries, space: str, personal: float) -> list[Kind]:
    """Which queries there are. Raises InputError with all that is wrong with them."""
    faults = []
    if queries.text is None and queries.image is None:
        faults.append(Fault("--text", "there is nothing to look for.", "Give a text, an image, or both.", "no query"))
    if queries.text is not None and not queries.text.strip():
        faults.append(Fault("--text", "it is empty.", "Say what the items should be like.", "empty query"))
    if queries.image is not None:
        try:
            context = model.context
            open_image(queries.image, context.root, allow_urls=context.allow_urls, allow_outside_root=True)
        except ImageFault as fault:
            what = f"'{queries.image}' cannot be read: {fault}."
            faults.append(Fault("--image", what, "Give the file of a picture.", "unreadable query"))
    if space not in SPACES:
        faults.append(Fault("--space", f"there is no space '{space}'.", did_you_mean(space, SPACES), "option"))
    if not 0 <= personal <= 1:
        faults.append(Fault("--personal", f"{personal} is not between 0 and 1.", "Give a share.", "option"))
    if faults:
        raise InputError(faults)
    given: list[tuple[Kind, str | None]] = [("text", queries.text), ("image", queries.image)]
    return [kind for kind, value in given if value is not None]


def _nothing(model: FittedModel, kind: Kind, wanted: str) -> Fault:
    told = "texts" if kind == "text" else "pictures"
    reads = ", ".join(model.dataset.features("item")) or "nothing but ids"
    space = "" if wanted == "auto" else f" in the space '{wanted}'"
    what = f"this model's items cannot be searched by {kind}{space}: it reads no {told} of them (they have: {reads})."
    hint = f"Train it on items with {told}" + ("." if wanted == "auto" else ", or leave --space out.")
    return Fault(f"--{kind}", what, hint, "nothing to search")
