"""Any supported file or folder in, a validated Dataset out; every fault reported together."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from anyrec.config import DataConfig
from anyrec.data.columns import Faults, Pointer, feature_column, id_column, number_column, show, time_column
from anyrec.data.dataset import Dataset, Side, rows_of
from anyrec.data.histories import HISTORY_NAMES
from anyrec.data.limits import apply_limits
from anyrec.data.roles import apply_roles
from anyrec.data.tables import is_table_folder, read_table_folder
from anyrec.data.validate import check_tables
from anyrec.errors import DataError, Fault, did_you_mean

TOP = ("user_data", "item_data", "interactions")


class Interaction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An interaction as the bulk decoder takes it; whatever else it meets goes the slow way, which says where."""

    user_id: str | int
    item_id: str | int
    interaction_type: str | None = None
    timestamp: str | int | float | None = None
    weight: float | None = None
    rating: float | None = None
    label: int | None = None
    context: dict[str, Any] | None = None


class Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_data: list[dict[str, Any]]
    item_data: list[dict[str, Any]]
    interactions: list[Interaction]


FIELDS = Interaction.__struct_fields__


def read_dataset(path: str | Path, options: DataConfig | None = None) -> Dataset:
    """A dataset file (JSON) or folder (users, items, interactions as JSON Lines, CSV or Parquet, or raw MovieLens).

    Raises DataError with every fault found.
    """
    path, options = Path(path), options or DataConfig()
    with _no_garbage_collection():
        dataset = _tables_of(path, options)
    return apply_limits(dataset, options)


def _tables_of(path: Path, options: DataConfig) -> Dataset:
    if path.is_dir():
        from anyrec.data.convert import is_movielens, movielens

        if is_movielens(path):
            found = movielens(path)
            return dataset_from_tables(found.users, found.items, found.interactions, options, path)
        if is_table_folder(path):
            return dataset_from_tables(*read_table_folder(path), options, path)
        raise DataError(
            Fault(
                str(path),
                "this folder holds no users, items and interactions.",
                "Put users.parquet (or .csv, .jsonl), items.* and interactions.* there.",
                "no data",
            )
        )
    return _from_document(decode(read_bytes(path), path), path.parent, options)


def dataset_from_tables(
    users: pa.Table, items: pa.Table, interactions: pa.Table, options: DataConfig, root: Path
) -> Dataset:
    """Arrow tables with `group.name` columns, validated like any other data. Raises DataError."""
    from anyrec.data.tables import normalised

    faults, notes = Faults(), []
    checked = (
        normalised(users, "user", faults, notes),
        normalised(items, "item", faults, notes),
        normalised(interactions, "", faults, notes),
    )
    return _finish(*checked, faults, notes, options, root)


def read_partial(
    source: Any,
    options: DataConfig,
    roles: dict[str, str],
    root: Path | None = None,
    *,
    item_ids: pa.Array | None = None,
) -> Dataset:
    """Read records for inference: any of the three parts, a list of users, or one user; ids may be unknown.

    Args:
        source: A JSON file, or parsed JSON.
        roles: What each temporal feature holds, as the model has them.
        item_ids: The items that the model knows, which lists of item ids name.

    Raises:
        DataError: With every fault.
    """
    if isinstance(source, (str, Path)):
        root = Path(source).parent
        source = decode_any(read_bytes(Path(source)), Path(source))
    if isinstance(source, list):
        source = {"user_data": source}
    elif isinstance(source, dict) and not set(source) & set(TOP):
        source = {"user_data": [source]}
    if not isinstance(source, dict):
        raise DataError(Fault("/", f"expected an object or a list of users; found {show(source)}.", kind="shape"))
    faults, notes = Faults(), []
    document: dict[str, list[Any]] = {}
    for key in TOP:
        value = source.get(key)
        if value is not None and not isinstance(value, list):
            faults.add("shape", f"/{key}", f"expected a list; found {show(value)}.")
        document[key] = value if isinstance(value, list) else []
    for key in source:
        if key not in TOP:
            faults.add("unknown key", f"/{show(key)[1:-1]}", "unknown key.", did_you_mean(str(key), TOP))
    tables = _document_tables(document, faults, notes)
    return finish_partial(tables, faults, notes, options, roles, root or Path(), item_ids)


def finish_partial(
    tables: tuple[pa.Table, pa.Table, pa.Table],
    faults: Faults,
    notes: list[str],
    options: DataConfig,
    roles: dict[str, str],
    root: Path,
    item_ids: pa.Array | None = None,
) -> Dataset:
    """The checks that all forms of a request share. Raises DataError with every fault.

    Without records of users, the request is about the users of its interactions.
    """
    owners = tables[2].column("user_id").combine_chunks()
    if not len(tables[0]):
        tables = (pa.table({"user_id": owners.unique().drop_null()}), *tables[1:])
    check_owners(tables[0], tables[2], faults)
    check_tables(*tables, faults, options, partial=True)
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    known = {**roles, **options.roles}
    if item_ids is not None:
        known = {**_history_roles(tables[0], known, options, item_ids), **known}
    users, items, found = apply_roles(
        tables[0], tables[1], options.model_copy(update={"roles": known}), [], faults, item_ids
    )
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    notes += _lost_ids(tables[0], users, found)
    image_root = Path(options.image_root) if options.image_root else root
    return Dataset(users, items, tables[2], image_root, found, notes)


def check_owners(users: pa.Table, interactions: pa.Table, faults: Faults) -> None:
    """A fault for each interaction of a user that the request has no record of."""
    owners, ids = interactions.column("user_id"), users.column("user_id").combine_chunks()
    lost = np.flatnonzero((rows_of(owners, ids) < 0) & owners.is_valid().to_numpy())
    faults.add_rows(
        "unknown user",
        lost,
        lambda row: (
            f"/interactions/{row}/user_id",
            f"no record in user_data has the id {show(owners[row].as_py())}.",
            "Add it to user_data; the id alone is enough.",
        ),
    )


def no_records(part: str) -> pa.Table:
    """An empty table of one part of a request: users, items or interactions."""
    names = {"users": ["user_id"], "items": ["item_id"], "interactions": ["user_id", "item_id"]}[part]
    return pa.table({name: pa.array([], pa.string()) for name in names})


def _history_roles(users: pa.Table, roles: dict[str, str], options: DataConfig, item_ids: pa.Array) -> dict[str, str]:
    """Lists that are plainly histories, by their name and the type of their values, hold item ids."""
    if options.history is not None:
        return {}
    found = {}
    for name in HISTORY_NAMES:
        column = f"temporal.{name}"
        if column in users.column_names and f"user.{name}" not in roles:
            values = users.column(column).type.value_type
            if pa.types.is_integer(values) == pa.types.is_integer(item_ids.type) and not pa.types.is_floating(values):
                found[f"user.{name}"] = "items"
    return found


def _lost_ids(given: pa.Table, typed: pa.Table, roles: dict[str, str]) -> list[str]:
    """Sentences on lists of item ids whose ids are of another type than the model's."""
    notes = []
    for name, role in roles.items():
        column = f"temporal.{name.removeprefix('user.')}"
        if not name.startswith("user.") or role != "items" or column not in given.column_names:
            continue
        before, after = (table.column(column).combine_chunks().flatten() for table in (given, typed))
        lost = after.null_count - before.null_count
        if lost > 0:
            notes.append(
                f"{lost:,} values of {column} are of another type than the model's item ids ({after.type}) and are not read."
            )
    return notes


def records_to_table(records: list[dict[str, Any]], side: Side, roles: dict[str, str]) -> pa.Table:
    """Records as a table with columns typed as the model knows them. Raises DataError."""
    part = {"user": "user_data", "item": "item_data"}[side]
    return read_partial({part: records}, DataConfig(), roles).table(side)


def read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(Fault(str(path), "there is no such file.", kind="no file")) from None
    except OSError as error:
        raise DataError(Fault(str(path), f"cannot be read: {error.strerror}.", kind="no file")) from None
    if not data.strip():
        raise DataError(Fault(str(path), "this file is empty.", kind="empty data"))
    return data.removeprefix(b"\xef\xbb\xbf")


def decode(data: bytes, path: Path) -> Any:
    """A Document at C speed where the file is as expected, else the plain parsed JSON."""
    try:
        return msgspec.json.decode(data, type=Document)
    except (msgspec.MsgspecError, RecursionError):
        return decode_any(data, path)


def decode_any(data: bytes, path: Path) -> Any:
    """JSON as Python reads it, NaN included, so that what is wrong can be pointed at."""
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise DataError(
            Fault(f"{path}: byte {error.start}", "this is not UTF-8 text.", "Save the file as UTF-8.", "encoding")
        ) from None
    except json.JSONDecodeError as error:
        near = error.doc[max(0, error.pos - 30) : error.pos + 30].replace("\n", " ")
        raise DataError(
            Fault(
                f"{path}:{error.lineno}:{error.colno}",
                f"not valid JSON: {error.msg}, near '{near}'.",
                "Mend the file there.",
                "json",
            )
        ) from None
    except RecursionError:
        raise DataError(Fault(str(path), "the JSON is nested too deeply to be a dataset.", kind="json")) from None


def _from_document(document: Any, root: Path, options: DataConfig) -> Dataset:
    faults, notes = Faults(), []
    if not isinstance(document, Document):
        document = _checked_parts(document, faults)
    return _finish(*_document_tables(document, faults, notes), faults, notes, options, root)


def _finish(
    users: pa.Table,
    items: pa.Table,
    interactions: pa.Table,
    faults: Faults,
    notes: list[str],
    options: DataConfig,
    root: Path,
) -> Dataset:
    users, items, interactions = check_tables(users, items, interactions, faults, options, notes=notes)
    users, items, roles = apply_roles(users, items, options, notes, faults)
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    return Dataset(users, items, interactions, root, roles, notes)


def _checked_parts(document: Any, faults: Faults) -> dict[str, list[Any]]:
    """The three lists, with faults for what is missing, misspelt or no list."""
    if not isinstance(document, dict):
        raise DataError(
            Fault("/", f"a dataset is an object with {', '.join(TOP)}; found {show(document)}.", kind="shape")
        )
    for key in document:
        if key not in TOP:
            faults.add("unknown key", f"/{key}", "unknown key.", did_you_mean(key, TOP))
    parts: dict[str, list[Any]] = {}
    for key in TOP:
        value = document.get(key)
        if not isinstance(value, list):
            found = "it is missing" if key not in document else f"found {show(value)}"
            faults.add("shape", f"/{key}", f"expected a list; {found}.")
            value = []
        parts[key] = value
    return parts


def _document_tables(
    document: Document | dict[str, list[Any]], faults: Faults, notes: list[str]
) -> tuple[pa.Table, pa.Table, pa.Table]:
    def part(name: str) -> list[Any]:
        """Taken out, so that the rows are freed as soon as they are columns."""
        rows = getattr(document, name) if isinstance(document, Document) else document[name]
        if isinstance(document, Document):
            setattr(document, name, [])
        else:
            document[name] = []
        return rows

    interactions = _interactions(part("interactions"), faults, notes)
    users = _records(part("user_data"), "user", faults, notes)
    return users, _records(part("item_data"), "item", faults, notes), interactions


def _records(rows: list[Any], side: Side, faults: Faults, notes: list[str]) -> pa.Table:
    part, key = f"{side}_data", f"{side}_id"
    rows = _objects(rows, part, faults)
    columns = {key: id_column(_values(rows, key), lambda row: f"/{part}/{row}/{key}", faults)}
    for group in sorted(set().union(*rows) - {key}):
        groups = _values(rows, group)
        wrong = [row for row, value in enumerate(groups) if value is not None and type(value) is not dict]
        if wrong:
            faults.add_rows(
                "bad value",
                wrong,
                lambda row, group=group, groups=groups: (
                    f"/{part}/{row}/{group}",
                    f"a feature group is an object of named features; found {show(groups[row])}.",
                    did_you_mean(group, [key, "image", "text", "categorical", "continuous", "temporal"]),
                ),
            )
            groups = [value if type(value) is dict else None for value in groups]
        groups = [value or {} for value in groups]
        for name in sorted(set().union(*groups)):
            values = _values(groups, name)
            if not any(value is not None for value in values):
                notes.append(f"The {side} feature '{group}.{name}' has a value in no record and is left out.")
                continue
            columns[f"{group}.{name}"] = feature_column(group, values, _pointer(part, group, name), faults)
    return pa.table(columns)


def _pointer(*parts: str) -> Pointer:
    first, *rest = parts
    tail = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in rest)
    return lambda row: f"/{first}/{row}{tail}"


def _values(rows: list[dict[str, Any]], key: str) -> list[Any]:
    """One key's value in every row, None where it is missing."""
    return list(map(dict.get, rows, repeat(key)))


def _objects(rows: list[Any], part: str, faults: Faults) -> list[dict[str, Any]]:
    if set(map(type, rows)) <= {dict}:
        return rows
    wrong = [row for row, value in enumerate(rows) if type(value) is not dict]
    faults.add_rows("shape", wrong, lambda row: (f"/{part}/{row}", f"expected an object; found {show(rows[row])}.", ""))
    return [value if type(value) is dict else {} for value in rows]  # the others keep their places, and their pointers


def _interactions(rows: list[Any], faults: Faults, notes: list[str]) -> pa.Table:
    if rows and isinstance(rows[0], Interaction):
        values = {field: list(map(attrgetter(field), rows)) for field in FIELDS}
    else:
        rows = _objects(rows, "interactions", faults)
        values = {field: _values(rows, field) for field in FIELDS}
        extra = sorted(set().union(*rows) - set(FIELDS))
        if extra:
            names = ", ".join(f"'{name}'" for name in extra)
            notes.append(f"Interactions also have {names}, which is not used: further facts belong in 'context'.")
    columns = {}
    for key in ("user_id", "item_id"):
        columns[key] = id_column(values[key], _pointer("interactions", key), faults)
    for name in ("weight", "rating", "label"):
        if set(map(type, values[name])) - {type(None)}:
            columns[name] = number_column(values[name], _pointer("interactions", name), faults, name)
    if set(map(type, values["timestamp"])) - {type(None)}:
        columns["timestamp"] = time_column(values["timestamp"], _pointer("interactions", "timestamp"), faults)
    kinds = values["interaction_type"]
    if set(map(type, kinds)) - {type(None)}:
        wrong = (
            [row for row, kind in enumerate(kinds) if kind is not None and type(kind) is not str]
            if set(map(type, kinds)) - {str, type(None)}
            else []
        )
        faults.add_rows(
            "bad value",
            wrong,
            lambda row: (f"/interactions/{row}/interaction_type", f"expected a text; found {show(kinds[row])}.", ""),
        )
        columns["interaction_type"] = pa.array(
            [k if type(k) is str else None for k in kinds] if wrong else kinds, pa.string()
        )
    columns |= _context(values["context"], faults)
    return pa.table(columns)


def _context(values: list[Any], faults: Faults) -> dict[str, pa.Array]:
    """`context.name` columns, of whatever type their values have."""
    if not set(map(type, values)) - {type(None)}:
        return {}
    wrong = [row for row, value in enumerate(values) if value is not None and type(value) is not dict]
    faults.add_rows(
        "bad value",
        wrong,
        lambda row: (f"/interactions/{row}/context", f"expected an object; found {show(values[row])}.", ""),
    )
    rows = [value if type(value) is dict else {} for value in values]
    return {
        f"context.{name}": feature_column(
            "context", _values(rows, name), _pointer("interactions", "context", name), faults
        )
        for name in sorted(set().union(*rows))
    }


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of fresh objects, none of them garbage: collecting meanwhile doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
