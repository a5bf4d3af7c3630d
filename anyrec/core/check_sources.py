"""Checks of `data.sources` that need no data: what columns can mean, and what each table needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from anyrec.core.config.sources import ROLES, ColumnConfig, SourcesConfig, SourceTable
from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.strict_json import pointer
from anyrec.core.values import show

OPEN = "?"
"""First character of a meaning that `anyrec init` leaves to the user."""
IDS = {"users": ("user_id",), "items": ("item_id",), "interactions": ("user_id", "item_id")}
SIDES = ("user", "item")
ACCEPTED = {
    "users": "user_id or GROUP.NAME, for example categorical.country",
    "items": "item_id or GROUP.NAME, for example text.title",
    "interactions": f"{', '.join(ROLES)}, context.NAME, user.GROUP.NAME or item.GROUP.NAME",
}
"""What the columns of each part can mean."""


def source_faults(sources: SourcesConfig) -> list[Fault]:
    """Return everything that is wrong with the sources of a config."""
    faults: list[Fault] = []
    for part in IDS:
        for number, table in enumerate(getattr(sources, part)):
            faults += _table_faults(table, part, f"/data/sources/{part}/{number}")
    return faults


def _table_faults(table: SourceTable, part: str, where: str) -> Iterator[Fault]:
    meanings = list(_meanings(table, where))
    for place, spec in meanings:
        yield from _meaning_faults(spec, part, place)
    for name in table.constants:
        yield from _target_faults(name, part, where + pointer(["constants", name]))
    for target, count in Counter([*(spec.to for _, spec in meanings), *table.constants]).items():
        if count > 1:
            hint = "Leave one out; `append` joins the texts of several columns."
            yield Fault(f"{where}/columns", f"{count} columns are {show(target)}.", hint, "doubled column")
    targets = {spec.to.removeprefix(OPEN) for _, spec in meanings} | set(table.constants)
    if table.columns:
        for key in IDS[part]:
            if key not in targets:
                what = f"no column of this table is {key}."
                hint = f'Add one: "columns": {{"NAME": "{key}"}}.'
                yield Fault(f"{where}/columns", what, hint, "missing column")
    if part == "interactions" and table.repeats != "error":
        what = "this has no effect: interactions can repeat."
        yield Fault(f"{where}/repeats", what, "Leave it out.", "no effect")


def _meanings(table: SourceTable, where: str) -> Iterator[tuple[str, ColumnConfig]]:
    """Yield JSON pointer and meaning of each column."""
    for name, target in table.columns.items():
        place = where + pointer(["columns", name])
        several = isinstance(target, list)
        for number, one in enumerate(target if isinstance(target, list) else [target]):
            if one is not None:
                spec = ColumnConfig(to=one) if isinstance(one, str) else one
                yield f"{place}/{number}" if several else place, spec


def _meaning_faults(spec: ColumnConfig, part: str, where: str) -> Iterator[Fault]:
    if spec.to.startswith(OPEN):
        yield _open_question(spec.to, where)
        return
    yield from _target_faults(spec.to, part, where)
    if spec.aggregate is not None and part == "interactions":
        what = "this has no effect: rows of interactions are not aggregated."
        hint = "Leave it out, or read the column in a table of items or users."
        yield Fault(f"{where}/aggregate", what, hint, "no effect")
    if spec.explode and part != "interactions":
        yield Fault(f"{where}/explode", "only rows of interactions are exploded.", "Leave it out.", "no effect")


def _open_question(target: str, where: str) -> Fault:
    choices = [one.strip() for one in target.removeprefix(OPEN).split("|") if one.strip()]
    hint = f"Write {' or '.join(f'{show(one)}' for one in choices)}{', ' if choices else ''}or null to leave it out."
    return Fault(where, f"the meaning of this column is not decided: {show(target)}.", hint, "open question")


def _target_faults(target: str, part: str, where: str) -> Iterator[Fault]:
    group, dot, name = target.partition(".")
    if part == "interactions":
        inner, _, feature = name.partition(".")
        good = target in ROLES or (group == "context" and bool(name)) or (group in SIDES and bool(inner and feature))
        known = [*ROLES, "context.", "user.", "item."]
    else:
        good = target in IDS[part] or (bool(group and dot and name) and group not in ("user", "item", "context"))
        known = [*IDS[part], "text.", "categorical.", "continuous.", "image.", "temporal."]
    if not good:
        hint = f"It is {ACCEPTED[part]}. {did_you_mean(target, known)}"
        yield Fault(where, f"{show(target)} is no role or feature of {part}.", hint.strip(), "bad value")
