"""Read the users or items of a request from any form, and report what the model cannot read of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.context import Context
from anyrec.core.errors import DataError, Fault
from anyrec.core.once import Once
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.formats.parts import no_records
from anyrec.data.histories import HISTORY_NAMES
from anyrec.data.ids import Side, rows_of
from anyrec.data.list_columns import flat
from anyrec.data.partial import ids_of, of_other_type, request_of, type_name, with_interactions
from anyrec.data.request_history import RequestHistory, request_history
from anyrec.model.records import Records, conformed, counted, pointer, unknown_features, unseen_categories

Users: TypeAlias = object
"""Ids, dicts, a pandas, polars or Arrow table, a Dataset, or records that were read before; None for all known ones.

The same forms are accepted for items. Anything else raises DataError when it is read.
"""
TRAIN_TOWERS = "Train a two_tower for that."
"""Hint for what a classical model cannot do."""


@dataclass(frozen=True)
class Reads:
    """The parts of a request that a model reads. All other parts are reported as not used.

    Attributes:
        features: Names of the features that the model reads, by side.
        history: True if scores depend on the interactions in the request.
        personal: False for a model that gives all users the same list, for which an unused history is not reported.
        features_unread_by: The type of a model that reads no features at all; None for a model that reads some.
    """

    features: dict[Side, list[str]]
    history: bool
    personal: bool = True
    features_unread_by: str | None = None


@dataclass(frozen=True)
class RequestReader:
    """Reads requests for one model. Nothing that it returns is shared between requests.

    Attributes:
        config: The `data` section of the model's config.
        dataset: The users and items that the model knows.
        context: The model's own context.
        reads: The parts of a request that the model reads.
    """

    config: DataConfig
    dataset: Dataset
    context: Context
    reads: Reads
    _categories: Once[pa.Array] = field(default_factory=Once, repr=False)

    def request_context(self, root: Path | None = None, strict: bool | None = None) -> Context:
        """Return a context for one request, with its own list of warnings.

        Args:
            root: Folder that relative file names start from; by default the model's.
            strict: Raise for what cannot be read; by default `data.strict` of the config.
        """
        strict = self.config.strict if strict is None else strict
        root = self.context.root if root is None else root
        return replace(self.context, root=root, strict=strict, items=self.dataset.items, warnings=[])

    def read(
        self,
        side: Side,
        source: Users,
        *,
        interactions: object = None,
        strict: bool | None = None,
        faults: list[Fault] | None = None,
    ) -> Records:
        """Read the users or items of a request.

        Args:
            side: Which side's records to read.
            source: Ids or records (dicts, a table, a Dataset, a document of the data format); None for all known ones.
                `Records` are returned as they are.
            interactions: The users' interactions up to now, a table or dicts, in addition to those in `source`.
            strict: Raise for what cannot be read; by default `data.strict` of the config.
            faults: Gets a fault for each part that cannot be read. By default these faults are raised if strict, and
                otherwise added to the warnings of the records' context.

        Raises:
            DataError: For unknown ids without a record, for invalid records, and if strict for all other faults.
        """
        if isinstance(source, Records):
            return source
        if source is None and interactions is None:
            ids = self.dataset.ids(side)
            return Records(side, ids, np.arange(len(ids)), None, self.request_context(strict=strict), everyone=True)
        data = self.dataset.ids(side) if source is None else request_of(side, source, self.dataset, self.config)
        if isinstance(data, Dataset):
            context = self.request_context(self._root_of(data, source), strict)
            context.warnings += data.notes
        else:
            context = self.request_context(strict=strict)
            rows = self.rows_of(side, data)
            ids = self.dataset.ids(side).take(pa.array(rows))
            if interactions is None:
                return Records(side, ids, rows, None, context)
            data = Dataset(pa.table({"user_id": ids}), no_records("items"), no_records("interactions"), context.root)
        if interactions is not None:
            data = with_interactions(data, interactions, self.dataset, self.config)
        unread: list[Fault] = [] if faults is None else faults
        records = self._records(side, data, context, unread)
        if faults is None:
            if unread and context.strict:
                raise DataError(unread)
            context.warnings += [str(fault) for fault in unread]
        return records

    def known(self, side: Side, part: range) -> Records:
        """Return the known records in the rows `part`."""
        ids = self.dataset.ids(side).slice(part.start, len(part))
        return Records(side, ids, np.arange(part.start, part.stop), None, self.request_context())

    def rows_of(self, side: Side, ids: object) -> np.ndarray:
        """Return the rows (ids,) of known ids.

        Raises:
            DataError: With a fault for each of the first 20 unknown ids.
        """
        listed = ids_of(side, ids)
        known = self.dataset.ids(side)
        rows = rows_of(listed, known)
        if (rows < 0).any():
            hint = (
                f"The ids of this model are {type_name(known)}." if of_other_type(listed, known) else "Give its record."
            )
            faults = [
                Fault(
                    f"{side}_id {listed[int(place)].as_py()!r}", f"the model knows no such {side}.", hint, "unknown id"
                )
                for place in np.flatnonzero(rows < 0)[:20]
            ]
            raise DataError(faults, {"unknown id": int((rows < 0).sum())})
        return rows

    def _root_of(self, data: Dataset, source: object) -> Path:
        """Return the folder that relative file names of a request start from."""
        if self.config.image_root:
            return Path(self.config.image_root)
        return data.root if isinstance(source, (Dataset, Path)) else self.context.root

    def _records(self, side: Side, data: Dataset, context: Context, faults: list[Fault]) -> Records:
        """Return the records of one side of a checked request."""
        known, table = self.dataset, data.table(side)
        ids = table.column(f"{side}_id").combine_chunks()
        rows = rows_of(ids, known.ids(side))
        if of_other_type(ids, known.ids(side)):
            kinds = f"the ids of this model are {type_name(known.ids(side))}; found {show(ids[0].as_py())}"
            what = f"{kinds} ({counted(len(ids), 'record')}): never seen."
            faults.append(Fault(pointer(side, 0, f"{side}_id"), what, kind="id type"))
        lists, history, also = None, None, set()
        if side == "user":
            name = self._history_name(table)
            if name is not None:
                lists, also = table.column(name).combine_chunks(), {name}
            history = self._history(data, ids, lists, name, faults)
        faults += unknown_features(table, known, side, also)
        table = conformed(table, known.table(side), side, faults)
        names = [name for name in self.reads.features[side] if name.startswith("categorical.")]
        faults += unseen_categories(table, side, names, {name: self._vocabulary(side, name) for name in names})
        records = Records(side, ids, rows, table, context, history)
        if side == "user":
            faults += self._unused(records)
        return records

    def _history_name(self, users: pa.Table) -> str | None:
        """Return the column of a request's users that lists their items; None if there is none.

        It is the column that `data.history` names, or else one of HISTORY_NAMES with lists of item ids.
        """
        wanted = HISTORY_NAMES if self.config.history is None else (self.config.history,)
        id_type = self.dataset.ids("item").type
        for name in (f"temporal.{one}" for one in wanted):
            if name in users.column_names and users.schema.field(name).type.value_type == id_type:
                return name
        return None

    def _history(
        self, data: Dataset, ids: pa.Array, lists: pa.Array | None, name: str | None, faults: list[Fault]
    ) -> RequestHistory | None:
        """Return the interactions of the request; None if it has none.

        Args:
            data: The request.
            ids: (rows,) the ids of its users.
            lists: (rows,) lists of item ids in the users' records.
            name: The column of `lists`.
            faults: Gets a fault for items that the model does not know.
        """
        if lists is None and not len(data.interactions):
            return None
        item_ids = self.dataset.ids("item")
        history, unknown = request_history(data, ids, item_ids, lists, self.config)
        if len(unknown):
            row = int(unknown[0])
            where = f"/interactions/{row}/item_id" if row >= 0 else f"/user_data/*/{str(name).replace('.', '/')}"
            what = f"the model does not know {counted(len(unknown), 'item')} of the given histories, left out"
            if row >= 0:
                what += f"; the first is {show(data.interactions.column('item_id')[row].as_py())}"
            faults.append(Fault(where, what + ".", kind="unknown item"))
        return history

    def _unused(self, records: Records) -> list[Fault]:
        """Return faults for parts that the model does not use: histories, empty records of unknown users, features."""
        faults, reads = [], self.reads
        if records.active.any() and not reads.history and reads.personal:
            count = counted(int(records.active.sum()), "user")
            what = f"this model reads no history: that of {count} decides only which items lists leave out."
            faults.append(Fault("/interactions", what, "Train with features.history, say.", "unused history"))
        nameless = records.bare & ~records.active & (records.rows < 0)
        if nameless.any():
            row = int(np.argmax(nameless))
            count = counted(int(nameless.sum()), "record")
            what = f"the model does not know this user and the record holds nothing else ({count})."
            faults.append(Fault(pointer(records.side, row, "user_id"), what, "Check the id.", "unknown user"))
        table = records.table
        names = [] if table is None else [n for n in table.column_names if n in self.dataset.users.column_names][1:]
        if names and reads.features_unread_by is not None:
            shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            what = f"'{reads.features_unread_by}' reads no features ({shown})."
            faults.append(Fault("/user_data", what, TRAIN_TOWERS, "unused feature"))
        return faults

    def _vocabulary(self, side: Side, name: str) -> pa.Array:
        """Return the distinct categories of the model's own records."""
        column = self.dataset.table(side).column(name).combine_chunks()
        return self._categories.get((side, name), lambda: flat(column)[0].unique())
