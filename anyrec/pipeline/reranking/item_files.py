"""Files of items that other programs keep up to date, and item ids in options."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from anyrec.core.errors import ConfigError, DataError, Fault
from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.data.ids import rows_of
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.constants import is_constant

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt")
MAX_BYTES = 256 << 20
"""Maximum size of an item file, which is read during a request. 10 million ids are about 100 MB."""


class ItemFile:
    """A file with a column `item_id` and possibly others. It is read again if it has changed on disk.

    Args:
        path: The file. `.json` and `.jsonl` contain ids or objects with `item_id`, `.txt` one id in each line, `.csv`
            and `.parquet` a column `item_id`.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self._read: tuple[tuple[int, int] | None, pa.Table | None] = (None, None)

    def table(self) -> pa.Table:
        """Return the content of the file.

        Raises:
            DataError: The file is missing, is not a regular file, is larger than `MAX_BYTES`, or has another content.
        """
        try:
            state = self.path.stat()
            if not stat.S_ISREG(state.st_mode):
                raise ValueError("it is not a regular file")
            if state.st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
            stamp = state.st_mtime_ns, state.st_size
            known, table = self._read
            if table is None or known != stamp:
                table = _read(self.path)
                self._read = (stamp, table)
        except (OSError, ValueError, TypeError, RecursionError, pa.ArrowException) as error:
            what = f"cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}."
            raise DataError(
                Fault(str(self.path), what, f"Give a {', '.join(ENDINGS)} file of items.", "unreadable")
            ) from None
        return table

    def rows(self, ids: pa.Array) -> np.ndarray:
        """Return (rows of the file,) the row of each item in `ids`, -1 for an unknown id. Raises DataError."""
        return rows_of_ids(self.table().column("item_id").combine_chunks(), ids)

    def check(self, where: str) -> list[Fault]:
        """Return the faults of the file. where: JSON pointer of the option that names it."""
        try:
            self.table()
        except DataError as error:
            return [Fault(where, f"'{fault.where}' {fault.what}", fault.hint, fault.kind) for fault in error.faults]
        return []


def rows_of_ids(wanted: Sequence[str | int] | pa.Array, ids: pa.Array) -> np.ndarray:
    """Find the rows of ids. If the ids are integers, a text of digits is one, too.

    Args:
        wanted: The ids to find.
        ids: (rows,) all ids.

    Returns:
        (wanted,) rows, -1 for an unknown id.
    """
    if not isinstance(wanted, pa.Array):  # Arrow has no lone surrogates, so no item has such an id
        texts = [str(one) for one in wanted]
        wanted = pa.array([text if is_constant(text) else None for text in texts], pa.string())
    if wanted.type == ids.type:
        return rows_of(wanted, ids)
    return rows_of(wanted.cast(pa.string()), ids.cast(pa.string()))


def check_ids(model: ModelData, wanted: Sequence[str | int], where: str) -> list[Fault]:
    """Return a fault for each id that no item has.

    Args:
        model: The model.
        wanted: The ids.
        where: JSON pointer of an id, with {} for its number.
    """
    unknown = np.flatnonzero(rows_of_ids(wanted, model.dataset.ids("item")) < 0)
    return [
        Fault(where.format(n), f"no item has the id {show(wanted[n])}.", kind="unknown id") for n in unknown.tolist()
    ]


def raise_faults(faults: list[Fault]) -> None:
    """Raise ConfigError if there are faults."""
    if faults:
        raise ConfigError(faults)


def _read(path: Path) -> pa.Table:
    """Read an item file. Raises OSError, ValueError, TypeError, RecursionError or ArrowException."""
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
    elif path.suffix == ".csv":
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
        raise ValueError("it has no column item_id, or several")
    column = table.column("item_id")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (
        pa.types.is_integer(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise ValueError(f"item_id holds {column.type}; expected texts or integers")
    return table.set_column(table.column_names.index("item_id"), "item_id", column)


def _of_records(records: Json) -> pa.Table:
    """Return a list of ids or of objects as a table. Raises ValueError for anything else."""
    if not isinstance(records, list):
        raise ValueError("expected a list of ids, or of objects with item_id")
    if records and all(isinstance(one, dict) for one in records):
        return pa.Table.from_pylist(records)
    if not all(type(one) in (str, int) for one in records):
        raise ValueError("expected ids (texts or integers) or objects with item_id")
    return pa.table({"item_id": pa.array([str(one) for one in records], pa.string())})
