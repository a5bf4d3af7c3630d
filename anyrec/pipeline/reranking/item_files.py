"""What a rule's options give beside features: ids of items, and small files that others keep up to date."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.core.errors import ConfigError, DataError, Fault
from anyrec.core.values import show
from anyrec.data.ids import rows_of
from anyrec.model.fitted import ModelData
from anyrec.pipeline.conditions.constants import is_constant

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt")
MOST_BYTES = 256 << 20
"""Of an item file: it is read at a request, and 10 million ids are about 100 MB."""


class ItemFile:
    """A file of items: one column `item_id`, others as wanted. Read again when it has changed on disk."""

    def __init__(self, path: str):
        self.path = Path(path)
        self._read: tuple[tuple[int, int] | None, pa.Table | None] = (None, None)

    def table(self) -> pa.Table:
        """`.json` and `.jsonl` hold ids or objects with `item_id`, `.txt` an id a line, `.csv` and `.parquet` a column `item_id`.

        Raises:
            DataError: the file is missing, is not a regular file, is larger than `MOST_BYTES`, or holds no such thing.
        """
        try:
            state = self.path.stat()
            if not stat.S_ISREG(state.st_mode):
                raise ValueError("it is not a regular file")
            if state.st_size > MOST_BYTES:
                raise ValueError(f"it is larger than {MOST_BYTES >> 20} MB")
            stamp = state.st_mtime_ns, state.st_size
            if self._read[0] != stamp:
                self._read = (stamp, _read(self.path))
        except (OSError, ValueError, TypeError, RecursionError, pa.ArrowException) as error:
            what = f"cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}."
            raise DataError(
                Fault(str(self.path), what, f"Give a {', '.join(ENDINGS)} file of items.", "unreadable")
            ) from None
        table = self._read[1]
        assert table is not None
        return table

    def rows(self, ids: pa.Array) -> np.ndarray:
        """(rows of the file,) where each item stands among `ids`, -1 where it is not one."""
        return rows_of_ids(self.table().column("item_id").combine_chunks(), ids)

    def check(self, where: str) -> list[Fault]:
        try:
            self.table()
        except DataError as error:
            return [Fault(where, f"'{fault.where}' {fault.what}", fault.hint, fault.kind) for fault in error.faults]
        return []


def rows_of_ids(given: Sequence[Any] | pa.Array, ids: pa.Array) -> np.ndarray:
    """(given,) rows among `ids`, -1 for what is not there. A text of digits stands for a whole number where ids are such."""
    if not isinstance(given, pa.Array):  # no item has an id with half a surrogate, which Arrow does not hold
        texts = [str(one) for one in given]
        given = pa.array([text if is_constant(text) else None for text in texts], pa.string())
    if given.type == ids.type:
        return rows_of(given, ids)
    return rows_of(given.cast(pa.string()), ids.cast(pa.string()))


def check_ids(model: ModelData, given: Sequence[Any], where: str) -> list[Fault]:
    """A fault for each id that no item has. where: of each, with {} for its number."""
    unknown = np.flatnonzero(rows_of_ids(given, model.dataset.ids("item")) < 0)
    return [
        Fault(where.format(n), f"no item has the id {show(given[n])}.", kind="unknown id") for n in unknown.tolist()
    ]


def raise_faults(faults: list[Fault]) -> None:
    """Raises ConfigError where there are any."""
    if faults:
        raise ConfigError(faults)


def _read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
    elif path.suffix == ".csv":
        import pyarrow.csv

        text = pyarrow.csv.ConvertOptions(column_types={"item_id": pa.string()})
        table = pyarrow.csv.read_csv(path, convert_options=text)
    elif path.suffix == ".txt":
        table = _of_records([line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()])
    elif path.suffix == ".jsonl":
        table = _of_records([json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()])
    elif path.suffix == ".json":
        table = _of_records(json.loads(path.read_text("utf-8")))
    else:
        raise ValueError(f"its ending is none of {', '.join(ENDINGS)}")
    if table.column_names.count("item_id") != 1:
        raise ValueError("it has no item_id, or several")
    column = table.column("item_id")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise ValueError(f"item_id holds {column.type}; expected texts or whole numbers")
    return table.set_column(table.column_names.index("item_id"), "item_id", column)


def _of_records(records: Any) -> pa.Table:
    if not isinstance(records, list):
        raise ValueError("expected a list of ids, or of objects with item_id")
    if records and all(isinstance(one, dict) for one in records):
        return pa.Table.from_pylist(records)
    if not all(type(one) in (str, int) for one in records):
        raise ValueError("expected ids (texts or whole numbers), or objects with item_id, and nothing else")
    return pa.table({"item_id": pa.array([str(one) for one in records], pa.string())})
