"""Records by id, of which each change makes another version that shares almost everything with the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec
import pyarrow as pa

from anyrec.core.types import JsonObject
from anyrec.serving.live.query import Id

PARTS = 256
"""Parts of a map. A change copies those that it touches: 1/256 of all records for one record."""
SEARCHED = ("text", "categorical")
"""Groups of features whose values are searched for words."""


def has_values(record: JsonObject) -> bool:
    """Whether a record says anything: False if all of its groups are without a value."""
    groups = (one.values() if isinstance(one, dict) else [one] for one in record.values())
    return any(value is not None for values in groups for value in values)


class RecordMap(Mapping[Id, JsonObject]):
    """An immutable map from ids to records.

    Records are kept as JSON: smaller than dicts by a factor of four, and garbage collection does not visit them. It
    visits each dict and list, and all threads wait for it.

    Args:
        parts: The records by part; none for an empty map.
    """

    def __init__(self, parts: Sequence[_Part] = ()):
        self._parts = parts or (_Part({}),) * PARTS
        self._length = sum(len(part.records) for part in self._parts)

    def changed(self, records: Mapping[Id, JsonObject], removed: Iterable[Id] = ()) -> RecordMap:
        """Return a map with other records as well, which replace those with the same id, and without removed ids."""
        copies: dict[int, dict[Id, bytes]] = {}
        for key, record in records.items():
            self._copy_of_part(key, copies)[key] = msgspec.json.encode(record)
        for key in removed:
            self._copy_of_part(key, copies).pop(key, None)
        parts = list(self._parts)
        for place, own in copies.items():
            parts[place] = _Part(own)
        return RecordMap(parts)

    def __getitem__(self, key: Id) -> JsonObject:
        return msgspec.json.decode(self._parts[_place(key)].records[key])

    def __contains__(self, key: object) -> bool:
        return key in self._parts[_place(key)].records

    def __iter__(self) -> Iterator[Id]:
        """Iterate over the ids, which are in no order."""
        for part in self._parts:
            yield from part.records

    def __len__(self) -> int:
        return self._length

    def texts(self, id_type: pa.DataType) -> tuple[pa.Array, pa.ChunkedArray]:
        """Return (records,) the ids, and (records,) the searched text of each record, one value a line.

        The searched text is computed once for the records of a part that does not change.

        Args:
            id_type: The type of the ids.
        """
        parts = [part.texts for part in self._parts if part.records]
        ids = pa.concat_arrays([pa.array([], id_type), *(ids.cast(id_type) for ids, _ in parts)])
        return ids, pa.chunked_array([texts for _, texts in parts], pa.string())

    def _copy_of_part(self, key: Id, copies: dict[int, dict[Id, bytes]]) -> dict[Id, bytes]:
        """Return the copy of the part that a key belongs to, which is made first if `copies` does not have it."""
        place = _place(key)
        if place not in copies:
            copies[place] = dict(self._parts[place].records)
        return copies[place]


class _Part:
    """A part of a map, which does not change. records: JSON by id."""

    def __init__(self, records: dict[Id, bytes]):
        self.records = records

    @cached_property
    def texts(self) -> tuple[pa.Array, pa.Array]:
        """(records,) the ids, and (records,) the searched text of each record."""
        texts = [_text_of(key, msgspec.json.decode(record)) for key, record in self.records.items()]
        return pa.array(self.records), pa.array(texts, pa.string())


def _place(key: object) -> int:
    """Return the part that an id belongs to. The hash of a tuple also spreads whole numbers with a common factor."""
    return hash((key,)) % PARTS


def _text_of(key: Id, record: JsonObject) -> str:
    """Return the id and everything of a record that is searched, one value a line."""
    values = [value for group in SEARCHED for value in (record.get(group) or {}).values()]
    listed = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return "\n".join(str(one) for one in [key, *listed] if one is not None)
