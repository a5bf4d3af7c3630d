"""Records of a request, in any form, as a Dataset: a file or folder, a JSON document, dicts, ids, or a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.config import DataConfig
from anyrec.data.columns import Faults, id_column, show
from anyrec.data.dataset import Dataset, Side
from anyrec.data.read import TOP, check_owners, decode_any, finish_partial, no_records, read_bytes, read_partial
from anyrec.data.tables import ENDINGS, PARTS, as_arrow, normalised, read_part, whole_number_ids
from anyrec.errors import DataError, Fault

FORMS = "ids, dicts, a pandas, polars or Arrow table, or a Dataset"


def read_request_file(path: Path, known: Dataset, options: DataConfig) -> Dataset:
    """Read the request at `path`: JSON, JSON Lines, CSV, Parquet, or a folder of users, items and interactions.

    A table's columns decide what it holds: interactions if it has both user_id and item_id, else users or items.
    A folder may lack any of its three files.

    Args:
        known: The records that the model knows: their id types and temporal roles are those of the request.

    Raises:
        DataError: With every fault.
    """
    if path.is_dir():
        tables = {part: read_part(file) for part in PARTS if (file := _part_file(path, part)) is not None}
        if not tables:
            what = "this folder holds none of users, items and interactions."
            raise DataError(Fault(str(path), what, "Put users.csv (or .parquet, .jsonl) there.", "no data"))
        return request_of_tables(tables, known, options, path, written=True)
    if path.suffix in ENDINGS:
        read_bytes(path)  # a missing or empty file is named as for JSON
        table = read_part(path)
        names = set(table.column_names)
        part = "interactions" if {"user_id", "item_id"} <= names else "items" if "item_id" in names else "users"
        return request_of_tables({part: table}, known, options, path.parent, written=True)
    return request_of_document(decode_any(read_bytes(path), path), known, options, path.parent)


def request_of_document(document: Any, known: Dataset, options: DataConfig, root: Path | None = None) -> Dataset:
    """Check a parsed JSON request: the three parts, one user, or a list of users or of their ids."""
    if isinstance(document, list) and document and all(type(one) in (str, int) for one in document):
        document = [{"user_id": one} for one in document]
    return read_partial(document, options, known.roles, root, item_ids=known.ids("item"))


def request_of_tables(
    tables: Mapping[str, pa.Table],
    known: Dataset,
    options: DataConfig,
    root: Path,
    *,
    written: bool = False,
) -> Dataset:
    """Check Arrow tables by part (users, items, interactions).

    Args:
        written: The tables come from files. Ids written as whole numbers in a CSV file then take the model's id type.
    """
    faults, notes = Faults(), []
    if written:
        tables = _with_known_types(tables, known)
    parts = [
        normalised(tables[part], side, faults, notes) if part in tables else no_records(part)
        for part, side in zip(PARTS, ("user", "item", ""), strict=True)
    ]
    return finish_partial((parts[0], parts[1], parts[2]), faults, notes, options, known.roles, root, known.ids("item"))


def request_of(side: Side, source: Any, known: Dataset, options: DataConfig) -> Dataset | pa.Array:
    """Read users or items given in Python: ids as an array, or records as a Dataset.

    Raises:
        DataError: If `source` is none of the forms that the message lists.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, Path):
        return read_request_file(source, known, options)
    part = f"{side}_data"
    if isinstance(source, dict):
        document = source if set(source) & set(TOP) else {part: [source]}
        return request_of_document(document, known, options, known.root)
    if isinstance(source, (pa.Array, pa.ChunkedArray)):
        return ids_of(side, source)
    if is_table(source):
        return request_of_tables({f"{side}s": as_arrow(source)}, known, options, known.root)
    if isinstance(source, (str, bytes)) or not isinstance(source, Iterable):
        what = f"expected {FORMS}; found {show(source)}."
        raise DataError(Fault(side + "s", what, f"Write [{show(source)}] for one id.", "shape"))
    values = list(source)
    if any(isinstance(one, dict) for one in values):
        return request_of_document({part: values}, known, options, known.root)
    return ids_of(side, source)


def is_table(source: Any) -> bool:
    """Whether `source` is a pandas, polars or Arrow table."""
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        return True
    return hasattr(source, "columns") and (hasattr(source, "to_arrow") or type(source).__module__.startswith("pandas"))


def ids_of(side: Side, source: Any) -> pa.Array:
    """Ids as an int64 or string array. Raises DataError for what is no id, with its place."""
    where = f"{side}s"
    if isinstance(source, pa.ChunkedArray):
        source = source.combine_chunks()
    if isinstance(source, pa.Array):
        if (pa.types.is_integer(source.type) or _is_text(source.type)) and not source.null_count:
            return source
        source = source.to_pylist()
    values = [one.item() if isinstance(one, np.generic) else one for one in source]
    if not values:
        return pa.array([], pa.string())
    faults = Faults()
    pointers = lambda row: f"{where}[{row}]"  # noqa: E731
    try:
        column = id_column(values, pointers, faults)
    except UnicodeEncodeError:
        bad = [row for row, value in enumerate(values) if isinstance(value, str) and not _is_unicode(value)]
        faults.add_rows("bad id", bad, lambda row: (pointers(row), "half a surrogate pair is no text.", "Mend the id."))
        column = pa.array([], pa.string())
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    return column


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _part_file(folder: Path, part: str) -> Path | None:
    return next((folder / (part + ending) for ending in ENDINGS if (folder / (part + ending)).is_file()), None)


def _with_known_types(tables: Mapping[str, pa.Table], known: Dataset) -> dict[str, pa.Table]:
    """The tables with ids of whole numbers where the model's are; CSV knows no types."""
    found = dict(tables)
    for side in ("user", "item"):
        if not pa.types.is_integer(known.ids(side).type):
            continue
        parts = [part for part, table in found.items() if f"{side}_id" in table.column_names]
        found.update(zip(parts, whole_number_ids([found[part] for part in parts], [f"{side}_id"]), strict=True))
    return found


def with_interactions(data: Dataset, interactions: Any, known: Dataset, options: DataConfig) -> Dataset:
    """The request with interactions given apart, as a table or a list of dicts."""
    if is_table(interactions):
        more = request_of_tables({"interactions": as_arrow(interactions)}, known, options, known.root)
    elif isinstance(interactions, (list, tuple)):
        more = request_of_document({"interactions": list(interactions)}, known, options, known.root)
    else:
        what = f"expected a table or a list of dicts; found {show(interactions)}."
        raise DataError(Fault("interactions", what, "Write [{'user_id': 1, 'item_id': 2}].", "shape"))
    parts = [data.interactions] if len(data.interactions) else []
    faults = Faults()
    check_owners(data.users, more.interactions, faults)
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    joined = pa.concat_tables([*parts, more.interactions], promote_options="permissive")
    return replace(data, interactions=joined, notes=[*data.notes, *more.notes])


def of_other_type(ids: pa.Array, known: pa.Array) -> bool:
    """Whether ids are texts where the model's are whole numbers, or the other way round."""
    return bool(len(ids)) and pa.types.is_integer(ids.type) != pa.types.is_integer(known.type)


def type_name(ids: pa.Array) -> str:
    """The type of ids in words."""
    return "whole numbers" if pa.types.is_integer(ids.type) else "texts"
