"""Users that are added to a model after training, and known users with further interactions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.core.errors import DataError, Fault
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.histories import events_column
from anyrec.data.list_columns import flat
from anyrec.data.pairs import Pairs
from anyrec.data.partial import of_other_type, type_name
from anyrec.data.request_history import extend_histories
from anyrec.data.split import NO_PART
from anyrec.model.records import Records, completed, joined

ADDED = 1 << NO_PART
"""The bit of pairs that are in no part of the split: they count now, but not in the state before a part."""


@dataclass(frozen=True)
class AddedUsers:
    """Records of a request that become users of a model.

    Attributes:
        records: The records; those of known users have the features of the model where the request has none.
        order: (users,) int64, for each user of the wider model the place among the known users, followed by the
            records.
        rows: (records,) int64, the row of each record in the wider model.
    """

    records: Records
    order: np.ndarray
    rows: np.ndarray

    @staticmethod
    def of(dataset: Dataset, records: Records) -> AddedUsers:
        """Return the users to add to the users of a model. New users follow the known ones, which keep their rows.

        Raises:
            DataError: If the ids are of another type than the model's.
        """
        ids, table = records.ids, records.table
        if of_other_type(ids, dataset.ids("user")):
            kinds = f"the ids of this model's users are {type_name(dataset.ids('user'))}; found {show(ids[0].as_py())}."
            raise DataError(Fault("/user_data/0/user_id", kinds, "Write all ids of one type.", "id type"))
        ids = ids.cast(dataset.ids("user").type)
        table = pa.table({"user_id": ids}) if table is None else table
        known_names = [name for name in table.column_names if name in dataset.users.column_names]
        table = table.select(known_names).set_column(known_names.index("user_id"), "user_id", ids)
        table = completed(dataset.users, table, records.rows).select(dataset.users.column_names)
        known, new = len(dataset.users), records.rows < 0
        rows = np.where(new, known + np.cumsum(new) - 1, records.rows)
        order = np.arange(known + int(new.sum()))
        order[rows] = known + np.arange(len(rows))
        return AddedUsers(replace(records, ids=ids, table=table, everyone=False), order, rows)

    @property
    def count(self) -> int:
        """The number of users of the wider model."""
        return len(self.order)

    def dataset(self, known: Dataset) -> Dataset:
        """Return the data with the users of the wider model."""
        table = joined(known.users, self.records.required_table()).take(pa.array(self.order)).combine_chunks()
        return Dataset(table, known.items, known.interactions, known.root, known.roles, known.notes)

    def tensor(self, known: Tensor, added: Tensor) -> Tensor:
        """Return (users, ...) rows of the wider model, from those of the known users and of the records."""
        return torch.cat([known, added.to(known)])[torch.from_numpy(self.order).to(known.device)]

    def array(self, known: pa.Array, added: pa.Array) -> pa.Array:
        """Return (users,) values of the wider model, from those of the known users and of the records."""
        return pa.concat_arrays([known, added]).take(pa.array(self.order))

    def pairs(self, known: WiderPairs, owners: np.ndarray, items: np.ndarray, replaced: np.ndarray) -> WiderPairs:
        """Add pairs to those of the known users.

        Args:
            known: The pairs of the known users, each user's items in ascending order.
            owners: (pairs,) rows of the records.
            items: (pairs,) item rows.
            replaced: (records,) bool, the records whose pairs replace the known ones.
        """
        keys, parts = known.pairs.keys(), known.parts
        if replaced.any():
            kept = ~np.isin(keys >> 32, self.rows[replaced])
            keys, parts = keys[kept], parts[kept]
        added = np.unique(self.rows[owners].astype(np.int64) << 32 | items.astype(np.int64))
        place = np.searchsorted(keys, added)
        there = np.append(keys, -1)[place] == added
        parts = parts.copy()
        parts[place[there]] |= ADDED
        keys = np.insert(keys, place[~there], added[~there])  # both ascend, so nothing need be sorted again
        parts = np.insert(parts, place[~there], np.uint8(ADDED))
        offsets = np.searchsorted(keys, np.arange(self.count + 1, dtype=np.int64) << 32)
        return WiderPairs(Pairs(keys & 0xFFFFFFFF, offsets), parts)

    def seen(self, seen: Pairs, parts: np.ndarray | None) -> tuple[Pairs, np.ndarray | None]:
        """Return what the users of the wider model have seen, and the parts of these pairs, if known.

        Args:
            seen: What the known users have seen.
            parts: (pairs,) uint8, the parts of the split of each pair; None if not known.
        """
        history, nothing = self.records.history, np.empty(0, np.int64)
        owners, items = (nothing, nothing) if history is None else (history.owners, history.items)
        known = WiderPairs(seen, np.zeros(len(seen.items), np.uint8) if parts is None else parts)
        wider = self.pairs(known, owners, items, np.zeros(len(self.rows), bool))
        return wider.pairs, None if parts is None else wider.parts

    def history_parts(self, history: pa.Array, parts: np.ndarray) -> np.ndarray:
        """Return (events,) int8, the part of each event of the wider model's histories.

        The histories are extended once more with the part in the place of the kind, as an event keeps its kind.

        Args:
            history: (known users,) list<EVENT>.
            parts: (events,) the part of each event.
        """
        events, owners = flat(history)
        cells = [events.field("item"), events.field("time"), pa.array(parts).cast(pa.string())]
        named = events_column(cells, np.bincount(owners, minlength=len(history)))
        extended = named.take(pa.array(self.records.rows, mask=self.records.rows < 0))
        request = self.records.history
        if request is not None:
            kinds = pa.array([str(NO_PART)]).take(pa.array(np.zeros(len(request.owners), np.int64)))
            extended = extend_histories(extended, request.with_kinds(kinds))
        return flat(self.array(named, extended))[0].field("kind").cast(pa.int8()).to_numpy(zero_copy_only=False)


class WiderPairs(NamedTuple):
    """Pairs by user, and (pairs,) uint8 the parts of the split that each is in (`Pairs.by_part`)."""

    pairs: Pairs
    parts: np.ndarray
