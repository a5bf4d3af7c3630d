"""Tables as they are to `data.sources` of a config, with the reasons in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject
from anyrec.data.formats.faults import Faults
from anyrec.data.infer.features import name_features
from anyrec.data.infer.parts import covered, find_parts, join_tags
from anyrec.data.infer.profile import Table, grouped, profile
from anyrec.data.sources.contract import Access
from anyrec.data.sources.open_table import opened_by, shown, title_of

PARTS = ("interactions", "items", "users")
MOST_TABLES = 50
"""Tables of a database that are looked at without a choice by the user."""
KEYS = {"items": "item_id", "users": "user_id"}
READABLE = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".arrow")
READABLE += (".feather", ".inter", ".user", ".item", ".xlsx", ".gz", ".bz2", ".zst", ".xz", ".zip")


@dataclass
class Inferred:
    """What was found.

    Attributes:
        data: The `data` section of a config.
        lines: What each column was taken for and why, and what was left out, for the user.
        questions: What only the user can decide. The config cannot be used as long as one begins with a question mark.
    """

    data: JsonObject
    lines: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)


def infer_sources(
    tables: Sequence[JsonObject],
    registry: Registry,
    *,
    root: Path | None = None,
    forced: Mapping[str, str] | None = None,
    allow_urls: bool = False,
) -> Inferred:
    """Find what the columns of tables mean.

    Args:
        tables: Where the tables are, as the config has it: {"path": "ratings.csv"}.
        registry: The components.
        root: Folder that relative paths start from; by default the working directory.
        forced: users, items or interactions by the number of a table, as the user says.
        allow_urls: Whether addresses of other machines may be opened.

    Raises:
        DataError: If a table cannot be read, or none has users and items.
    """
    access = Access(root or Path(), allow_urls, faults=Faults())
    found = [profile(config, access, registry, f"table {n + 1}") for n, config in enumerate(tables)]
    access.faults.raise_any()
    _name_apart(found)
    given = {found[int(number)].name: part for number, part in (forced or {}).items()}
    found = grouped(found)
    questions = find_parts(found, given)
    tags = join_tags(found)
    if not any(table.part == "interactions" for table in found):
        raise _no_interactions(found)
    for table in found:
        if table.part in PARTS:
            log = table.part == "interactions"
            name_features(table, questions)
            if (
                not log
                and not any("." in str(one.meaning) for one in table.columns.values())
                and _is_idle(table, found)
            ):
                table.part = ""
    data = {"sources": {part: made for part in ("users", "items", "interactions") if (made := _configs(found, part))}}
    lines = [*_lines(found), *tags, *_overlaps(found, data)]
    return Inferred(data, lines, questions)


def _name_apart(tables: list[Table]) -> None:
    """Give each table a name of its own: that of a table of a database, or else the place if several share one."""
    for table in tables:
        table.name = table.config.get("table") or table.name
    for name in [name for name, count in Counter(table.name for table in tables).items() if count > 1]:
        for number, table in enumerate(one for one in tables if one.name == name):
            title = title_of(TableConfig.model_validate(table.config))
            table.name = title if title not in (name, *(one.name for one in tables)) else f"{title} ({number + 1})"


def _is_idle(table: Table, found: list[Table]) -> bool:
    """Return whether a table without features adds nothing: another table has its records."""
    key = table.role(KEYS[table.part])
    others = [one for one in found if one.part == table.part and one is not table]
    return key is not None and any(covered(key, one) == 1 for other in others if (one := other.role(KEYS[table.part])))


def tables_at(places: Sequence[str]) -> list[JsonObject]:
    """Return the tables at paths: a folder of several tables is one table for each of its files.

    Args:
        places: Files, patterns, folders and addresses.
    """
    found: list[JsonObject] = []
    for place in places:
        folder = Path(place)
        if (
            "://" not in place
            and folder.is_dir()
            and not any("=" in one.name for one in folder.iterdir() if one.is_dir())
        ):
            inside = sorted(one for one in folder.iterdir() if one.is_file() and _is_readable(one))
            found += [{"path": str(one)} for one in inside]
        else:
            found.append({"path": place})
    return found


def tables_within(table: JsonObject, registry: Registry) -> list[JsonObject]:
    """Return the tables of a database, or the table itself if it is none.

    Args:
        table: Where it is, as the user says, so an address may be opened.
        registry: The components.

    Raises:
        DataError: If the database cannot be opened, or has too many tables to look at.
    """
    config = TableConfig.model_validate(table)
    found = opened_by(config, registry).tables(config, Access(allow_urls=True))
    if len(found) > MOST_TABLES:
        what, hint = f"this database has {len(found)} tables.", 'Choose: --query interactions="select ...".'
        raise DataError(Fault(shown(config), what, hint, "no query"))
    return [{"database": config.places[0], "table": name} for name in found] or [table]


def is_remote(table: JsonObject, registry: Registry) -> bool:
    """Return whether reading a table connects to other machines. The arguments are those of `tables_within`."""
    config = TableConfig.model_validate(table)
    return opened_by(config, registry).is_remote(config)


def _is_readable(path: Path) -> bool:
    return path.suffix.lower() in READABLE and not path.stem.lower().startswith(("readme", "license", "."))


def _no_interactions(found: list[Table]) -> DataError:
    about = "; ".join(f"{table.name} has {', '.join(list(table.columns)[:8])}" for table in found)
    what = f"no table has columns of users and items: {about}."
    hint = "Name one by --interactions FILE and write its columns into data.sources (docs/data-sources.md)."
    return DataError(Fault("data", what, hint, "no data"))


def _configs(found: list[Table], part: str) -> list[JsonObject]:
    """Return the tables of a part as the config has them. Columns that are left out are null."""
    made = []
    for table in found:
        if table.part == part:
            columns = {name: one.meaning for name, one in table.columns.items()}
            entry = {**table.config, **table.options, "columns": columns}
            if table.joins:
                entry["join"] = table.joins
                columns_of_joins = {key for join in table.joins for key in _keys(join)}
                entry["columns"] = {
                    name: meaning
                    for name, meaning in columns.items()
                    if meaning is not None or name not in columns_of_joins
                }
            if table.constants:
                entry["constants"] = table.constants
            made.append(entry)
    return made


def _keys(join: JsonObject) -> list[str]:
    return [join["on"]] if isinstance(join["on"], str) else list(join["on"])


def _lines(found: list[Table]) -> list[str]:
    """Return a line for each table and for each of its columns."""
    lines = []
    for table in sorted(found, key=lambda one: PARTS.index(one.part) if one.part in PARTS else 9):
        if table.part == "joined":
            continue
        rows = f"{table.rows:,} rows" + ("" if table.whole else " looked at")
        lines.append(f"{table.name}: {table.part or 'not used'} ({rows})" + ("" if table.part else _why_unused(table)))
        lines += [f"  {note}" for note in table.notes]
        lines += [f"  all rows: {role} = {value}, the name of the file" for role, value in table.constants.items()]
        if table.part:
            width = min(24, max(map(len, table.columns)))
            lines += [_line(name, one.meaning, one.why, width) for name, one in table.columns.items() if one.meaning]
            left = [(name, one.why) for name, one in table.columns.items() if not one.meaning]
            lines += [f"  {name:<{width}}    left out: {why or 'not needed'}" for name, why in left]
    return lines


def _line(name: str, meaning: Json, why: str, width: int) -> str:
    first = meaning[0] if isinstance(meaning, list) else meaning
    target = first["to"] if isinstance(first, dict) else first
    return f"  {name:<{width}} -> {target:<22} {why}"


def _why_unused(table: Table) -> str:
    names = ", ".join(list(table.columns)[:6])
    return f": no feature of single users or items was found ({names})"


def _overlaps(found: list[Table], data: JsonObject) -> list[str]:
    """Compare the ids of the tables. Interactions without a record get one, which is said and written down."""
    lines = []
    for part, key in KEYS.items():
        own = [one for table in found if table.part == part and (one := table.role(key)) is not None]
        logs = [one for table in found if table.part == "interactions" and (one := table.role(key)) is not None]
        for one in logs if own else []:
            share = max(covered(one, other) for other in own)
            if share < 1:
                data["unknown_ids"] = "keep"
                missing = round((1 - share) * one.distinct)
                lines.append(
                    f"{missing:,} of the {one.distinct:,} {part} of the interactions have no record: data.unknown_ids "
                    'is "keep", so they are known by their ids alone; "drop" leaves their interactions out.'
                )
    return lines
