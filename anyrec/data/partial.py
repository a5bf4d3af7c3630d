"""Records of a request, in any form, as a Dataset: a file or folder, a JSON document, dicts, ids, or a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault, checked_path
from anyrec.data.dataset import Dataset, Side
from anyrec.data.formats.columns import Faults, id_column, show
from anyrec.data.formats.containers import stem_and_kind
from anyrec.data.formats.places import table_place
from anyrec.data.formats.tables import KINDS, PARTS, Part, Raw, finish_parts, of_frame, read_part
from anyrec.data.read import TOP, check_owners, decode_any, finish_partial, no_records, read_bytes, read_partial

DEEPEST = 5
"""Levels of a document that hold keys of the data format: part, row, group, feature, value."""
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
    faults, notes = Faults(), []
    if checked_path(path, "path", DataError).is_dir():
        parts = {part: read_part(file, part, faults, notes)[1] for part, file in _part_files(path).items()}
        if not parts:
            what = "this folder holds none of users, items and interactions."
            raise DataError(Fault(str(path), what, "Put users.csv (or .parquet, .jsonl) there.", "no data"))
        return _request_of_parts(parts, known, options, path, faults, notes)
    if stem_and_kind(path)[1] in KINDS:
        part, read = read_part(path, None, faults, notes)
        return _request_of_parts({part: read}, known, options, path.parent, faults, notes)
    return request_of_document(decode_any(read_bytes(path), path), known, options, path.parent)


def request_of_document(document: Any, known: Dataset, options: DataConfig, root: Path | None = None) -> Dataset:
    """Check a parsed JSON request: the three parts, one user, or a list of users or of their ids."""
    if isinstance(document, list) and document and all(type(one) in (str, int) for one in document):
        document = [{"user_id": one} for one in document]
    _check_keys(document, "")
    return read_partial(document, options, known.roles, root, item_ids=known.ids("item"))


def _check_keys(document: Any, where: str, depth: int = 0) -> None:
    """Raises DataError for a key that is no text, which Python allows and JSON does not. Looks as deep as a context's values."""
    if isinstance(document, dict):
        wrong = [key for key in document if not isinstance(key, str)]
        if wrong:
            raise DataError(Fault(where or "/", f"a key is a text; found {show(wrong[0])}.", kind="bad key"))
    if depth < DEEPEST and isinstance(document, (dict, list)):
        parts = document.items() if isinstance(document, dict) else enumerate(document)
        for key, part in parts:
            if type(part) in (dict, list):
                _check_keys(part, f"{where}/{key}", depth + 1)


def request_of_tables(tables: Mapping[str, Any], known: Dataset, options: DataConfig, root: Path) -> Dataset:
    """Check pandas, polars or Arrow tables by part (users, items, interactions)."""
    parts: dict[str, Part | Raw] = {part: of_frame(table, part) for part, table in tables.items()}
    return _request_of_parts(parts, known, options, root, Faults(), [])


def _request_of_parts(
    parts: Mapping[str, Part | Raw], known: Dataset, options: DataConfig, root: Path, faults: Faults, notes: list[str]
) -> Dataset:
    """Ids in CSV files, which knows no types, take the types of the model's ids."""
    made = finish_parts(parts, faults, notes, known_ids={"user_id": known.ids("user"), "item_id": known.ids("item")})
    found = [made[part] if part in made else Part(no_records(part), table_place(part)) for part in PARTS]
    tables = (found[0].table, found[1].table, found[2].table)
    places = [part.place for part in found]
    return finish_partial(tables, faults, notes, options, known.roles, root, known.ids("item"), places)


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
        return request_of_tables({f"{side}s": source}, known, options, known.root)
    if isinstance(source, (str, bytes)) or not isinstance(source, Iterable):
        raise _no_list(side, FORMS, source)
    values = list(source)
    if any(isinstance(one, dict) for one in values):
        return request_of_document({part: values}, known, options, known.root)
    return ids_of(side, values)


def _no_list(side: Side, expected: str, found: Any) -> DataError:
    what = f"expected {expected}; found {show(found)}."
    return DataError(Fault(f"{side}s", what, f"Write [{show(found)}] for one id.", "shape"))


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
    if isinstance(source, (str, bytes, dict, Path)) or not isinstance(source, Iterable):
        raise _no_list(side, "ids", source)
    values = [one.item() if isinstance(one, np.generic) else one for one in source]
    if not values:
        return pa.array([], pa.string())
    faults = Faults()
    pointers = lambda row: f"{where}[{row}]"  # noqa: E731
    try:
        column = id_column(values, pointers, faults)
    except UnicodeEncodeError:
        bad = [row for row, value in enumerate(values) if isinstance(value, str) and not _is_unicode(value)]
        faults.add_rows(
            "bad id", bad, lambda row: (pointers(row), "half a surrogate pair is no text.", "Correct the id.")
        )
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


def _part_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for kind in reversed(KINDS):
        found.update(
            (stem_and_kind(file)[0], file) for file in sorted(folder.iterdir()) if stem_and_kind(file)[1] == kind
        )
    return {part: found[part] for part in PARTS if part in found}


def with_interactions(data: Dataset, interactions: Any, known: Dataset, options: DataConfig) -> Dataset:
    """The request with interactions given apart, as a table or a list of dicts."""
    if is_table(interactions):
        more = request_of_tables({"interactions": interactions}, known, options, known.root)
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
