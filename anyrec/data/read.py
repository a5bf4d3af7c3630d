"""Any supported file, folder or set of tables to validated `Tables`. All faults are reported together."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.check_sources import source_faults
from anyrec.core.config import DataConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError, Fault, checked_path, did_you_mean
from anyrec.core.registry import Registry
from anyrec.core.scratch import kept
from anyrec.core.timing import timed
from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.data.checks.row_limits import apply_limits
from anyrec.data.checks.temporal_roles import apply_roles, unknown_roles
from anyrec.data.checks.validate import check_tables
from anyrec.data.formats.containers import STDIN, read_bytes, refuse_one_table
from anyrec.data.formats.decode import DOCUMENT_PARTS, Document, decode, doubled_keys
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.frames import DataFrame, dataframe_parts
from anyrec.data.formats.movielens import is_movielens, read_movielens
from anyrec.data.formats.parts import Part
from anyrec.data.formats.places import Origin, json_place
from anyrec.data.formats.records import document_tables
from anyrec.data.formats.table_files import read_table_folder
from anyrec.data.ids import Side
from anyrec.data.interpretation import interpretation
from anyrec.data.memory_limit import Room
from anyrec.data.sources.assemble import read_tables
from anyrec.data.sources.log_files import is_event_log
from anyrec.data.sources.read_log import read_log
from anyrec.data.sources.several import DataSet, together
from anyrec.data.tables import ROWS, Tables, with_computed


@timed("data read")
def read_path(path: str | Path | Sequence[str | Path], options: DataConfig | None = None) -> Tables:
    """Read and validate a dataset file or folder, or several as one.

    Args:
        path: A JSON or YAML file, which may be packed by gzip; `-` for JSON from standard input; a folder of users,
            items and interactions as JSON Lines, CSV or Parquet; a MovieLens folder; or the log of a server. Or
            several of them, whose later records replace earlier ones.
        options: The config's `data` section.

    Raises:
        DataError: With every fault found.
    """
    options = options or DataConfig()
    given = [path] if isinstance(path, (str, os.PathLike)) or not isinstance(path, Sequence) else path
    paths = [checked_path(one, "path", DataError) for one in given]
    if not paths:
        raise DataError(Fault("path", "no path was given.", "Name a file or a folder.", "no data"))
    notes: list[str] = []
    with _no_garbage_collection(), _short_columns(" and ".join(map(str, paths))):
        room = Room(options, notes)
        sets = [_read_set(one, options, room, alone=len(paths) == 1) for one in paths]
        whole = together(sets, room.scratch, options.image_root)
        notes[:0] = whole.notes
        only_log = all(one.log for one in sets)  # its users and items are known by id, unless they were put
        known = options.model_copy(update={"unknown_ids": "keep"}) if only_log else options
        tables = _finish(whole.parts, whole.faults, notes, known, whole.root, room)
    return apply_limits(tables, options)


def read_frames(users: DataFrame, items: DataFrame, interactions: DataFrame, options: DataConfig, root: Path) -> Tables:
    """Validate pandas, polars or Arrow tables whose columns are named `group.name`.

    Args:
        users: Table with `user_id`.
        items: Table with `item_id`.
        interactions: Table with `user_id` and `item_id`.
        options: The config's `data` section.
        root: Folder that relative file names start from.

    Raises:
        DataError: With every fault found.
    """
    return apply_limits(_checked_frames(users, items, interactions, options, root), options)


@timed("data read")
def read_sources(
    options: DataConfig, registry: Registry | None = None, tables: Mapping[str, DataFrame] | None = None
) -> Tables:
    """Read and validate the tables of the config's `data.sources`.

    Args:
        options: The config's `data` section.
        registry: The components; by default those of `discover`.
        tables: Data frames that take the place of tables, by their `path`.

    Raises:
        ConfigError: If there are no sources, or they name columns that are not there.
        DataError: With every fault found.
    """
    if options.sources is None:
        what, hint = "the config names no tables.", "Give the data (--data), or write data.sources by `anyrec init`."
        raise ConfigError(Fault("/data/sources", what, hint, "no data"))
    if wrong := source_faults(options.sources):
        raise ConfigError(wrong)
    faults, notes = Faults(), []
    with _no_garbage_collection(), _short_columns("/data/sources"):
        room = Room(options, notes)
        parts, versions = read_tables(options, registry or discover(), faults, notes, tables or {}, room)
        made = _finish(parts, faults, notes, options, Path(options.sources.root or ""), room)
    made.versions = versions
    return apply_limits(made, options)


def _read_set(path: Path, options: DataConfig, room: Room, alone: bool) -> DataSet:
    """Read a file or folder. alone: Whether it is the whole data, and not one of several data sets."""
    faults, notes = Faults(), list[str]()
    missing_ok, ids_suffice = options.unknown_ids == "drop", options.unknown_ids == "keep" or not alone
    if is_event_log(path):
        return read_log(path, faults, notes, room)
    if not path.is_dir():
        parts = _read_file(path, faults, notes, ids_suffice=ids_suffice, missing_ok=missing_ok)
        return DataSet(str(path), parts, Path() if str(path) == STDIN else path.parent, faults, notes)
    if is_movielens(path):
        found = read_movielens(path)
        notes += found.notes
        parts = dataframe_parts((found.users, found.items, found.interactions), faults, notes, missing_ok)
        return DataSet(str(path), parts, path, faults, notes)
    parts = read_table_folder(path, faults, notes, ids_suffice=ids_suffice, missing_ok=missing_ok, room=room)
    return DataSet(str(path), parts, path, faults, notes)


def _checked_frames(
    users: DataFrame, items: DataFrame, interactions: DataFrame, options: DataConfig, root: Path
) -> Tables:
    faults, notes = Faults(), []
    parts = dataframe_parts((users, items, interactions), faults, notes, options.unknown_ids == "drop")
    return _finish(parts, faults, notes, options, root)


def _read_file(path: Path, faults: Faults, notes: list[str], *, ids_suffice: bool, missing_ok: bool) -> list[Part]:
    """Read a document of users, items and interactions."""
    refuse_one_table(path)
    data: bytes | None = read_bytes(path)
    document = decode(data, path, faults)
    if str(path) != STDIN:
        data = None  # the file is read again in the rare case that a key is doubled
    if isinstance(document, Document):
        keys_left, tables = document.keys_left, document_tables(document, faults, notes, missing_ok)
        if faults.keys != keys_left:
            doubled_keys(read_bytes(path) if data is None else data, path, keys_left, faults.keys, faults)
    else:
        lists = _checked_parts(document, faults, ids_suffice)
        tables = document_tables(lists, faults, notes, missing_ok)
    return [Part(table, json_place(name)) for table, name in zip(tables, DOCUMENT_PARTS, strict=True)]


def _finish(
    parts: list[Part], faults: Faults, notes: list[str], options: DataConfig, root: Path, room: Room | None = None
) -> Tables:
    """Check parts as a whole. Raises DataError with every fault found so far. room: Where interactions were kept."""
    places = [part.place for part in parts]
    rows: dict[Side, np.ndarray] = {}
    users, items, interactions = check_tables(
        parts[0].table,
        parts[1].table,
        parts[2].table,
        faults,
        options,
        notes=notes,
        places=places,
        rows=rows,
        scratch=None if room is None else room.scratch,
    )
    origins: dict[Side, Origin] = {
        "user": Origin(users.column("user_id"), places[0]),
        "item": Origin(items.column("item_id"), places[1]),
    }
    faults.add_all(unknown_roles(options.roles, users, items))
    users, items, roles = apply_roles(users, items, options, notes, faults, places)
    tables = Tables(users, items, interactions, root, roles, notes, origins)
    if faults:
        raise _with_remarks(faults, tables, options)
    scratch = (room or Room(options, notes)).finished(len(interactions))
    computed = {ROWS[side]: kept(rows.pop(side), scratch) for side in list(rows)}
    if scratch is not None:
        tables = replace(tables, interactions=scratch.keep_columns(interactions), scratch=scratch)
    return with_computed(tables, computed)


def _with_remarks(faults: Faults, tables: Tables, options: DataConfig) -> DataError:
    """Return the error of the faults.

    If only weights are at fault, the message also names types and ratings that are probably misunderstood, since
    negative weights are often meant as dislikes.
    """
    error = faults.error()
    if set(faults.counts) == {"bad weight"}:
        found = interpretation(tables, options)
        error.remarks = [f"{one.level}: {one.text} {one.advice}" for one in found if one.level == "warning"]
    return error


def _checked_parts(document: Json, faults: Faults, ids_suffice: bool) -> dict[str, list[Json]]:
    """Return the three lists of a document, and add faults for keys that are missing, unknown or no list.

    Args:
        document: Parsed JSON.
        faults: Gets the faults.
        ids_suffice: Accept a document without user_data or item_data.

    Raises:
        DataError: If the document is no object.
    """
    if not isinstance(document, dict):
        raise DataError(
            Fault(
                "/", f"a dataset is an object with {', '.join(DOCUMENT_PARTS)}; found {show(document)}.", kind="shape"
            )
        )
    unknown = [key for key in document if key not in DOCUMENT_PARTS]
    missing = [key for key in DOCUMENT_PARTS if key not in document]
    misspelt = {key: near[0] for key in unknown if (near := get_close_matches(key, missing, n=1, cutoff=0.5))}
    for key in document:
        if key not in DOCUMENT_PARTS and misspelt.get(key) is None:
            faults.add("unknown key", f"/{key}", "unknown key.", did_you_mean(key, DOCUMENT_PARTS))
    parts: dict[str, list[Json]] = {}
    for key in DOCUMENT_PARTS:
        value = document.get(key)
        if not isinstance(value, list) and not (ids_suffice and key not in document and key != "interactions"):
            found = "it is missing" if key not in document else f"found {show(value)}"
            instead = [name for name, meant in misspelt.items() if meant == key]
            hint = f"Rename {show(instead[0])} to '{key}'." if instead else ""
            faults.add("shape", f"/{key}", f"expected a list; {found}.", hint)
        parts[key] = value if isinstance(value, list) else []
    return parts


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause garbage collection: reading makes millions of objects and no garbage, and collecting doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def _short_columns(where: str) -> Iterator[None]:
    """Turn the error of a column with 2 GiB of texts, which Arrow cannot join, into DataError. where: Its source."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if "offset overflow" not in str(error):
            raise
        what = "a column has more than 2 GiB of texts."
        hint = "Write ids as whole numbers or shorter texts, or leave out columns that are not used."
        raise DataError(Fault(where, what, hint, "too large")) from None
