"""An index of items by id, as one folder: what it was made of, which model it belongs to, what it measured.

index/  manifest.json   type and options, dim, metric, the model's hash, figures, sha256 of each file below, versions
        ids.arrow       the item ids; the index's keys are rows of it
        vectors.npy keys.npy state.json and the backend's own files
"""

from __future__ import annotations

import json
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.config import Component
from anyrec.core.discovery import Registry
from anyrec.core.errors import DataError, Fault, ModelError
from anyrec.core.files import atomic_folder, exclusive, find_folder, sha256_of
from anyrec.core.manifest import INDEX, MANIFEST, Manifest, holds, read_version
from anyrec.core.outputs import check_output
from anyrec.core.outside import ALLOW
from anyrec.core.saved_files import damaged, read_table
from anyrec.core.trust import declared
from anyrec.data.ids import rows_of
from anyrec.retrieval.index import METRICS, Index, Metric, SearchResult
from anyrec.retrieval.tuning import measure

FORMAT = "anyrec index 2"
KINDS = {"index": dict, "dim": int, "metric": str, "model": str, "figures": dict}
"""Keys of the manifest that are read, and the type of each."""
AGAIN = "Run anyrec index again."
MOST_DIM = 1 << 20
QUERIES = 1000
"""Queries that an index is tuned on and measured with, half each."""
SLACK = 0.01
"""So little below the recall asked for is chance."""


class ItemIndex:
    """Finds item ids by vector. Keys are rows of `ids`; a removed item keeps its row."""

    def __init__(self, component: Component, index: Index, ids: pa.Array, model: str = ""):
        self.component, self.index, self.ids, self.model = component, index, ids, model
        self.figures: dict[str, float] = {}

    @classmethod
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
        """ids: (items,) distinct; vectors: (items, dim) float32, kept; queries: (any, dim) users' vectors, by default some items'.

        component: the index and its options, as `index` in the config. model: `anyrec.storage.model_directory.model_id` of whose vectors they are.
        Raises ConfigError for an unknown index or a bad option, MissingDependency, and DataError for vectors not finite.
        """
        params = registry.params("index", component.type, component.options(), "/index")
        index = registry.get("index", component.type, "/index/type")(vectors.shape[1], metric, params)
        if len(ids) != len(vectors):
            raise DataError(Fault("ids", f"{len(ids)} ids for {len(vectors)} vectors.", "Give one each.", "shape"))
        rng = np.random.default_rng(0)
        pool = vectors if queries is None else queries
        examples = pool[np.sort(rng.permutation(len(pool))[:QUERIES])]
        start = time.perf_counter()
        index.build(vectors, queries=examples[::2])
        catalogue = cls(component, index, _whole(ids), model)
        if measured:
            catalogue.figures = measure(index, examples[1::2], time.perf_counter() - start)
        return catalogue

    @property
    def missed(self) -> str | None:
        """A sentence for the user where the recall asked for was not reached."""
        asked, found = getattr(self.index.params, "recall", None), self.figures.get("recall@10")
        if asked is None or found is None or found >= asked - SLACK:
            return None
        return f"it finds {found} of the 10 nearest, not the {asked} asked for. `anyrec index --recall {asked}` takes one that does; 'exact' misses none."

    def __len__(self) -> int:
        return self.index.store.count

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> SearchResult:
        """As `Index.search`: keys, and what `allowed` and `exclude` name, are rows of `ids`."""
        return self.index.search(queries, k, allowed, exclude)

    def add(self, ids: pa.Array, vectors: np.ndarray) -> None:
        """An id that is there gets the new vector. Raises DataError for an id given twice, or of another type."""
        ids = _whole(ids)
        if len(ids.unique()) < len(ids) or ids.null_count:
            raise DataError(Fault("ids", "an id is null or given twice.", "Give distinct ones.", "ids"))
        if ids.type != self.ids.type and pa.types.is_integer(ids.type) != pa.types.is_integer(self.ids.type):
            raise DataError(Fault("ids", f"these are of type {ids.type}, those there of {self.ids.type}.", kind="ids"))
        rows = rows_of(ids, self.ids)
        new = np.flatnonzero(rows < 0)
        grown = pa.concat_arrays([self.ids, ids.take(pa.array(new)).cast(self.ids.type)])
        rows[new] = len(self.ids) + np.arange(len(new))
        self.index.add(rows, vectors)
        self.ids = grown

    def remove(self, ids: pa.Array) -> None:
        """Ids that are not there are passed over."""
        rows = rows_of(_whole(ids), self.ids)
        self.index.remove(rows[rows >= 0])

    def save(self, folder: str | Path) -> Path:
        """Write the folder as one unit: a crash leaves the old index or the new one.

        Raises ModelError if something else is there, OutputError if the folder cannot be written.
        """
        place = Path(folder).resolve()
        check_index_output(place)
        with atomic_folder(place, MANIFEST) as new:
            self.index.save(new)
            with (
                pa.OSFile(str(new / INDEX), "wb") as sink,
                pa.ipc.new_file(sink, pa.schema([("id", self.ids.type)])) as to,
            ):
                to.write_table(pa.table({"id": self.ids}))
            manifest = {
                "format": FORMAT,
                "index": self.component.model_dump(mode="json"),
                "dim": self.index.dim,
                "metric": self.index.metric,
                "model": self.model,
                "figures": self.figures,
                "counts": {"items": len(self), "rows": len(self.ids)},
                "versions": _versions(),
                "files": {p.relative_to(new).as_posix(): sha256_of(p) for p in sorted(new.rglob("*")) if p.is_file()},
            }
            (new / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return place

    @classmethod
    def load(cls, folder: str | Path, registry: Registry, model: str | None = None, trusted: bool = False) -> ItemIndex:
        """Read one whole version of an index, even if a writer replaces it meanwhile.

        Args:
            folder: as `save` was given it.
            registry: the components that the caller allows.
            model: the model it must belong to (`anyrec.storage.model_directory.model_id`); None takes any.
            trusted: allow the index to name what is outside its folder, as the address of a server.

        Raises:
            ModelError: if the folder is missing, foreign, damaged or another model's. Every file is compared with its sha256 before a
                library reads it.
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
        place, found = manifest.folder, manifest.document
        if found.get("format") != FORMAT:
            what = f"this is not an index that this version reads ('{FORMAT}')."
            raise ModelError(Fault(str(place), what, AGAIN, "foreign"))
        manifest.check(KINDS)
        if model is not None and found["model"] != model:
            raise ModelError(Fault(str(place), "this index belongs to another model.", AGAIN, "foreign"))
        with damaged(place, "this index cannot be read", AGAIN):
            component = Component.model_validate(found["index"])
            params = registry.params("index", component.type, component.options(), "/index")
            refused = [one for one in declared(params, registry, "/index") if one.outside.untrusted != "check"]
            if refused and not trusted:
                raise ModelError(
                    [
                        Fault(
                            f"{place}{one.where}",
                            f"the index names {one.outside.what}: {one.value!r}.",
                            ALLOW,
                            "untrusted",
                        )
                        for one in refused
                    ]
                )
            if found["metric"] not in METRICS or not 0 < found["dim"] <= MOST_DIM:
                raise ValueError(f"metric {found['metric']!r}, dim {found['dim']}")
            if not all(isinstance(value, (int, float)) for value in found["figures"].values()):
                raise ValueError("a figure is not a number")
            index = registry.get("index", component.type, "/index/type")(found["dim"], found["metric"], params)
            ids = _whole(read_table(place / INDEX).column("id"))
            if ids.null_count or len(ids.unique()) < len(ids):
                raise ValueError("an id is null or there twice")
            index.load(place, len(ids))
            index.search(np.ones((1, index.dim), np.float32), 1)  # fails if the files are those of another type
        catalogue = cls(component, index, ids, found["model"])
        catalogue.figures = found["figures"]
        return catalogue


def check_index_output(place: Path) -> None:
    """Raises OutputError if an index cannot be written to `place`, and ModelError if something else is there."""
    check_output(place, "folder")
    if place.is_dir() and any(place.iterdir()) and not holds(place, INDEX):
        what = "this folder exists and is not an index."
        raise ModelError(Fault(str(place), what, "Name another one, or empty it.", "foreign"))


def remove_other_index(place: Path, model: str) -> None:
    """Remove the index at `place` if it belongs to another model than `model`. What is not an index stays."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(manifest, dict) and manifest.get("format") == FORMAT and manifest.get("model") != model:
        with exclusive(place):
            shutil.rmtree(place)


def _versions() -> dict[str, str]:
    """Of the package, and of what an index may be made with."""
    found = {}
    for package in ("anyrec", "numpy", "torch", "faiss-cpu", "faiss-gpu", "annoy", "usearch", "qdrant-client"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _whole(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
