"""Any supported file or folder in, a validated Dataset out; every fault reported together."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault, checked_path, did_you_mean
from anyrec.data.checks.row_limits import apply_limits
from anyrec.data.checks.temporal_roles import apply_roles, check_roles
from anyrec.data.checks.validate import check_tables
from anyrec.data.dataset import Dataset, Side, rows_of
from anyrec.data.formats.columns import Faults, show
from anyrec.data.formats.containers import STDIN, read_bytes, refuse_one_table
from anyrec.data.formats.decode import Document, decode, decode_any, doubled_keys
from anyrec.data.formats.places import Place, json_place
from anyrec.data.formats.records import GROUPS, document_tables
from anyrec.data.formats.tables import Part, dataframe_parts, read_table_folder
from anyrec.data.histories import HISTORY_NAMES

TOP = ("user_data", "item_data", "interactions")


def read_dataset(path: str | Path, options: DataConfig | None = None) -> Dataset:
    """A dataset file or folder as a validated Dataset.

    path: JSON, perhaps packed by gzip; `-` for JSON from standard input; a folder of users, items and interactions as JSON
    Lines, CSV or Parquet; or a MovieLens folder.

    Raises DataError with every fault found.
    """
    path, options = checked_path(path, "path", DataError), options or DataConfig()
    with _no_garbage_collection():
        dataset = _tables_of(path, options)
    return apply_limits(dataset, options)


def _tables_of(path: Path, options: DataConfig) -> Dataset:
    faults, notes = Faults(), []
    if path.is_dir():
        from anyrec.data.formats.movielens import is_movielens, movielens

        if is_movielens(path):
            found = movielens(path)
            made = dataset_from_tables(found.users, found.items, found.interactions, options, path)
            made.notes = [*found.notes, *made.notes]
            return made
        parts = read_table_folder(path, options, faults, notes)
        return _finish(parts, faults, notes, options, path)
    refuse_one_table(path)
    data = read_bytes(path)
    document = decode(data, path, faults)
    is_stdin = str(path) == STDIN
    if not is_stdin:
        del data  # is read again if a key is doubled, which is seldom
    if isinstance(document, Document):
        left, tables = document.keys_left, document_tables(document, faults, notes, options.unknown_ids == "drop")
        if faults.keys != left:
            doubled_keys(data if is_stdin else read_bytes(path), path, left, faults.keys, faults)
        parts = [Part(table, json_place(name)) for table, name in zip(tables, TOP, strict=True)]
        return _finish(parts, faults, notes, options, Path() if is_stdin else path.parent)
    return _from_document(document, path.parent, options, faults)


def dataset_from_tables(users: Any, items: Any, interactions: Any, options: DataConfig, root: Path) -> Dataset:
    """pandas, polars or Arrow tables with `group.name` columns, validated like any other data. Raises DataError."""
    faults, notes = Faults(), []
    parts = dataframe_parts((users, items, interactions), faults, notes, options.unknown_ids == "drop")
    return _finish(parts, faults, notes, options, root)


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
    elif isinstance(source, dict) and not set(source) & set(TOP) and (not source or set(source) & {"user_id", *GROUPS}):
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
    tables = document_tables(document, faults, notes)
    return finish_partial(tables, faults, notes, options, roles, root or Path(), item_ids)


def finish_partial(
    tables: tuple[pa.Table, pa.Table, pa.Table],
    faults: Faults,
    notes: list[str],
    options: DataConfig,
    roles: dict[str, str],
    root: Path,
    item_ids: pa.Array | None = None,
    places: Sequence[Place] | None = None,
) -> Dataset:
    """The checks that all forms of a request share. Raises DataError with every fault.

    Without records of users, the request is about the users of its interactions.
    """
    owners = tables[2].column("user_id").combine_chunks()
    if not len(tables[0]):
        tables = (pa.table({"user_id": owners.unique().drop_null()}), *tables[1:])
    check_owners(tables[0], tables[2], faults, places[2] if places else None)
    check_tables(*tables, faults, options, partial=True, places=places)
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    known = {**roles, **options.roles}
    if item_ids is not None:
        known = {**_history_roles(tables[0], known, options, item_ids), **known}
    users, items, found = apply_roles(
        tables[0], tables[1], options.model_copy(update={"roles": known}), [], faults, places, item_ids
    )
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    notes += _lost_ids(tables[0], users, found)
    image_root = Path(options.image_root) if options.image_root else root
    return Dataset(users, items, tables[2], image_root, found, notes)


def check_owners(users: pa.Table, interactions: pa.Table, faults: Faults, place: Place | None = None) -> None:
    """A fault for each interaction of a user that the request has no record of."""
    owners, ids = interactions.column("user_id"), users.column("user_id").combine_chunks()
    lost = np.flatnonzero((rows_of(owners, ids) < 0) & owners.is_valid().to_numpy())
    place = place or json_place("interactions")
    faults.add_rows(
        "unknown user",
        lost,
        lambda row: (
            place(row, "user_id"),
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


def _from_document(document: Any, root: Path, options: DataConfig, faults: Faults | None = None) -> Dataset:
    faults, notes = Faults() if faults is None else faults, []
    document = _checked_parts(document, faults, options.unknown_ids == "keep")
    tables = document_tables(document, faults, notes, options.unknown_ids == "drop")
    parts = [Part(table, json_place(name)) for table, name in zip(tables, TOP, strict=True)]
    return _finish(parts, faults, notes, options, root)


def _finish(parts: list[Part], faults: Faults, notes: list[str], options: DataConfig, root: Path) -> Dataset:
    places = [part.place for part in parts]
    users, items, interactions = check_tables(
        parts[0].table, parts[1].table, parts[2].table, faults, options, notes=notes, places=places
    )
    check_roles(options, users, items, faults)
    users, items, roles = apply_roles(users, items, options, notes, faults, places)
    dataset = Dataset(users, items, interactions, root, roles, notes)
    if faults:
        raise _with_remarks(faults, dataset, options)
    return dataset


def _with_remarks(faults: Faults, dataset: Dataset, options: DataConfig) -> DataError:
    """The error of the faults. If only weights are at fault, the message also says which types and ratings are probably
    not understood as they were meant, since negative weights are often meant as dislikes."""
    error = faults.error()
    if set(faults.counts) == {"bad weight"}:
        from anyrec.data.interpretation import interpretation

        found = interpretation(dataset, options)
        error.remarks = [f"{one.level}: {one.text} {one.advice}" for one in found if one.level == "warning"]
    return error


def _checked_parts(document: Any, faults: Faults, ids_suffice: bool) -> dict[str, list[Any]]:
    """The three lists, with faults for what is missing, misspelt or no list.

    ids_suffice: user_data and item_data may be missing.
    """
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
        if not isinstance(value, list) and not (ids_suffice and key not in document and key != "interactions"):
            found = "it is missing" if key not in document else f"found {show(value)}"
            faults.add("shape", f"/{key}", f"expected a list; {found}.")
        if not isinstance(value, list):
            value = []
        parts[key] = value
    return parts


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
