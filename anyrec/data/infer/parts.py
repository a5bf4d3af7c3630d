"""Which table holds users, items or interactions, and which columns are their ids, times, ratings and types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.values import show
from anyrec.data.infer.names import TAGS, normal, role_of
from anyrec.data.infer.profile import Column, Table
from anyrec.data.infer.shapes import as_epochs

ID_SHAPES = ("whole", "category", "text", "boolean")
OVERLAP = 0.5
"""Fraction of the ids of interactions that a table's ids must cover to be taken for the same ids."""
NEARLY = 0.95
"""Fraction of different ids from which on a table has one row for each user or item, perhaps some twice."""
MOST_ASKED = 4
"""Most columns that are asked about if names do not say which are the ids."""
CLOCKS = {
    "^[0-2][0-9]:[0-5][0-9]:[0-5][0-9]$": "%H:%M:%S",
    "^[0-2][0-9]:[0-5][0-9]$": "%H:%M",
}
"""Times of day and their formats."""
FEW_TYPES = 50
"""Most different types of interactions."""


def find_parts(tables: list[Table], forced: dict[str, str]) -> list[str]:
    """Find out which part each table is, and the roles of its columns.

    Args:
        tables: The tables; `part` and the meanings of columns are set.
        forced: Part by the name of a table, as the user says.

    Returns:
        Sentences about what only the user can decide.
    """
    questions: list[str] = []
    for table in tables:
        _ids_by_name(table, questions)
    for table in tables:
        if table.name in forced:
            table.part = forced[table.name]
    logs = [one for one in tables if not one.part and one.role("user_id") and one.role("item_id")]
    _sort_logs(logs)
    if not any(one.part == "interactions" for one in tables):
        _log_of_two_tables(tables)
    if not any(one.part == "interactions" for one in tables):
        questions += _ids_by_values(tables)
    _records(tables)
    for table in tables:
        if table.part == "interactions":
            _other_roles(table, questions)
    _types_by_file(tables)
    return questions


def _ids_by_name(table: Table, questions: list[str]) -> None:
    """Take columns for ids by their names, if their values can be ids."""
    for role in ("user_id", "item_id"):
        named = [(found[1], one) for one in table.columns.values() if (found := role_of(one.name)) and found[0] == role]
        named = [(place, one) for place, one in named if one.shape.kind in ID_SHAPES and one.present]
        named.sort(key=lambda pair: (pair[0], list(table.columns).index(pair[1].name)))
        for number, (_, one) in enumerate(named):
            if number == 0:
                one.meaning, one.why = role, f"its name; {_id_values(one)}"
            else:
                one.why = f"could be the {role} as well"


def _id_values(one: Column) -> str:
    return f"{one.distinct:,} different values" + ("" if one.unique else " that repeat" if one.distinct else "")


def _sort_logs(logs: list[Table]) -> None:
    """Tables with both ids are interactions, or tags that users give to items."""
    plain = [one for one in logs if not _is_tags(one)]
    for table in plain or logs:
        item = table.role("item_id")
        others = [one for one in logs if one is not table]
        if item is not None and item.unique and any(not _unique(one, "item_id") for one in others):
            continue  # a table of items that names a user, such as the seller
        table.part = "interactions"
    for table in logs:
        if not table.part and _is_tags(table):
            table.part = "tags"


def _unique(table: Table, role: str) -> bool:
    found = table.role(role)
    return found is not None and found.unique


def _is_tags(table: Table) -> bool:
    """Return whether a table has a short text for user and item, and neither rating nor type."""
    roles = {found[0] for one in table.columns.values() if (found := role_of(one.name))}
    tagged = [one for one in table.columns.values() if normal(one.name) in TAGS.split()]
    return (
        bool(tagged)
        and tagged[0].shape.kind in ("category", "text", "split")
        and not roles & {"rating", "interaction_type"}
    )


def _log_of_two_tables(tables: list[Table]) -> None:
    """Find interactions whose user is in another table: order lines and orders."""
    for lines in tables:
        if lines.part or lines.role("item_id") is None or lines.role("user_id") is not None:
            continue
        for orders in tables:
            key = _common_key(lines, orders) if orders is not lines and orders.role("user_id") is not None else None
            if key is not None and not _unique(lines, "item_id"):
                lines.part, orders.part = "interactions", "joined"
                _join(lines, orders, key, None)
                return


def _common_key(table: Table, other: Table) -> tuple[Column, Column] | None:
    """Return the columns of one name that match a table's rows to the single rows of another."""
    for one in other.columns.values():
        if not one.unique or one.meaning is not None:
            continue
        match = next((two for two in table.columns.values() if normal(two.name) == normal(one.name)), None)
        if match is not None and match.meaning is None and covered(match, one) >= 0.9:
            return match, one
    return None


def _join(table: Table, other: Table, key: tuple[Column, Column], columns: dict[str, str] | None) -> None:
    """Add a side table: its columns become columns of the table, with the values of the matching rows."""
    left, right = key
    on = left.name if left.name == right.name else {left.name: right.name}
    wanted = [name for name in (columns or other.columns) if name != right.name]
    prefix = "" if not set(wanted) & set(table.columns) else normal(other.name.rsplit(".", 1)[0]) + "_"
    join = {**other.config, "on": on, **({"prefix": prefix} if prefix else {})}
    if columns is not None:
        join["columns"] = columns
    table.joins.append(join)
    rows = pc.index_in(_as_texts(left.values), value_set=_as_texts(right.values))
    for name in wanted:
        one = other.columns[name]
        taken = one.values.take(rows) if columns is None else one.values
        table.columns[prefix + name] = Column(
            prefix + name,
            taken,
            one.shape,
            one.distinct,
            one.present,
            one.meaning,
            f"{one.why} (of {other.name})".strip(),
        )
    left.why = left.why or f"joins {other.name}"


def _as_texts(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def covered(ids: Column, among: Column) -> float:
    """Return the fraction of the different values of one column that another has."""
    if not ids.distinct or not among.distinct:
        return 0.0
    return float(pc.mean(pc.is_in(ids.texts, value_set=among.texts)).as_py() or 0.0)


def _ids_by_values(tables: list[Table]) -> list[str]:
    """Ask for the ids of the largest table, whose names say nothing: columns whose values repeat."""
    if not tables:
        return []
    table = max(tables, key=lambda one: one.rows)
    repeating = [
        one
        for one in table.columns.values()
        if one.shape.kind in ("whole", "category", "text") and 1 < one.distinct < one.present and _times_of(one) is None
    ]
    repeating.sort(key=lambda one: -one.distinct)
    known = [role for role in ("user_id", "item_id") if table.role(role) is not None]
    open_roles = [role for role in ("user_id", "item_id") if role not in known]
    if len(repeating) < len(open_roles) or not open_roles:
        return [f"{table.name}: no columns look like ids of users and items; write them in `columns`."]
    table.part = "interactions"
    candidates = [one for one in repeating if one.meaning is None][:MOST_ASKED]
    for one in sorted(candidates, key=lambda one: list(table.columns).index(one.name)):
        one.meaning = "?" + " | ".join(open_roles)
        one.why = f"could be {' or '.join(open_roles)}: {_id_values(one)}"
    names = " and ".join(f"'{one.name}'" for one in candidates)
    roles = " and ".join(open_roles)
    what = f"{table.name}: {names} look like ids, and their names do not say of which"
    return [f"{what}: write {roles} for one each, and null for the others."]


def _records(tables: list[Table]) -> None:
    """Find the tables of items and users: by the names of their ids, or by ids that the interactions have."""
    logs = [one for one in tables if one.part == "interactions"]
    for table in tables:
        if table.part not in ("", "items", "users"):
            continue
        for role, part in (("item_id", "items"), ("user_id", "users")):
            if table.part not in ("", part):
                continue
            ids = [found for log in logs if (found := log.role(role)) is not None]
            own = table.role(role)
            if own is not None and ids and not any(covered(one, own) > 0 for one in ids):
                own.meaning, own.why = None, f"none of its values is a {role} of the interactions"
                own = None
            if own is None and ids:
                own = _matching(table, ids, role)
            if own is not None and own.distinct >= NEARLY * table.rows:
                table.part = part
                if not own.unique and own.present == table.rows:
                    table.options["repeats"] = "latest"
                    repeated = table.rows - own.distinct
                    rows = "1 row repeats" if repeated == 1 else f"{repeated:,} rows repeat"
                    table.notes.append(f"{rows} an id: the latest value of each column counts")
                for one in table.columns.values():
                    if one is not own and one.meaning in ("user_id", "item_id"):
                        one.meaning, one.why = None, ""
                break
            if own is not None and _side_of(table, own, part, tables):
                break
    for table in tables:
        if table.part in ("items", "users", "interactions"):
            _lookups(table, tables)


def _matching(table: Table, ids: list[Column], role: str) -> Column | None:
    """Return a column without repeated values that has most ids of the interactions."""
    for one in table.columns.values():
        if one.meaning is None and one.unique and one.shape.kind in ID_SHAPES:
            share = max(covered(found, one) for found in ids)
            if share >= OVERLAP and not _is_count(one, ids):
                one.meaning, one.why = role, f"it has {share:.0%} of the {role}s of the interactions"
                return one
    return None


def _is_count(one: Column, ids: list[Column]) -> bool:
    """Return whether a column numbers the rows from 0 or 1, which covers any small whole ids by chance."""
    return one.shape.kind == "whole" and normal(one.name) not in ("id", "") and role_of(one.name) is None


def _side_of(table: Table, key: Column, part: str, tables: list[Table]) -> bool:
    """Join a table with several rows for an item, such as tags, to the table of items, as lists of its texts."""
    main = max((one for one in tables if one.part == part), key=_described, default=None)
    tags = {one.name: "list" for one in table.columns.values() if normal(one.name) in TAGS.split()}
    tags = {name: how for name, how in tags.items() if table.columns[name].shape.kind in ("category", "text", "split")}
    own = main.role("item_id" if part == "items" else "user_id") if main is not None else None
    if main is None or own is None or not tags:
        return False
    table.part = "joined"
    _join(main, table, (own, key), tags)
    return True


def _described(table: Table) -> int:
    """Return how many columns of a table say something in words."""
    return sum(one.shape.kind in ("text", "texts", "split", "list", "category") for one in table.columns.values())


def _lookups(table: Table, tables: list[Table]) -> None:
    """Join tables whose key a column of a table names: the names of categories by their ids."""
    for other in tables:
        if other.part:
            continue
        key = _common_key(table, other)
        if key is not None:
            other.part = "joined"
            _join(table, other, key, None)


def join_tags(tables: list[Table]) -> list[str]:
    """Join the tags that users gave to items. Returns sentences for the user."""
    said = []
    for table in tables:
        key = table.role("item_id")
        if table.part != "tags" or key is None:
            continue
        table.part = ""
        if _side_of(table, key, "items", tables):
            said.append(
                f"{table.name}: the tags of users become a feature of the items. They may have been written after the "
                "interactions that are held out; leave the column out to compare with published figures."
            )
    return said


def _times_of(one: Column):
    return one.shape if one.shape.kind == "time" else as_epochs(one.shape)


def _other_roles(table: Table, questions: list[str]) -> None:
    """Find time, rating, type, label and weight of interactions."""
    for role in ("timestamp", "rating", "interaction_type", "label", "weight"):
        named = [
            (found[1], one)
            for one in table.columns.values()
            if one.meaning is None and (found := role_of(one.name)) and found[0] == role and _fits(one, role)
        ]
        if role == "timestamp" and not named:
            named = [(0, one) for one in table.columns.values() if one.meaning is None and one.shape.kind == "time"]
            named += [(0, one) for one in table.columns.values() if one.meaning is None and _epoch_by_values(one)]
        named.sort(key=lambda pair: pair[0])
        if not named:
            continue
        if role == "rating" and len(named) > 1:
            for _, one in named:
                one.meaning, one.why = "?rating", f"could be the rating: {one.shape.about}"
            names = " and ".join(f"'{one.name}'" for _, one in named)
            questions.append(
                f'{table.name}: {names} could be the rating; write "rating" for one and null for the other.'
            )
            continue
        _take(table, named[0][1], role, questions)
        if role == "timestamp":
            _append_clock(table, named[0][1])
        for _, one in named[1:]:
            one.why = f"could be the {role} as well: {one.shape.about}"


def _take(table: Table, one: Column, role: str, questions: list[str]) -> None:
    """Take a column for a role, with the changes that read its values."""
    shape = (_times_of(one) or one.shape) if role == "timestamp" else one.shape
    by = "its name" if role_of(one.name) else "its values"
    one.why = f"{by}; {shape.about}"
    if shape.choices:
        one.meaning = {"to": f"?{role}", **shape.choices[0]}
        ways = " or ".join(
            f'{{"to": "{role}", {", ".join(f"{show(k)}: {show(v)}" for k, v in way.items())}}}'
            for way in shape.choices[:3]
        )
        questions.append(f"{table.name}: '{one.name}' holds {shape.about}; write {ways}.".replace("'", '"'))
        return
    one.meaning = {"to": role, **shape.how} if shape.how else role


def _append_clock(table: Table, day: Column) -> None:
    """Append the column of the times of day to that of the days, if there is one."""
    meaning = day.meaning if isinstance(day.meaning, dict) else {"to": day.meaning}
    form = meaning.get("time", "")
    if meaning["to"] != "timestamp" or "%H" in form or "%I" in form or not (form or "days" in day.why):
        return
    for one in table.columns.values():
        if one is day or one.meaning is not None or not pa.types.is_string(one.values.type) or not one.present:
            continue
        found = one.values.drop_null()
        for pattern, clock in CLOCKS.items():
            if pc.all(pc.match_substring_regex(found, pattern)).as_py():
                day.meaning = {**meaning, "append": [one.name], **({"time": f"{form} {clock}"} if form else {})}
                day.why += f", with the times of day in {one.name}"
                one.why = f"joins {day.name}: it is the time of day"
                return


def _fits(one: Column, role: str) -> bool:
    """Return whether the values of a column can be those of a role."""
    kind = one.shape.kind
    if role == "timestamp":
        return _times_of(one) is not None
    if role in ("rating", "weight"):
        return kind in ("whole", "number") and one.distinct > 1 and not (role == "rating" and _too_large(one))
    if role == "label":
        return kind == "boolean" or (kind == "whole" and one.distinct == 2 and set(one.texts.to_pylist()) <= {"0", "1"})
    return kind in ("category", "text", "boolean", "whole") and 0 < one.distinct <= FEW_TYPES


def _too_large(one: Column) -> bool:
    """Return whether numbers are no ratings: more than 1,000 or of hundreds of values."""
    numbers = one.shape.parsed
    return numbers is not None and (np.abs(numbers.to_numpy(zero_copy_only=False)).max() > 1_000 or one.distinct > 500)


def _epoch_by_values(one: Column) -> bool:
    """Return whether whole numbers are times, also without a name that says so: of the years 1995 to 2035."""
    if one.shape.kind != "whole" or one.distinct < 2:
        return False
    shape = as_epochs(one.shape)
    if shape is None or shape.parsed is None:
        return False
    least, most = (found.as_py().year for found in pc.min_max(shape.parsed).values())
    return least >= 1995 and most <= 2035


def _types_by_file(tables: list[Table]) -> None:
    """Name the type of interactions by the file, if there are several files and none has a column of types."""
    logs = [one for one in tables if one.part == "interactions"]
    if len(logs) < 2:
        return
    for table in logs:
        if table.role("interaction_type") is None and "query" not in table.config:
            table.constants["interaction_type"] = table.name.split(".")[0].lower()
