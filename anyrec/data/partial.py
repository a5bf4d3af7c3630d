"""The records of a request, in any form, as a Dataset: a file or folder, a JSON document, dicts, ids, or a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault, checked_path, did_you_mean
from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.data.checks.request_tables import check_owners, check_request_tables, with_owners
from anyrec.data.dataset import Dataset
from anyrec.data.formats.columns import id_column
from anyrec.data.formats.containers import read_bytes, stem_and_kind
from anyrec.data.formats.decode import DOCUMENT_PARTS, decode_any
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.frames import DataFrame, is_table, of_frame
from anyrec.data.formats.parts import PARTS, Part, Raw, finish_parts, no_records
from anyrec.data.formats.places import Place, table_place
from anyrec.data.formats.records import GROUPS, document_tables
from anyrec.data.formats.table_files import KINDS, part_files, read_part
from anyrec.data.ids import Side
from anyrec.data.sources.log_files import is_event_log
from anyrec.data.sources.read_log import read_log

DEEPEST = 5
"""Levels of a document that hold keys of the data format: part, row, group, feature, value."""
FORMS = "ids, dicts, a pandas, polars or Arrow table, or a Dataset"


def read_request_file(path: Path, known: Dataset, options: DataConfig, *, joins: bool = False) -> Dataset:
    """Read the request at `path`: JSON, YAML, JSON Lines, CSV, Parquet, a folder of parts, or the log of a server.

    The columns of a single table decide what it holds: interactions if it has both user_id and item_id, otherwise users
    or items. A folder may lack any of its three files.

    Args:
        path: The file or folder.
        known: The records of the model. Ids and temporal features of the request take their types and roles.
        options: The config's `data` section.
        joins: As for `request_of`.

    Raises:
        DataError: With every fault.
    """
    faults, notes = Faults(), []
    if is_event_log(checked_path(path, "path", DataError)):
        users, items, interactions = read_log(path, faults, notes).parts
        users = replace(users, table=with_owners(users.table, interactions.table))  # the model has their records
        log = {"users": users, "items": items, "interactions": interactions}
        return _request_of_parts(log, known, options, known.root, faults, notes)
    if path.is_dir():
        files = part_files(path, notes, optional=PARTS)
        parts = {part: read_part(file, part, faults, notes)[1] for part, file in files.items()}
        if not parts:
            what = "this folder holds none of users, items and interactions."
            raise DataError(Fault(str(path), what, "Put users.csv (or .parquet, .jsonl) there.", "no data"))
        return _request_of_parts(parts, known, options, path, faults, notes, joins=joins)
    if stem_and_kind(path)[1] in KINDS:
        part, read = read_part(path, None, faults, notes)
        return _request_of_parts({part: read}, known, options, path.parent, faults, notes, joins=joins)
    return request_of_document(decode_any(read_bytes(path), path), known, options, path.parent, joins=joins)


def read_partial(
    source: str | Path | Json,
    options: DataConfig,
    roles: dict[str, str],
    root: Path | None = None,
    *,
    item_ids: pa.Array | None = None,
    user_ids: pa.Array | None = None,
) -> Dataset:
    """Read records for inference: any of the three parts, a list of users, or one user. Ids may be unknown.

    Args:
        source: A JSON or YAML file, or parsed JSON.
        options: The config's `data` section.
        roles: What each temporal feature of the model holds.
        root: Folder that relative file names start from; by default that of the file.
        item_ids: The items of the model, which lists of item ids refer to.
        user_ids: Users who need no record for their interactions; None if all need one.

    Raises:
        DataError: With every fault.
    """
    if isinstance(source, (str, Path)):
        root = Path(source).parent
        source = decode_any(read_bytes(Path(source)), Path(source))
    if isinstance(source, list):
        source = {"user_data": source}
    elif (
        isinstance(source, dict)
        and not set(source) & set(DOCUMENT_PARTS)
        and (not source or set(source) & {"user_id", *GROUPS})
    ):
        source = {"user_data": [source]}
    if not isinstance(source, dict):
        raise DataError(Fault("/", f"expected an object or a list of users; found {show(source)}.", kind="shape"))
    faults, notes = Faults(), []
    document: dict[str, list[Json]] = {}
    for key in DOCUMENT_PARTS:
        value = source.get(key)
        if value is not None and not isinstance(value, list):
            faults.add("shape", f"/{key}", f"expected a list; found {show(value)}.")
        document[key] = value if isinstance(value, list) else []
    for key in source:
        if key not in DOCUMENT_PARTS:
            faults.add("unknown key", f"/{show(key)[1:-1]}", "unknown key.", did_you_mean(str(key), DOCUMENT_PARTS))
    tables = document_tables(document, faults, notes)
    return _dataset(tables, faults, notes, options, roles, root or Path(), item_ids, user_ids)


def _dataset(
    tables: tuple[pa.Table, pa.Table, pa.Table],
    faults: Faults,
    notes: list[str],
    options: DataConfig,
    roles: dict[str, str],
    root: Path,
    item_ids: pa.Array | None,
    user_ids: pa.Array | None,
    places: list[Place] | None = None,
) -> Dataset:
    checked = check_request_tables(tables, faults, notes, options, roles, root, item_ids, user_ids, places)
    return Dataset(checked.users, checked.items, checked.interactions, checked.root, checked.roles, checked.notes)


def request_of_document(
    document: Json, known: Dataset, options: DataConfig, root: Path | None = None, *, joins: bool = False
) -> Dataset:
    """Check a parsed JSON request: the three parts, one user, or a list of users or of their ids.

    Args:
        document: Parsed JSON.
        known: The records of the model.
        options: The config's `data` section.
        root: Folder that relative file names start from.
        joins: As for `request_of`.

    Raises:
        DataError: With every fault.
    """
    if isinstance(document, list) and document and all(type(one) in (str, int) for one in document):
        document = [{"user_id": one} for one in document]
    _check_keys(document, "")
    user_ids = known.ids("user") if joins else None
    return read_partial(document, options, known.roles, root, item_ids=known.ids("item"), user_ids=user_ids)


def _check_keys(document: Json, where: str, depth: int = 0) -> None:
    """Raise DataError for a key that is no text, which Python allows and JSON does not.

    It looks as deep as the values of a context.
    """
    if isinstance(document, dict):
        wrong = [key for key in document if not isinstance(key, str)]
        if wrong:
            raise DataError(Fault(where or "/", f"a key is a text; found {show(wrong[0])}.", kind="bad key"))
    if depth < DEEPEST and isinstance(document, (dict, list)):
        parts = document.items() if isinstance(document, dict) else enumerate(document)
        for key, part in parts:
            if type(part) in (dict, list):
                _check_keys(part, f"{where}/{key}", depth + 1)


def request_of_tables(tables: Mapping[str, DataFrame], known: Dataset, options: DataConfig, root: Path) -> Dataset:
    """Check pandas, polars or Arrow tables by part (users, items, interactions). Raises DataError."""
    parts: dict[str, Part | Raw] = {part: of_frame(table, part) for part, table in tables.items()}
    return _request_of_parts(parts, known, options, root, Faults(), [])


def _request_of_parts(
    parts: Mapping[str, Part | Raw],
    known: Dataset,
    options: DataConfig,
    root: Path,
    faults: Faults,
    notes: list[str],
    *,
    joins: bool = False,
) -> Dataset:
    """Check parts of a request. Ids in CSV files, which have no types, take the types of the model's ids."""
    made = finish_parts(parts, faults, notes, known_ids={"user_id": known.ids("user"), "item_id": known.ids("item")})
    found = [made[part] if part in made else Part(no_records(part), table_place(part)) for part in PARTS]
    tables = (found[0].table, found[1].table, found[2].table)
    places = [part.place for part in found]
    user_ids = known.ids("user") if joins else None
    return _dataset(tables, faults, notes, options, known.roles, root, known.ids("item"), user_ids, places)


def request_of(
    side: Side, source: object, known: Dataset, options: DataConfig, *, joins: bool = False
) -> Dataset | pa.Array:
    """Read users or items given in Python.

    Args:
        side: Whose records these are.
        source: Ids, dicts, a table, a document, a Dataset, or the path of a file.
        known: The records of the model.
        options: The config's `data` section.
        joins: Whether the records join the model: known users then need no record for their interactions. Otherwise
            the request is about the users with a record, and interactions of others are a fault.

    Returns:
        Ids as an array, or records as a Dataset.

    Raises:
        DataError: If `source` has none of these forms, or its records have faults.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, Path):
        return read_request_file(source, known, options, joins=joins)
    part = f"{side}_data"
    if isinstance(source, dict):
        document = source if set(source) & set(DOCUMENT_PARTS) else {part: [source]}
        return request_of_document(document, known, options, known.root, joins=joins)
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


def _no_list(side: Side, expected: str, found: object) -> DataError:
    what = f"expected {expected}; found {show(found)}."
    return DataError(Fault(f"{side}s", what, f"Write [{show(found)}] for one id.", "shape"))


def ids_of(side: Side, source: object) -> pa.Array:
    """Return ids as an int64 or string array.

    Args:
        side: What they identify, for messages.
        source: An Arrow or numpy array, or a list.

    Raises:
        DataError: For each value that is not an id, with its position.
    """
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
    column = id_column(values, lambda row: f"{side}s[{row}]", faults)
    faults.raise_any()
    return column


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def with_interactions(data: Dataset, interactions: object, known: Dataset, options: DataConfig) -> Dataset:
    """Return the request with further interactions, from a table or a list of dicts.

    Raises:
        DataError: If they have faults, or belong to users without a record in the request.
    """
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
    faults.raise_any()
    joined = pa.concat_tables([*parts, more.interactions], promote_options="permissive")
    return replace(data, interactions=joined, notes=[*data.notes, *more.notes])


def of_other_type(ids: pa.Array, known: pa.Array) -> bool:
    """Return whether ids are texts while the model's are whole numbers, or the other way round."""
    return bool(len(ids)) and pa.types.is_integer(ids.type) != pa.types.is_integer(known.type)


def type_name(ids: pa.Array) -> str:
    """Return the type of ids in words."""
    return "whole numbers" if pa.types.is_integer(ids.type) else "texts"
