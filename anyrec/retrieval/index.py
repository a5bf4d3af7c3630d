"""The contract of a vector index: build, add, remove, search, save and load, for any backend library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import BaseModel

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import Fault, ModelError, OutputError, checked_path
from anyrec.core.registry import Registry
from anyrec.core.types import ComponentParams, JsonObject
from anyrec.retrieval import filtered_search
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.filtered_search import Backend
from anyrec.retrieval.inner_product import NormAugmentation
from anyrec.retrieval.inputs import Metric, checked_keys, checked_vectors
from anyrec.retrieval.results import SearchResult
from anyrec.retrieval.store import MAX_KEYS, Store

STATE = "state.json"
NORM_WEIGHT_ROWS = 5_000
"""A norm weight chosen for fewer rows is chosen again when there are twice as many: with more rows the best weight
grows."""
GROWTH = 1.1
"""The search width is tuned again when the index has this many times the rows that it was tuned for."""


class Index:
    """Finds the vectors with the largest dot product with, or cosine to, a query.

    A key is a small non-negative integer that the caller chooses, as the row of an item in its table. This class keeps
    the float32 vectors and guarantees that every search returns min(k, eligible) keys for each query, whatever fraction
    of them is eligible. A backend implements the methods that begin with an underscore: `_build`, `_add`, `_nearest`,
    `_load` and `_bytes`, and the others if it needs them.

    The arguments of these methods are prepared. `rows` are rows of `self.store`: 0, 1, ..., each used once, so that a
    replaced vector gets a new row. Vectors and queries are (n, self.inner_dim) float32, finite, contiguous, and of unit
    length if the metric is cosine. `inner_dim` is `dim`, or one more if vectors of unequal norm are brought to more
    equal norms (`anyrec.retrieval.inner_product`).

    Attributes:
        dim: The dimension of the vectors.
        metric: "dot" or "cosine".
        params: The options, of the type `Params`.
        store: The vectors, and the key of each row.
        norms: The largest norm, and the weight of the additional dimension.
        search_width: How many candidates a search keeps (`ef_search`, `nprobe`), for backends that tune it.
        examples: (any, dim) queries like those to come, as `build` was given them; None without any.
        registry: The components, for an index whose options name others; None for the built-in ones.

    Example:
        A backend by NumPy (docs/plugins.md), and how an index is used:

            class Plain(Index):
                "Compares each query with all vectors."

                type = "plain"

                def _build(self, vectors, rows):
                    self._vectors = vectors

                def _add(self, rows, vectors):
                    self._vectors = np.concatenate([self._vectors, vectors])

                def _nearest(self, queries, k, allowed):
                    scores = queries @ self._vectors.T
                    rows = np.argsort(-scores, axis=1)[:, :k]
                    return SearchResult(rows, np.take_along_axis(scores, rows, axis=1))

                def _load(self, folder):
                    self._vectors = self._inner(self.store.vectors)

                def _bytes(self):
                    return self._vectors.nbytes

            index = Plain(dim=64)
            index.build(vectors)                            # (rows, 64); keys 0, 1, ...
            keys, scores = index.search(queries, k=10)      # (queries, 10) each
    """

    type: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ("dot",)
    """What the backend orders by: "dot", or only "l2" or "cosine"; these get vectors of equal norm."""
    exhaustive: ClassVar[bool] = False
    """Whether every vector is compared with the query, so that results are exact and building takes no time."""
    exact_scores: bool = False
    """Whether the backend's scores are the float32 dot products. If not, what it finds is scored again."""
    tunes_norm_weight: bool = False
    """Whether `_choose_norm_weight` tries several weights."""
    filters: bool = False
    """Whether `_nearest` accepts `allowed`."""
    can_remove: bool = False
    """Whether removed rows leave the backend's structure. If not, they are dropped from what it finds."""
    trials: ClassVar[tuple[JsonObject, ...]] = ({},)
    """Options to try when an index is chosen by measuring (`anyrec index --recall`)."""

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a backend declares its own as a nested class."""

    def __init__(self, dim: int, metric: Metric = "dot", params: BaseModel | None = None):
        """Create an empty index.

        Args:
            dim: The dimension of the vectors.
            metric: "dot", or "cosine": the dot product of unit vectors, and 0 if one of them is zero.
            params: The options, an instance of `Params`; None for the defaults.
        """
        self.dim = dim
        self.metric: Metric = metric
        self.params: ComponentParams = params if params is not None else type(self).Params()
        self.store = Store(np.empty((0, dim), np.float32), np.empty(0, np.int64))
        self.norms = NormAugmentation(metric)
        self.search_width = 1
        self.examples: np.ndarray | None = None
        self.registry: Registry | None = None
        self._tuned_rows = 0

    @classmethod
    def of(cls, dim: int, metric: Metric, params: BaseModel | None, registry: Registry) -> Self:
        """Create an empty index whose options can name other components; arguments as for the class."""
        index = cls(dim, metric, params)
        index.registry = registry
        return index

    @property
    def requested_recall(self) -> float | None:
        """The recall of the 10 nearest that the options request; None if the index has no such option."""
        return None

    @property
    def inner_dim(self) -> int:
        """The dimension of the vectors that the backend gets."""
        return self.dim + self.norms.extra_dims

    @property
    def norm_weight(self) -> float:
        """The weight of the additional dimension; 0 if there is none."""
        return self.norms.weight

    @property
    def bytes(self) -> int:
        """The size of the backend's structure in memory, without the float32 vectors of the store."""
        return self._bytes() if len(self.store) else 0

    @classmethod
    def options_for_another(cls, options: JsonObject, name: str, registry: Registry) -> JsonObject:
        """Return the options of a further index of the same model: those of the first, but with other names on servers.

        Args:
            options: The options of the model's index, as `index` in the config.
            name: The name of the further index.
            registry: The components that the options can name.
        """
        return options

    def check(self) -> None:
        """Check that an index with these options can be built here: the library, the server. Called before training.

        Raises:
            InputError: With all faults.
            MissingDependency: If the library is not installed.
        """

    def build(self, vectors: np.ndarray, keys: np.ndarray | None = None, queries: np.ndarray | None = None) -> None:
        """Replace the contents of the index.

        Args:
            vectors: (rows, dim). A float32 array is kept, and must not be changed by the caller.
            keys: (rows,) distinct integers from 0 on; by default 0, 1, ...
            queries: (any, dim) queries like those to come, to tune the backend with; by default sums of two vectors.

        Raises:
            DataError: If the dimension is another one, a number is not finite, or a key is negative or occurs twice.
        """
        vectors = self.checked(vectors, "vectors")
        keys = np.arange(len(vectors)) if keys is None else checked_keys(keys, len(vectors))
        self.examples = None if queries is None or not len(queries) else self.checked(queries, "queries")
        self._fill(Store(vectors, keys.astype(np.int64)))

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors; a key that the index has gets the new vector.

        Args:
            keys: (rows,) distinct integers from 0 on.
            vectors: (rows, dim).

        Raises:
            DataError: As `build` does.
        """
        vectors = self.checked(vectors, "vectors")
        keys = checked_keys(keys, len(vectors))
        if not len(keys):
            return
        self._forget(keys)
        rows = self.store.append(keys, vectors)
        if self._must_rebuild(vectors):
            self._rebuild()
        else:
            self._add(rows, self._inner(vectors))
            if len(self.store) > GROWTH * self._tuned_rows:
                self._tune_again()

    def remove(self, keys: np.ndarray) -> None:
        """Remove keys: (rows,). Keys that the index does not have are ignored."""
        self._forget(np.asarray(keys, np.int64))
        if self._mostly_removed():
            self._rebuild()

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, exclude: Pairs | None = None
    ) -> SearchResult:
        """Find the k nearest keys of each query.

        Args:
            queries: (queries, dim).
            k: The number of keys for each query.
            allowed: (keys,) or (queries, keys) bool, what may be found; keys past its end may not. None allows all.
            exclude: (pairs,) rows of queries, ascending, and (pairs,) keys that this query must not find.

        Returns:
            min(k, eligible) keys for each query, padded to (queries, k).

        Raises:
            DataError: If the dimension is another one, or a number is not finite.
        """
        return filtered_search.search(self._backend(), self.checked(queries, "queries"), k, allowed, exclude)

    def scan(self, queries: np.ndarray, k: int) -> SearchResult:
        """Find the k nearest keys of each query exactly, by comparing every vector of the store.

        Args:
            queries: (queries, dim).
            k: The number of keys for each query.

        Returns:
            (queries, k) keys and scores.

        Raises:
            DataError: If the dimension is another one, or a number is not finite.
        """
        return filtered_search.scan(self._backend(), self.checked(queries, "queries"), k)

    def checked(self, vectors: np.ndarray, what: str) -> np.ndarray:
        """Return vectors as this index uses them: (rows, dim) float32, of unit length if the metric is cosine.

        Args:
            vectors: (rows, dim).
            what: What they are, for the error message.

        Raises:
            DataError: If the dimension is another one, or a number is not finite.
        """
        return checked_vectors(vectors, self.dim, self.metric, what)

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder, which is made if it does not exist.

        Raises:
            OutputError: If the folder cannot be made.
        """
        folder = checked_path(folder, "folder", OutputError)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(Fault(str(folder), f"cannot be made: {error.strerror}.", kind="no file")) from None
        self.store.save(folder)
        (folder / STATE).write_text(json.dumps(self.norms.state()) + "\n")
        if len(self.store):
            self._save(folder)

    def load(self, folder: str | Path, max_keys: int = MAX_KEYS) -> None:
        """Restore what `save` wrote.

        Args:
            folder: The folder.
            max_keys: Keys must be smaller.

        Raises:
            ModelError: If there is no index.
            ValueError: If the files do not fit each other; other errors of the libraries that read them are possible.
        """
        folder = checked_path(folder, "folder", ModelError)
        if not (folder / STATE).is_file():
            raise ModelError(
                Fault(str(folder), "there is no index here.", "Give a folder that `save` wrote.", "no file")
            )
        self.store = Store.load(folder, self.dim, max_keys)
        self.norms.restore(json.loads((folder / STATE).read_text()))
        self._tuned_rows = len(self.store)
        if len(self.store):
            self._load(folder)

    # What a backend implements.

    def _choose_norm_weight(self) -> float:
        """Return the norm weight for vectors of unequal norm. Called before `_build`, when `self.store` is filled."""
        return 0.0 if "dot" in self.metrics else 1.0

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        """Replace the structure. Called with at least one vector, and before all methods below.

        Args:
            vectors: (n, inner_dim) float32.
            rows: (n,) 0, 1, ...
        """
        raise NotImplementedError

    def _tune(self) -> None:
        """Set `self.search_width` and the like. Called after `_build`, and when the index has grown by a tenth."""

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (n, inner_dim) float32 as rows (n,), which follow the last row."""
        raise NotImplementedError

    def _remove(self, rows: np.ndarray) -> None:
        """Remove rows (n,). Called only if `can_remove`."""
        raise NotImplementedError

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        """Return the nearest rows of each query, as well as the backend can find them.

        Args:
            queries: (queries, inner_dim) float32.
            k: The number of rows wanted, at most all rows.
            allowed: (rows,) bool, the rows that may be found; None for all. Given only if `filters`.

        Returns:
            (queries, width) rows and scores, in any order, no row twice for one query, and -1 where nothing was found.
            `width` may be more than k unless `exact_scores`: the best k by float32 are kept.
        """
        raise NotImplementedError

    def _save(self, folder: Path) -> None:
        """Write the structure. The vectors and keys are saved already."""

    def _load(self, folder: Path) -> None:
        """Restore the structure.

        `self.store` is loaded already, and `self._inner(self.store.vectors)` are the vectors that `_build` got.
        """
        raise NotImplementedError

    def _bytes(self) -> int:
        """Return the size of the structure in memory."""
        raise NotImplementedError

    # What all backends share.

    def _inner(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (n, dim) of the store as the backend gets them: (n, inner_dim) float32."""
        return self.norms.augment(vectors)

    def _backend(self) -> Backend:
        return Backend(self.store, self._nearest_padded, self.exact_scores, self.filters, self.can_remove)

    def _nearest_padded(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        return self._nearest(self.norms.pad(queries), k, allowed)

    def _fill(self, store: Store) -> None:
        """Replace the store, and build the structure for it."""
        self.store = store
        self.norms.measure(store.vectors)
        if len(store):
            self.norms.weight = 0.0 if self.norms.equal_norms else self._choose_norm_weight()
            self.norms.weight_rows = len(store)
            self._build(self._inner(store.vectors), np.arange(len(store)))
            self._tune_again()

    def _tune_again(self) -> None:
        self._tuned_rows = len(self.store)
        self._tune()

    def _rebuild(self) -> None:
        """Build the structure again, without removed rows."""
        self._fill(self.store.compacted())

    def _must_rebuild(self, added: np.ndarray) -> bool:
        """Whether the structure must be built again, because `_add` is not enough for vectors (n, dim) in the store.

        This is the case if nothing was there before, if most rows are removed, or if the norms no longer suit the
        additional dimension: a backend for distances needs a larger one for all vectors, a backend for dot products
        another weight.
        """
        if len(self.store) == len(added) or self._mostly_removed():
            return True
        if "dot" in self.metrics:
            chosen_for = self.norms.weight_rows
            return self.tunes_norm_weight and chosen_for < min(NORM_WEIGHT_ROWS, len(self.store) / 2)
        return not self.norms.fits(added)

    def _mostly_removed(self) -> bool:
        """Whether less than half of the rows are left. Each removal then causes at most one row to be built again."""
        return self.store.count < len(self.store) // 2

    def _forget(self, keys: np.ndarray) -> None:
        rows = self.store.remove(keys)
        if self.can_remove and len(rows):
            self._remove(rows)
