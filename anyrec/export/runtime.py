"""Serves an exported model without torch: reads requests, prepares them in NumPy, runs the graphs, and lists items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from anyrec.core.columns import PreparedColumn, with_presence
from anyrec.core.context import Context
from anyrec.core.errors import Fault, InputError, ModelError, checked_path
from anyrec.core.manifest import Manifest, read_version
from anyrec.core.registry import Registry
from anyrec.core.saved_files import damaged
from anyrec.data.dataset import Dataset
from anyrec.data.formats.frames import DataFrame, Form, check_form, in_form
from anyrec.data.formats.parts import no_records
from anyrec.data.histories import COLUMN
from anyrec.data.ids import SIDES, Side
from anyrec.export.backends import Backend, backend_of
from anyrec.export.bundle import AGAIN, HISTORY, Bundle, find_export, read_bundle
from anyrec.export.inputs import graph_inputs
from anyrec.export.members import UserStates
from anyrec.export.ranking import ranked, score_blocks, score_pairs
from anyrec.model.arguments import checked_k, log
from anyrec.model.known_records import KnownRecords
from anyrec.model.pair_tables import prediction_column, scored_table
from anyrec.model.records import Records, new_items
from anyrec.model.request_reader import Reads, Users
from anyrec.storage import record_files

Ids: TypeAlias = Sequence[object] | pa.Array
"""Ids of items. They are validated when they are read."""
ROWS_AT_A_TIME, ROWS_OF_BACKBONES = 1024, 16
"""Records that a graph encodes at once, which bounds the memory of padded inputs and activations. The second one is for
graphs that may contain a language model or an image network, whose activations are megabytes for each record."""
PAIRS_AT_A_TIME = 1 << 16
"""Pairs that a graph scores at once, if it holds one number for each."""
BACKBONES = ("clip_images", "images", "sentence")
"""Preparations of what language models and image networks read."""


def load(
    folder: str | Path, *, backend: str | None = None, threads: int = 0, image_root: str | Path | None = None
) -> Runtime:
    """Read an export.

    Args:
        folder: The folder that `anyrec export` wrote.
        backend: What runs the graphs: "onnxruntime", or "numpy" (slow). By default ONNX Runtime if it is installed.
        threads: Threads of ONNX Runtime; 0 for one on each core.
        image_root: Folder that the names of images in requests start from; by default the current folder.

    Raises:
        ModelError: With all faults, if a file is missing, changed or damaged.
        MissingDependency: If what runs the graphs is not installed.

    Example:
        >>> runtime = load("exports/shop")
        >>> runtime.recommend([{"user_id": "new", "categorical": {"job": "nurse"}}], k=10)
    """
    place, runs = checked_path(folder, "folder", ModelError), backend_of(backend, threads)
    root = Path() if image_root is None else checked_path(image_root, "image_root")
    return read_version(lambda: find_export(place), AGAIN, lambda manifest: _read(manifest, runs, root))


@dataclass(frozen=True, kw_only=True, eq=False)
class Runtime(KnownRecords):
    """An exported model with the users and items it knows. It is immutable, and several threads may use it.

    Requests have the same forms as those of `anyrec.Recommender`, are read by the same code, and get the same lists, up
    to rounding: all items are scored, none is left out by an approximate index.

    Attributes:
        bundle: The preprocessing, the graphs and the vectors.

    Example:
        >>> runtime = load("exports/shop")
        >>> runtime.recommend(["user 1"], k=10).to_pylist()
    """

    bundle: Bundle

    def __repr__(self) -> str:
        users, items = len(self.dataset.users), len(self.dataset.items)
        return f"Runtime({self.config.name}, {users:,} users, {items:,} items)"

    def reads(self) -> Reads:
        about, names = self.bundle.about["reads"], self.bundle.features
        features: dict[Side, list[str]] = {side: list(names[side]) for side in SIDES}
        return Reads(features, about["history"], about["personal"], about["features_unread_by"])

    def recommend(
        self,
        users: Users = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Ids | None = None,
        exclude: Ids | None = None,
        interactions: object = None,
        strict: bool | None = None,
        to: Form = "arrow",
    ) -> DataFrame:
        """List the k best items of each user. Equal scores are ordered by item id.

        Args:
            users: Known ids, or records of known or new users in any form that `Recommender.recommend` accepts.
            k: Items for each user. A user with fewer eligible items gets fewer.
            exclude_seen: Leave out items that the user interacted with.
            candidates: Ids of the only items to rank; by default all.
            exclude: Ids of items that no list gets.
            interactions: Interactions of the users up to now, a table or dicts.
            strict: Raise DataError for parts that the model cannot read; by default each is logged as a warning.
            to: Kind of the table: "arrow", "pandas" or "polars".

        Returns:
            user_id, item_id, score, rank (from 1).

        Raises:
            DataError: For unknown ids without a record, and for invalid records.
            InputError: For a request that this export cannot answer.
        """
        check_form(to)
        records = self.read_records("user", users, interactions=interactions, strict=strict)
        k, allowed = checked_k(k, len(self.dataset.items)), self.mask_of(candidates)
        hidden = self.mask_of(exclude)
        if hidden is not None:
            allowed = ~hidden if allowed is None else allowed & ~hidden
        seen = self.seen_of(records) if exclude_seen else None
        score, items = self.scorer_of(records), len(self.dataset.items)
        rows, places, scores, ranks = ranked(score, len(records.ids), items, k, seen, allowed)
        log(users, records.context.warnings)
        lists = {
            "user_id": records.ids.take(pa.array(rows)),
            "item_id": self.dataset.ids("item").take(pa.array(places)),
            "score": pa.array(scores),
            "rank": pa.array(ranks),
        }
        return in_form(pa.table(lists), to)

    def score(self, pairs: object, *, to: Form = "arrow") -> DataFrame:
        """Score pairs of known users and items; arguments, result and errors as of `Recommender.score`."""
        check_form(to)
        return in_form(scored_table(pairs, self.rows_of, partial(self.score_rows, None)), to)

    def score_rows(self, users: Users, user_rows: np.ndarray, item_rows: np.ndarray) -> dict[str, pa.Array]:
        """Return `score` and each head's prediction for pairs of rows, (pairs,) each.

        Args:
            users: As for `recommend`.
            user_rows: (pairs,) rows of `users`.
            item_rows: (pairs,) rows of the known items.
        """
        records = self.read_records("user", users)
        predicted: dict[str, np.ndarray] = {}
        if self.bundle.towers:
            predicted = self.predict(self.represent(records)[user_rows], self.known("item")[item_rows])
        if self.bundle.members:
            predicted["score"] = score_pairs(self.scorer_of(records), user_rows, item_rows, len(self.dataset.items))
        classes = self.bundle.about["heads"]
        return {name: prediction_column(values, classes.get(name, [])) for name, values in predicted.items()}

    def embed_users(self, users: Users = None, *, strict: bool | None = None, to: Form = "arrow") -> DataFrame:
        """Return user_id and `embedding` (fixed-size list of float32); arguments and errors as of `recommend`."""
        check_form(to)
        return in_form(self._embed(self.read_records("user", users, strict=strict), users), to)

    def embed_items(self, items: Users = None, *, strict: bool | None = None, to: Form = "arrow") -> DataFrame:
        """Return item_id and `embedding` (fixed-size list of float32) of known or new items, in any form as users."""
        check_form(to)
        return in_form(self._embed(self.read_records("item", items, strict=strict), items), to)

    def add_items(self, items: Users, *, strict: bool | None = None) -> Runtime:
        """Return a runtime that also lists new items, by their features. Items with known ids keep their own record.

        Args:
            items: Records in any form that `recommend` accepts.
            strict: As for `recommend`.

        Raises:
            DataError: For invalid records, and for ids of another type than the model's.
            InputError: If the export has no item tower.
        """
        records = self.read_records("item", items, strict=strict)
        log(items, records.context.warnings)
        if not (records.rows < 0).any():
            return self
        dataset, new = new_items(self.dataset, records)
        known = dict(self.bundle.known)
        encoded = self._encode(new, new.required_table())
        known["item"] = np.concatenate([known["item"], encoded[0]])
        if HISTORY in known:
            known[HISTORY] = np.concatenate([known[HISTORY], encoded[1]])
        return replace(self, dataset=dataset, bundle=replace(self.bundle, known=known))

    def scorer_of(self, records: Records) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that returns (rows, items) float32, the scores of all items for users of a request.

        Its argument is (rows,) the rows of these users in `records`.

        Raises:
            InputError: If the export cannot encode the users.
        """
        member, blend = self.bundle.member, self.bundle.blend
        states = UserStates.of(records, self.reads().history)
        if member is not None:
            return lambda rows: member.score(states.take(rows))
        users, items = self.represent(records), self.known("item")

        def of_towers(rows: np.ndarray) -> np.ndarray:
            return score_blocks(self.scores, users[rows], items, self._width)

        if blend is None:
            return of_towers
        return lambda rows: blend.score(states.take(rows), users[rows], of_towers(rows))

    def known(self, side: Side) -> np.ndarray:
        """Return (rows, ...) float32, what the scorer reads of all known users or items.

        Raises:
            InputError: If the model has no embeddings.
        """
        if not self.has_vectors:
            raise InputError(Fault("model", f"'{self.bundle.about['type']}' has no embeddings.", kind="unable"))
        return self.bundle.known[side]

    def represent(self, records: Records) -> np.ndarray:
        """Return (rows, ...) float32, what the towers' scorer reads of each record, or the vectors of a factorisation.

        Raises:
            InputError: If the export cannot encode them.
        """
        known, member = self.known(records.side), self.bundle.member
        if records.everyone:
            return known
        if member is not None and records.side == "user":
            return member.user_vectors(UserStates.of(records, self.reads().history))
        if member is not None and (records.rows >= 0).all():
            return known[records.rows]
        table, same = self.rows_to_encode(records, self.bundle.histories)
        if table is None:
            return known[records.rows]
        vectors = self._encode(records, table)[0]
        vectors[same] = known[records.rows[same]]
        return vectors

    def scores(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the scores (users, items) of what `represent` returned for users and items."""
        if self.bundle.scorer is None:
            return users @ items.T
        return self.bundle.scorer.run({"users": users, "items": items})[0]

    def predict(self, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """Return `score` and each head's prediction, (pairs, ...) float32 each.

        Args:
            users: (pairs, ...) what `represent` returned for the user of each pair.
            items: (pairs, ...) the same for the item.
        """
        if self.bundle.pairs is None:
            return {"score": (users * items).sum(1)}
        size, names = max(1, PAIRS_AT_A_TIME // self._width), ["score", *self.bundle.about["heads"]]
        starts = range(0, max(1, len(users)), size)
        parts = [
            self.bundle.pairs.run({"users": users[at : at + size], "items": items[at : at + size]}) for at in starts
        ]
        return {name: np.concatenate(one) for name, one in zip(names, zip(*parts, strict=True), strict=True)}

    def encode(self, side: Side, table: pa.Table, context: Context) -> list[np.ndarray]:
        """Run the tower of a side.

        Args:
            side: The side.
            table: (rows,) records with the columns of the features; histories refer to rows of the items. A column
                that is left out is missing in all rows.
            context: Settings of the request.

        Returns:
            (rows, ...) float32: what the scorer reads, and for items also what histories read if that is another array.
        """
        columns, graph = self._prepared(side, table, context), self.bundle.towers[side]
        kinds = {feature.kind for feature in self.bundle.features[side].values()}
        size = ROWS_OF_BACKBONES if kinds.intersection(BACKBONES) else ROWS_AT_A_TIME
        parts = [
            graph.run(self._inputs({name: column.rows(start, start + size) for name, column in columns.items()}))
            for start in range(0, max(1, len(table)), size)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def inputs(self, side: Side, table: pa.Table, context: Context) -> dict[str, np.ndarray]:
        """Return the inputs of the tower of a side by name, for any program that runs it; arguments as of `encode`."""
        return self._inputs(self._prepared(side, table, context))

    def _prepared(self, side: Side, table: pa.Table, context: Context) -> dict[str, PreparedColumn]:
        """Return the prepared features of a side by name; arguments as of `encode`."""
        prepared = {}
        for name, feature in self.bundle.features[side].items():
            if feature.column in table.column_names:
                column = table.column(feature.column).combine_chunks()
            else:
                column = pa.nulls(len(table), self._type_of(side, feature.column))
            prepared[name] = with_presence(feature.prepare(column, context), column)
        return prepared

    def _inputs(self, columns: Mapping[str, PreparedColumn]) -> dict[str, np.ndarray]:
        """Return the inputs of a tower, with the histories as vectors of their items."""
        vectors = self.bundle.known.get(HISTORY, self.known("item"))
        inputs = [graph_inputs(name, column, vectors) for name, column in columns.items()]
        return {name: array for one in inputs for name, array in one.items()}

    def _encode(self, records: Records, table: pa.Table) -> list[np.ndarray]:
        """Encode the records of a request. Raises InputError if the export has no tower."""
        if not self.bundle.towers:
            what = f"this export lists known {records.side}s only: {self.bundle.about['type']} has no towers."
            raise InputError(Fault(f"{records.side}s", what, "Train a two_tower for that.", "unable"))
        return self.encode(records.side, table, records.context)

    def _type_of(self, side: Side, column: str) -> pa.DataType:
        """Return the type of a column of records."""
        table = self.dataset.table(side)
        return table.schema.field(column).type if column in table.column_names else COLUMN

    @property
    def _width(self) -> int:
        """Numbers that the scorer holds for each pair."""
        return int(self.bundle.about["pair_width"])

    def _embed(self, records: Records, source: Users) -> pa.Table:
        vectors = self.represent(records)
        vectors = vectors.mean(1) if vectors.ndim == 3 else vectors
        log(source, records.context.warnings)
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
        embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        return pa.table({f"{records.side}_id": records.ids, "embedding": embedding})


def _read(manifest: Manifest, backend: Backend, root: Path) -> Runtime:
    """Read the export of a manifest; `root` is the folder that names of images start from."""
    folder, bundle = manifest.folder, read_bundle(manifest, backend)
    tables = record_files.read_tables(folder)
    dataset = Dataset(tables["user"], tables["item"], no_records("interactions"), root, bundle.roles)
    users, items = len(dataset.users), len(dataset.items)
    history, _ = record_files.read_history(folder / record_files.HISTORY, users, items)
    seen, _ = record_files.read_seen(folder / record_files.SEEN, users, items)
    runtime = Runtime(
        config=bundle.config,
        registry=Registry(),
        dataset=dataset,
        has_vectors=bool(bundle.about["has_vectors"]),
        history=history,
        context=Context(root=root, items=dataset.items, trusted=False, open_files=False),
        seen=seen,
        bundle=bundle,
    )
    with damaged(folder, "its parts do not fit each other", AGAIN):
        _check(runtime)
    return runtime


def _check(runtime: Runtime) -> None:
    """Encode and score records. Raises an error if the parts of the export do not fit each other."""
    for side in SIDES if runtime.has_vectors else ():
        known, table = runtime.known(side), runtime.dataset.table(side)
        if len(known) != len(table) or known.dtype != np.float32:
            raise ValueError(f"{len(table)} vectors of {side}s were expected; found {known.dtype} {known.shape}")
        if runtime.bundle.towers:
            empty = pa.table({name: pa.nulls(2, table.schema.field(name).type) for name in table.column_names})
            made = runtime.encode(side, empty, runtime.request_context())[0]
            if made.shape[1:] != known.shape[1:]:
                raise ValueError(f"the {side} tower returns {made.shape}, the vectors are {known.shape}")
    users, items = len(runtime.dataset.users), len(runtime.dataset.items)
    for name, member in runtime.bundle.members.items():
        if not len(member.learned) == len(member.known.counts()) == users:
            raise ValueError(f"histories of {users} users were expected by '{name}'")
    nobody = pa.nulls(1, runtime.dataset.ids("user").type)
    new = Records("user", nobody, np.array([-1]), None, runtime.request_context())
    scores = runtime.scorer_of(new)(np.array([0]))
    if scores.shape != (1, items):
        raise ValueError(f"scores of the shape {scores.shape} for {items} items")
