"""Which columns of users, items and interactions are features, of which group, and how they are read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.data.infer.names import COUNTED, WEIGHTS, feature_name, is_code, is_title, normal, words_of
from anyrec.data.infer.profile import Column, Table
from anyrec.data.infer.shapes import Shape, as_epochs
from anyrec.data.list_columns import is_list

OTHERS = ("none of", "joins")
"""Beginnings of the reasons why columns are keys."""
TYPED = {"token": "category", "token_seq": "words", "float": "number", "float_seq": "object"}
"""Kinds of columns that RecBole writes behind their names: `age:token`."""
YEAR_IN_TITLE = r"[(]((?:1[89]|20)[0-9]{2})[)]\s*$"
UNIQUE = 0.95
"""Fraction of different values from which on they are numbers or texts of their own."""
NOTHING = r"(?i)^[(]no .*[)]$|^n/?a$|^-$"
"""Categories that stand for a missing value: (no genres listed)."""
CONSTANT = 0.99
"""Fraction of the ids that have one value in all their rows, from which on the value belongs to the id."""


def name_features(table: Table, questions: list[str]) -> None:
    """Give each column of a table that has no role a feature, or the reason why it is left out.

    Args:
        table: The table; meanings of its columns are set. In a table of interactions, columns with one value for each
            user or item are features of these.
        questions: Gets sentences about what only the user can decide.
    """
    log = table.part == "interactions"
    ids = {role: one for role in ("user_id", "item_id") if (one := table.role(role)) is not None} if log else {}
    taken = {one.meaning for one in table.columns.values() if isinstance(one.meaning, str)}
    for one in table.columns.values():
        if one.meaning is not None or (log and one.why.startswith("could be")) or one.why.startswith(OTHERS):
            continue
        owner = _owner(one, ids) if log else ""
        if log and not owner:
            one.why = _not_of_a_record(one)
            continue
        meaning, why = feature_of(one, questions, table)
        if meaning is None:
            one.why = why
            continue
        name = meaning["to"]
        base, number = name, 2
        while owner + name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(owner + name)
        meaning["to"] = owner + name
        one.meaning = _short(meaning)
        one.why = why + (f"; the same in all rows of one {owner[:-1]}" if owner else "")
        if table.part == "items" and base.startswith("text.") and _has_years(one):
            one.meaning = [one.meaning, {"to": "continuous.year", "extract": YEAR_IN_TITLE}]
            one.why += ", with years"


def _short(meaning: dict[str, Json]) -> Json:
    return meaning["to"] if set(meaning) == {"to"} else meaning


def feature_of(one: Column, questions: list[str], table: Table) -> tuple[dict[str, Json] | None, str]:
    """Return the feature of a column as an object of the config, or None; and the reason."""
    shape, name = _declared(one), feature_name(one.name)
    kind, how = shape.kind, dict(shape.how)
    about = shape.about
    left = _left_out(one, shape) or _names_items(one, table)
    if left:
        return None, left
    if shape.choices:
        group = "continuous" if kind == "number" else "temporal"
        ways = " or ".join(show({"to": f"{group}.{name}", **way}, 200) for way in shape.choices[:3]).replace("'", '"')
        questions.append(f"{table.name}: '{one.name}' holds {about}; write {ways}, or leave it out.")
        return None, f"{about}: only you can decide"
    if kind in ("whole", "number"):
        if (is_code(one.name) and shape.kind == "whole") or _is_category(one, shape):
            return {"to": f"categorical.{name}"}, f"{one.distinct:,} codes" if one.distinct > 1 else "a mark"
        epochs = as_epochs(shape) if _says_time(one.name) else None
        if epochs is not None:
            return {"to": f"temporal.{name}", "time": _unit(epochs)}, f"times, {epochs.about}"
        return {"to": f"continuous.{name}", **how}, about
    if kind == "boolean":
        return {"to": f"categorical.{name}"}, about
    if kind == "time":
        return {"to": f"temporal.{name}", **({"time": "iso"} | how)}, f"times, {about}"
    if kind == "image":
        return {"to": f"image.{name}"}, about
    if kind == "words":
        group = "text" if is_title(one.name) else "categorical"
        return {"to": f"{group}.{name}", **({"split": " "} if group == "categorical" else {})}, "declared as token_seq"
    if kind == "texts":
        return {"to": f"text.{name}", **how}, about
    if kind in ("split", "json_list", "list"):
        return {"to": f"categorical.{name}", **how, **_missing(one)}, about
    title = is_title(one.name) and one.distinct > 0.3 * one.present
    group = "text" if kind == "text" or title else "categorical"
    return {"to": f"{group}.{name}", **(_missing(one) if group == "categorical" else {})}, about


def _missing(one: Column) -> dict[str, Json]:
    """Return the change that makes categories such as (no genres listed) missing values, if there are any."""
    if not pa.types.is_string(one.values.type):
        return {}
    found = pc.unique(one.values.filter(pc.fill_null(pc.match_substring_regex(one.values, NOTHING), False)))
    return {"values": dict.fromkeys(found.to_pylist())} if 0 < len(found) < 10 else {}


def _declared(one: Column) -> Shape:
    """Return the shape that the name declares, as in RecBole's files, or else that of the values."""
    _, colon, kind = one.name.partition(":")
    if colon and kind in TYPED and TYPED[kind] != "number":
        return Shape(TYPED[kind], about=f"declared as {kind}")
    return one.shape


def _left_out(one: Column, shape: Shape) -> str:
    """Return why a column is no feature; empty if it can be one."""
    if shape.kind in ("empty", "object"):
        return shape.about
    if COUNTED.search(normal(one.name)):
        return "seems to be counted from interactions, also from those that are held out"
    if one.distinct == 1 and one.present == len(one.values):
        return f"the same in all rows: {show(one.values.drop_null()[0].as_py(), 40)}"
    if shape.kind == "url":
        return f"{shape.about}: addresses are not features; images by address need data.allow_urls"
    unique = one.distinct > max(9, UNIQUE * one.present)
    if unique and shape.kind == "whole" and (is_code(one.name) or _counts_rows(one)):
        return "a number of its own in each row says nothing"
    if unique and shape.kind == "category" and not is_title(one.name):
        return "a text of its own in each row says nothing"
    return ""


def _names_items(one: Column, table: Table) -> str:
    """Return why lists of other items are no feature of an item; empty for other columns."""
    key = table.role("item_id")
    if table.part != "items" or key is None or one.shape.kind not in ("list", "split"):
        return ""
    values = one.values.slice(0, 1_000).drop_null()
    parts = values.flatten() if is_list(values.type) else pc.split_pattern(values, one.shape.how["split"]).flatten()
    parts = pc.utf8_trim_whitespace(parts.cast(pa.string())) if not pa.types.is_nested(parts.type) else parts[:0]
    share = pc.mean(pc.is_in(parts, value_set=key.texts)).as_py() if len(parts) else 0
    return "lists of other items" if share > 0.5 else ""


def _counts_rows(one: Column) -> bool:
    """Return whether whole numbers count the rows from 0 or 1."""
    numbers = one.shape.parsed
    if numbers is None or not len(numbers):
        return False
    values = numbers.to_numpy(zero_copy_only=False)
    return values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _is_category(one: Column, shape: Shape) -> bool:
    """Return whether numbers are the two values of a yes and no, or a mark that some rows have."""
    if one.distinct == 1:
        return True
    return shape.kind == "whole" and one.distinct == 2 and set(one.texts.to_pylist()) <= {"0", "1"}


def _says_time(name: str) -> bool:
    return bool({"time", "timestamp", "date", "ts", "at"} & set(words_of(name)))


def _unit(shape: Shape) -> str:
    names = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
    return names.get(shape.about.split(",")[0], "%Y%m%d")


def _has_years(one: Column) -> bool:
    """Return whether most texts end with a year in parentheses."""
    if not pa.types.is_string(one.values.type):
        return False
    return (pc.mean(pc.match_substring_regex(one.values.slice(0, 10_000), YEAR_IN_TITLE)).as_py() or 0) > 0.8


def _owner(one: Column, ids: dict[str, Column]) -> str:
    """Return `item.` or `user.` if a column has one value for nearly each item or user; else an empty text.

    Only ids of several rows count, and a column that is nearly the same everywhere belongs to nobody.
    """
    if one.distinct < 2 and one.shape.kind not in ("list", "split", "json_list"):
        return ""
    values = one.values
    if pa.types.is_nested(values.type):
        return ""
    codes = pc.fill_null(values.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    if one.present == 0 or np.bincount(codes[codes >= 0]).max() > CONSTANT * one.present:
        return ""
    for role in ("item_id", "user_id"):
        column = ids.get(role)
        if column is None:
            continue
        owners = pc.fill_null(column.values.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
        keep = (codes >= 0) & (owners >= 0)
        rows = np.bincount(owners[keep])
        pairs = np.unique(owners[keep].astype(np.int64) * (codes.max() + 1) + codes[keep])
        different = np.bincount(pairs // (codes.max() + 1), minlength=len(rows))
        several = rows > 1
        if several.sum() >= 3 and (different[several] == 1).mean() >= CONSTANT:
            return role.removesuffix("id").rstrip("_") + "."
    return ""


def _not_of_a_record(one: Column) -> str:
    """Return why a column of interactions that differs from row to row is left out."""
    if normal(one.name) in WEIGHTS.split():
        return 'could be the "weight" of an interaction: only you can decide'
    if one.shape.kind in ("empty", "object"):
        return one.shape.about
    if one.distinct == 1:
        return "the same in all rows"
    return "belongs to the single interaction, which has no features"
