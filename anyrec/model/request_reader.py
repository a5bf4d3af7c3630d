"""How a fitted model reads a request: records in any form, what users did, and what it cannot read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.core.config import Config
from anyrec.core.contracts import Context
from anyrec.core.errors import DataError, Fault
from anyrec.data.dataset import Dataset, Side, rows_of
from anyrec.data.formats.columns import show
from anyrec.data.formats.parts import no_records
from anyrec.data.histories import HISTORY_NAMES, Brought, events_brought
from anyrec.data.list_columns import flat
from anyrec.data.partial import ids_of, of_other_type, request_of, type_name, with_interactions
from anyrec.evaluation.ranking import Pairs
from anyrec.model.records import Records, conformed, counted, pointer, unknown_features, unseen_categories
from anyrec.model.towers import Model

Users = Any
"""Ids, dicts, a pandas, polars or Arrow table, a Dataset, or the records read from one of them; None for all that are known."""


class RequestReader:
    """The part of a recommender that reads requests. Nothing that it makes for one request is visible to another."""

    config: Config
    model: Model
    dataset: Dataset
    context: Context
    seen: Pairs
    pipeline: Any
    _vocabulary: dict[tuple[Side, str], pa.Array]

    def request_context(self, root: Path | None = None, strict: bool | None = None) -> Context:
        """The surroundings of one request: its folder and its warnings, which no other request sees."""
        strict = self.config.data.strict if strict is None else strict
        root = self.context.root if root is None else root
        return replace(self.context, root=root, strict=strict, items=self.dataset.items, warnings=[])

    def read_records(
        self,
        side: Side,
        source: Users,
        *,
        interactions: Any = None,
        strict: bool | None = None,
        faults: list[Fault] | None = None,
    ) -> Records:
        """Read the users or items of a request once, and name what the model cannot read.

        Args:
            source: Ids, records (dicts, a table, a Dataset, a document of the data format); None for all that are known.
            interactions: What the users did up to now, a table or dicts, besides those of `source`.
            strict: Raise for what cannot be read; by default as `data.strict` in the config.
            faults: Collects what cannot be read. Without it, it is raised (strict) or added to the records' warnings.

        Raises:
            DataError: For unknown ids without a record, for records that cannot be read, or if strict.
        """
        if isinstance(source, Records):
            return source
        options, found = self.config.data, [] if faults is None else faults
        if source is None and interactions is None:
            ids = self.dataset.ids(side)
            return Records(side, ids, np.arange(len(ids)), None, self.request_context(strict=strict), everyone=True)
        data = self.dataset.ids(side) if source is None else request_of(side, source, self.dataset, options)
        if isinstance(data, Dataset):
            context = self.request_context(self._root_of(data, source), strict)
            context.warnings += data.notes
        else:
            context = self.request_context(strict=strict)
            rows = self._rows_of_ids(side, data)
            ids = self.dataset.ids(side).take(pa.array(rows))
            if interactions is None:
                return Records(side, ids, rows, None, context)
            key = f"{side}_id"
            data = Dataset(pa.table({"user_id": ids}), no_records("items"), no_records("interactions"), context.root)
            assert key == "user_id"
        if interactions is not None:
            data = with_interactions(data, interactions, self.dataset, options)
        records = self._records(side, data, context, found)
        if faults is None:
            self._settle(found, context)
        return records

    def _settle(self, faults: list[Fault], context: Context) -> None:
        """Raise what cannot be read, or add it to the request's warnings."""
        if faults and context.strict:
            raise DataError(faults)
        context.warnings += [str(fault) for fault in faults]

    def _root_of(self, data: Dataset, source: Any) -> Path:
        if self.config.data.image_root:
            return Path(self.config.data.image_root)
        return data.root if isinstance(source, (Dataset, Path)) else self.context.root

    def _records(self, side: Side, data: Dataset, context: Context, faults: list[Fault]) -> Records:
        """The records of one side of a checked request."""
        known, table = self.dataset, data.table(side)
        ids = table.column(f"{side}_id").combine_chunks()
        rows = rows_of(ids, known.ids(side))
        if of_other_type(ids, known.ids(side)):
            what = f"the ids of this model are {type_name(known.ids(side))}; found {show(ids[0].as_py())} ({counted(len(ids), 'record')}): never seen."
            faults.append(Fault(pointer(side, 0, f"{side}_id"), what, kind="id type"))
        lists, brought, also = None, None, set()
        if side == "user":
            name = self._history_name(table)
            if name is not None:
                lists, also = table.column(name).combine_chunks(), {name}
            brought = self._brought(data, ids, lists, name, faults)
        faults += unknown_features(table, known, side, also)
        table = conformed(table, known.table(side), side, faults)
        read = self._read_features(side)
        names = [name for name in read if name.startswith("categorical.")]
        faults += unseen_categories(table, side, names, {name: self._categories(side, name) for name in names})
        records = Records(side, ids, rows, table, context, brought)
        if side == "user":
            faults += self._unused(records)
        return records

    def _history_name(self, users: pa.Table) -> str | None:
        """The column of a request's users that lists what each did: that of `data.history`, or one that is plainly a history."""
        wanted = HISTORY_NAMES if self.config.data.history is None else (self.config.data.history,)
        id_type = self.dataset.ids("item").type
        for name in (f"temporal.{one}" for one in wanted):
            if name in users.column_names and users.schema.field(name).type.value_type == id_type:
                return name
        return None

    def _brought(
        self, data: Dataset, ids: pa.Array, lists: pa.Array | None, name: str | None, faults: list[Fault]
    ) -> Brought | None:
        """What the request says that its users did; None if nothing."""
        if lists is None and not len(data.interactions):
            return None
        item_ids = self.dataset.ids("item")
        brought, unknown = events_brought(data, ids, item_ids, lists, self.config.data)
        if len(unknown):
            row = int(unknown[0])
            where = f"/interactions/{row}/item_id" if row >= 0 else f"/user_data/*/{str(name).replace('.', '/')}"
            what = f"the model does not know {counted(len(unknown), 'item')} of the given histories, left out"
            if row >= 0:
                what += f"; the first is {show(data.interactions.column('item_id')[row].as_py())}"
            faults.append(Fault(where, what + ".", kind="unknown item"))
        return brought

    def _read_features(self, side: Side) -> list[str]:
        """The features of one side that the model reads."""
        return self.model.tower(side).features

    def _reads_history(self) -> bool:
        """Whether scores depend on what a request says that its users did."""
        return self.model.has_history or self.pipeline is not None

    def _unused(self, records: Records) -> list[Fault]:
        """A history for a model that reads none, and users of whom nothing at all is known."""
        faults = []
        if records.active.any() and not self._reads_history():
            count = counted(int(records.active.sum()), "user")
            what = f"this model reads no history: that of {count} decides only what is left out of the lists."
            faults.append(Fault("/interactions", what, "Train with features.history, say.", "unused history"))
        nameless = records.bare & ~records.active & (records.rows < 0)
        if nameless.any():
            row = int(np.argmax(nameless))
            what = f"the model does not know this user and the record holds nothing else ({counted(int(nameless.sum()), 'record')})."
            faults.append(Fault(pointer(records.side, row, "user_id"), what, "Check the id.", "unknown user"))
        return faults

    def _categories(self, side: Side, name: str) -> pa.Array:
        """The distinct categories of the model's own records."""
        if (side, name) not in self._vocabulary:
            column = self.dataset.table(side).column(name).combine_chunks()
            self._vocabulary[side, name] = flat(column)[0].unique()
        return self._vocabulary[side, name]

    def _had(self, records: Records) -> tuple[np.ndarray, np.ndarray]:
        """(pairs,) rows of the request, ascending, and the items each had, by the model's data and by the request."""
        rows, items = self._seen_by(records.rows)
        if records.brought is None:
            return rows, items
        width = len(self.dataset.items)
        more = records.brought.owners * width + records.brought.items
        keys = np.unique(np.concatenate([rows * width + items, more]))
        return keys // width, keys % width

    def _seen_by(self, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(pairs,) rows of the request and the items each has seen. known: (rows,) rows among the known users, -1 for a new one."""
        inside = np.flatnonzero(known >= 0)
        rows, items = self.seen.take(known[inside])
        return inside[rows], items

    def _rows_of_ids(self, side: Side, ids: Any) -> np.ndarray:
        """Rows of known ids; raises DataError naming those that are not."""
        ids = ids_of(side, ids)
        known = self.dataset.ids(side)
        rows = rows_of(ids, known)
        if (rows < 0).any():
            hint = f"The ids of this model are {type_name(known)}." if of_other_type(ids, known) else "Give its record."
            faults = [
                Fault(f"{side}_id {ids[int(place)].as_py()!r}", f"the model knows no such {side}.", hint, "unknown id")
                for place in np.flatnonzero(rows < 0)[:20]
            ]
            raise DataError(faults, {"unknown id": int((rows < 0).sum())})
        return rows
