"""An index of items by id, as one folder that is whole or absent.

index/  manifest.json   index type and options, dim, metric, the model's hash, figures, versions, sha256 of each file
        ids.arrow       the item ids; the keys of the index are rows of it
        vectors.npy keys.npy state.json and the files of the backend
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from anyrec.core.config import Component
from anyrec.core.errors import DataError, Fault, ModelError
from anyrec.core.files import atomic_folder, exclusive, find_folder, sha256_of
from anyrec.core.manifest import INDEX, MANIFEST, Manifest, holds, installed_versions, read_version
from anyrec.core.outputs import check_output
from anyrec.core.outside import ALLOW
from anyrec.core.registry import Registry
from anyrec.core.saved_files import damaged, read_table
from anyrec.core.timing import timed
from anyrec.core.trust import declared
from anyrec.data.ids import rows_of
from anyrec.retrieval.benchmark import measure
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.index import Index
from anyrec.retrieval.inputs import METRICS, Metric
from anyrec.retrieval.results import SearchResult

FORMAT = "anyrec index 3"
READABLE = ("anyrec index 2", FORMAT)
"""Format 2 named the values of state.json and the options of graphs differently; both names are read."""
KINDS = {"index": dict, "dim": int, "metric": str, "model": str, "figures": dict}
"""The keys of the manifest that are read, and the type of each."""
AGAIN = "Run anyrec index again."
MAX_DIM = 1 << 20
"""The largest dimension of a saved index."""
QUERIES = 1000
"""Queries that an index is tuned and measured with, half for each."""
CHANCE = 0.01
"""A recall up to this much below the target may be chance."""
PACKAGES = ("anyrec", "numpy", "torch", "faiss-cpu", "faiss-gpu", "annoy", "usearch", "qdrant-client")
"""Packages whose versions the manifest records."""


class ItemIndex:
    """Finds item ids by vector.

    The keys of the index are rows of `ids`. A removed item keeps its row.

    Attributes:
        component: The type and options of the index, as `index` in the config.
        index: The vectors.
        ids: (rows,) the item ids.
        model: The hash of the model that the vectors belong to; empty for none.
        figures: What was measured after the build (`anyrec.retrieval.benchmark.measure`); empty if nothing was.
    """

    def __init__(self, component: Component, index: Index, ids: pa.Array, model: str = ""):
        self.component, self.index, self.ids, self.model = component, index, ids, model
        self.figures: dict[str, float] = {}

    @classmethod
    @timed("index built")
    def build(
        cls,
        component: Component,
        registry: Registry,
        ids: pa.Array,
        vectors: np.ndarray,
        *,
        metric: Metric = "dot",
        model: str = "",
        queries: np.ndarray | None = None,
        measured: bool = True,
    ) -> ItemIndex:
        """Build an index of items.

        Args:
            component: The type and options of the index.
            registry: The components to choose from.
            ids: (items,) distinct ids.
            vectors: (items, dim) float32. The array is kept, and must not be changed by the caller.
            metric: What the score of an item is.
            model: The hash of the model (`anyrec.storage.model_directory.model_id`).
            queries: (users, dim) vectors of users to tune and measure the index with; by default vectors of items.
            measured: Whether to measure the index after the build.

        Raises:
            ConfigError: If the type or an option is unknown.
            MissingDependency: If the library of the index is not installed.
            DataError: If a number is not finite, or if there is not one id for each vector.
        """
        params = registry.params("index", component.type, component.options(), "/index")
        index = registry.get("index", component.type, "/index/type").of(vectors.shape[1], metric, params, registry)
        if len(ids) != len(vectors):
            raise DataError(Fault("ids", f"{len(ids)} ids for {len(vectors)} vectors.", "Give one for each.", "shape"))
        rng = np.random.default_rng(0)
        pool = vectors if queries is None else queries
        examples = pool[np.sort(rng.permutation(len(pool))[:QUERIES])]
        start = time.perf_counter()
        index.build(vectors, queries=examples[::2])
        built = cls(component, index, _one_array(ids), model)
        if measured:
            built.figures = measure(index, examples[1::2], time.perf_counter() - start)
        return built

    @property
    def missed(self) -> str | None:
        """A sentence for the user if the recall requested was not reached, else None."""
        asked, found = self.index.requested_recall, self.figures.get("recall@10")
        if asked is None or found is None or found >= asked - CHANCE:
            return None
        return (
            f"it finds {found} of the 10 nearest, not the {asked} requested. `anyrec index --recall {asked}` chooses "
            "one that does; 'exact' misses none."
        )

    def __len__(self) -> int:
        """The number of items, without removed ones."""
        return self.index.store.count

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, exclude: Pairs | None = None
    ) -> SearchResult:
        """Find the k nearest items of each query, as `Index.search`; all keys are rows of `ids`."""
        return self.index.search(queries, k, allowed, exclude)

    def add(self, ids: pa.Array, vectors: np.ndarray) -> None:
        """Add items; an id that the index has gets the new vector.

        Args:
            ids: (n,) distinct ids.
            vectors: (n, dim).

        Raises:
            DataError: If an id is null, occurs twice or is of another type than those of the index.
        """
        ids = _one_array(ids)
        if len(ids.unique()) < len(ids) or ids.null_count:
            raise DataError(Fault("ids", "an id is null or given twice.", "Give distinct ids.", "ids"))
        if ids.type != self.ids.type and pa.types.is_integer(ids.type) != pa.types.is_integer(self.ids.type):
            what = f"these ids are of type {ids.type}, those of the index of {self.ids.type}."
            raise DataError(Fault("ids", what, kind="ids"))
        rows = rows_of(ids, self.ids)
        new = np.flatnonzero(rows < 0)
        grown = pa.concat_arrays([self.ids, ids.take(pa.array(new)).cast(self.ids.type)])
        rows[new] = len(self.ids) + np.arange(len(new))
        self.index.add(rows, vectors)
        self.ids = grown

    def remove(self, ids: pa.Array) -> None:
        """Remove items: (n,). Ids that the index does not have are ignored."""
        rows = rows_of(_one_array(ids), self.ids)
        self.index.remove(rows[rows >= 0])

    def save(self, folder: str | Path) -> Path:
        """Write the folder as one unit: a crash leaves the old index or the new one.

        Returns:
            The absolute path of the folder.

        Raises:
            ModelError: If something else is at this place.
            OutputError: If the folder cannot be written.
        """
        place = Path(folder).resolve()
        check_index_output(place)
        with atomic_folder(place, MANIFEST) as new:
            self.index.save(new)
            schema = pa.schema([("id", self.ids.type)])
            with pa.OSFile(str(new / INDEX), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                writer.write_table(pa.table({"id": self.ids}))
            manifest = {
                "format": FORMAT,
                "index": self.component.model_dump(mode="json"),
                "dim": self.index.dim,
                "metric": self.index.metric,
                "model": self.model,
                "figures": self.figures,
                "counts": {"items": len(self), "rows": len(self.ids)},
                "versions": installed_versions(PACKAGES),
                "files": {p.relative_to(new).as_posix(): sha256_of(p) for p in sorted(new.rglob("*")) if p.is_file()},
            }
            (new / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return place

    @classmethod
    def load(cls, folder: str | Path, registry: Registry, model: str | None = None, trusted: bool = False) -> ItemIndex:
        """Read one whole version of an index, even if a writer replaces it meanwhile.

        Args:
            folder: The folder, as `save` was given it.
            registry: The components that the caller allows.
            model: The hash of the model that the index must belong to; None accepts any.
            trusted: Whether the index may name something outside its folder, as the address of a server.

        Raises:
            ModelError: If the folder is missing, damaged, of another kind or of another model. Every file is compared
                with its sha256 before a library reads it.
        """

        def find() -> Path:
            place = find_folder(Path(folder).resolve(), MANIFEST)
            if place is None:
                fault = Fault(str(folder), f"no index is here (no {MANIFEST}).", "Run anyrec index.", "no index")
                raise ModelError(fault)
            return place

        return read_version(find, AGAIN, lambda manifest: cls._read(manifest, registry, model, trusted))

    @classmethod
    def _read(cls, manifest: Manifest, registry: Registry, model: str | None, trusted: bool) -> ItemIndex:
        place, document = manifest.folder, manifest.document
        if document.get("format") not in READABLE:
            what = f"this is not an index that this version reads ('{FORMAT}')."
            raise ModelError(Fault(str(place), what, AGAIN, "foreign"))
        manifest.check(KINDS)
        if model is not None and document["model"] != model:
            raise ModelError(Fault(str(place), "this index belongs to another model.", AGAIN, "foreign"))
        with damaged(place, "this index cannot be read", AGAIN):
            component = Component.model_validate(document["index"])
            params = registry.params("index", component.type, component.options(), "/index")
            if not trusted:
                _refuse_outside(params, registry, place)
            dim, metric, figures = document["dim"], document["metric"], document["figures"]
            if metric not in METRICS or not 0 < dim <= MAX_DIM:
                raise ValueError(f"metric {metric!r}, dim {dim}")
            if not all(isinstance(value, (int, float)) for value in figures.values()):
                raise ValueError("a figure is not a number")
            index: Index = registry.get("index", component.type, "/index/type").of(dim, metric, params, registry)
            ids = _one_array(read_table(place / INDEX).column("id"))
            if ids.null_count or len(ids.unique()) < len(ids):
                raise ValueError("an id is null or occurs twice")
            index.load(place, len(ids))
            index.search(np.ones((1, dim), np.float32), 1)  # fails if the files are those of another type
        loaded = cls(component, index, ids, document["model"])
        loaded.figures = figures
        return loaded


def check_index_output(place: Path) -> None:
    """Check that an index can be written to a folder.

    Raises:
        OutputError: If the folder cannot be written.
        ModelError: If something else is at this place.
    """
    check_output(place, "folder")
    if place.is_dir() and any(place.iterdir()) and not holds(place, INDEX):
        what = "this folder exists and is not an index."
        raise ModelError(Fault(str(place), what, "Name another one, or empty it.", "foreign"))


def remove_other_index(place: Path, model: str) -> None:
    """Remove the index at `place` if it belongs to another model than `model`. Anything that is not an index stays."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(manifest, dict) and manifest.get("format") in READABLE and manifest.get("model") != model:
        with exclusive(place):
            shutil.rmtree(place)


def _refuse_outside(params: BaseModel, registry: Registry, place: Path) -> None:
    """Raise ModelError if the options name something outside the folder that only a trusted index may name."""
    refused = [one for one in declared(params, registry, "/index") if one.outside.untrusted != "check"]
    if refused:
        raise ModelError(
            [
                Fault(f"{place}{one.where}", f"the index names {one.outside.what}: {one.value!r}.", ALLOW, "untrusted")
                for one in refused
            ]
        )


def _one_array(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
