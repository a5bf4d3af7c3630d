"""Findings that the tables show as they are: counts, values, times, features."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.dataset import Dataset
from anyrec.data.findings import Finding, count
from anyrec.data.ids import NO_TIME, SIDES, Side
from anyrec.data.labels import Labels
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.order import has_clock, time_order
from anyrec.data.split import Split
from anyrec.data.summary import (
    activity,
    filled_share,
    is_plain,
    is_present,
    repeated_pairs,
    share_present,
    time_bounds,
    value_counts,
)

YEAR_1990 = dt.datetime(1990, 1, 1, tzinfo=dt.timezone.utc)
EQUAL_GAPS = 0.95
"""The fraction of equal gaps between a user's interactions from which the times are made up."""
CELLS_SHARE = 0.3
"""The fraction of values that must look like lists for a finding."""
SEPARATED = r"\S[|;]\s*\S"
CELLS = (
    (
        r"(?s)^\s*(\[.*\]|\(.*,.*\))\s*$",
        "lists",
        "Each spelling is one value: write several values as a list (in CSV, {name}[] with | between).",
    ),
    (r"(?s)^\s*[{].*[}]\s*$", "objects", "Each spelling is one value: take out what matters as features of its own."),
    (
        SEPARATED,
        "several values with a separator",
        "Each combination is one value: write several values as a list (in CSV, {name}[] with | between).",
    ),
)
"""Patterns of values, what they look like, and what to do about it."""


def check_size(dataset: Dataset) -> list[Finding]:
    """Report the number of users, items and interactions."""
    filled = filled_share(dataset)
    text = (
        f"{count(len(dataset.users), 'user')}, {count(len(dataset.items), 'item')} and "
        f"{count(len(dataset.interactions), 'interaction')}, which fill {filled:.2%} of all user-item pairs."
    )
    return [Finding("note", "size", text, "The emptier the pairs, the more the model has to learn from features.")]


def check_tail(dataset: Dataset) -> list[Finding]:
    """Report how unevenly the interactions are spread over the items."""
    each = np.sort(activity(dataset, "item").counts)
    items, total = len(each), each.sum()
    gini = (items + 1 - 2 * each.cumsum().sum() / total) / items
    if items < 20 or gini <= 0.5:
        return []
    top = [each[-(items * percent // 100 or 1) :].sum() / total for percent in (1, 10)]
    text = (
        f"The most popular 1% of the items have {top[0]:.0%} of the interactions and the most popular 10% have "
        f"{top[1]:.0%} (Gini {gini:.2f}: 0 is even, 1 is all on one item)."
    )
    return [Finding("note", "long tail", text, "Compare the model with a plain list of the most popular items.")]


def check_activity(dataset: Dataset) -> list[Finding]:
    """Report records without interactions, users with one interaction, and users with extremely many."""
    found = []
    users = activity(dataset, "user").counts
    for side in SIDES:
        each = activity(dataset, side).counts
        idle = (each == 0).sum()
        if idle:
            text = f"{idle / len(each):.1%} of the {side}s ({idle:,} of {len(each):,}) have no interaction."
            advice = f"Such {side}s are known by their features alone: give them features, or leave them out."
            level = "warning" if idle > len(each) / 2 else "note"
            found.append(Finding(level, f"{side}s without interactions", text, advice))
    single = (users == 1).sum()
    if single:
        text = f"{single / len(users):.1%} of the users ({single:,} of {len(users):,}) have a single interaction."
        advice = "They can be trained on or tested, not both; data.min_user_interactions leaves them out."
        level = "warning" if single > len(users) / 5 else "note"
        found.append(Finding(level, "users with one interaction", text, advice))
    usual = np.median(users[users > 0])
    busy = np.flatnonzero((users > 50 * usual) & (users > users.sum() / 100))
    if len(busy):
        most = busy[users[busy].argmax()]
        text = f"{count(len(busy), 'user')} made {users[busy].sum() / users.sum():.0%} of all interactions; "
        text += f"{show_id(dataset, 'user', most)} made {users[most]:,}, where the median of all users is "
        text += f"{activity(dataset, 'user').median:.0f}."
        advice = "If they are robots or shared accounts, leave them out."
        found.append(Finding("warning", "very active users", text, advice))
    return found


def check_repeats(dataset: Dataset) -> list[Finding]:
    """Report rows with the same user, item, type and time; without times, with the same user and item."""
    extra, rows = repeated_pairs(dataset), len(dataset.interactions)
    if not extra:
        return []
    if dataset.column("timestamp") is None:
        text = f"{extra / rows:.1%} of the interactions ({extra:,}) repeat another row's user and item; without times, "
        text += "copies and returns look the same."
        return [Finding("note", "repeated pairs", text, "Give interactions a timestamp, or remove the copies.")]
    columns = {name: dataset.column(name) for name in ("interaction_type", "timestamp")}
    keys = {name: column for name, column in columns.items() if column is not None}
    table = pa.table({"user": pa.array(dataset.user_rows), "item": pa.array(dataset.item_rows), **keys})
    table = table.filter(table.column("timestamp").is_valid())
    extra = len(table) - len(table.group_by(table.column_names).aggregate([]))
    if not extra:
        return []
    what = "user, item, type and time" if "interaction_type" in keys else "user, item and time"
    text = f"{extra / rows:.1%} of the interactions ({extra:,}) repeat another row's {what}."
    advice = "Remove the copies, or the model is trained and tested on the same rows twice."
    return [Finding("warning", "duplicate interactions", text, advice)]


def check_values(dataset: Dataset, labels: Labels) -> list[Finding]:
    """Report columns of the interactions that have the same value everywhere, and data without positives."""
    found = []
    rows = len(dataset.interactions)
    if not labels.positive.any():
        text = f"None of {count(rows, 'interaction')} counts as positive."
        advice = "Check the labels, data.min_rating and data.positive_types: there is nothing to train on."
        found.append(Finding("problem", "no positives", text, advice))
    for name, advice in (
        ("interaction_type", "The type carries no information; data.positive_types has no use here."),
        ("rating", "The rating carries no information; data.min_rating and a rating head have no use here."),
        ("label", "Without both labels there are no explicit negatives; leave the label out."),
    ):
        counts, missing = value_counts(dataset, name)
        if len(counts) == 1 and rows > 1:
            only = next(iter(counts))
            value = f"'{only}'" if isinstance(only, str) else f"{only:g}"
            text = f"All {rows - missing:,} values of the interactions' {name} are {value}."
            found.append(Finding("note", f"constant {name}", text, advice))
    return found


def check_times(dataset: Dataset, labels: Labels, split: Split) -> list[Finding]:
    """Report times that are impossible, are not clock times, or leave the order open."""
    column, bounds = dataset.column("timestamp"), time_bounds(dataset)
    if column is None or bounds is None:
        return []
    found = []
    if column.null_count:
        text = f"{column.null_count / len(column):.1%} of the interactions ({column.null_count:,}) have no timestamp."
        found.append(Finding("warning", "missing times", text, "They count as the user's oldest; give them a time."))
    known = column.drop_null()
    first, last = bounds
    if len(known) > 1 and first == last:
        text = f"All {len(known):,} timestamps are the same, {known[0].as_py():%Y-%m-%d %H:%M:%S}."
        advice = "Give the true times, or set split.protocol to random: a user's last interaction is unknown."
        return [*found, Finding("problem", "equal times", text, advice)]
    tomorrow = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=1)
    for kind, what, wrong, extreme in (
        ("times in the future", "lie in the future", pc.greater(known, pa.scalar(tomorrow, known.type)), last),
        ("very old times", "lie before 1990", pc.less(known, pa.scalar(YEAR_1990, known.type)), first),
    ):
        number = pc.sum(wrong).as_py()
        if number:
            text = f"{number / len(known):.1%} of the timestamps ({number:,}) {what}, as {extreme.as_py():%Y-%m-%d}."
            found.append(Finding("warning", kind, text, "Check the unit (seconds since 1970) and the time zone."))
    if len(known) > 1 and (fault := clock_fault(dataset)):
        advice = "The times give an order but no dates: do not split or weigh by date (data.half_life_days)."
        found.append(Finding("warning", "made-up times", fault, advice))
    return found + _ties(dataset, labels, split)


def _ties(dataset: Dataset, labels: Labels, split: Split) -> list[Finding]:
    """Report users whose first test interaction has the time of the one before, so that the file's order decides."""
    if not split.protocol.startswith("leave_last") or not len(split.test):
        return []
    tests = np.zeros(len(dataset.interactions), bool)
    tests[split.test] = True
    order = time_order(dataset)
    order = order[labels.positive[order]]
    users, times, tests = dataset.user_rows[order], dataset.times[order], tests[order]
    tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1]) & tests[1:] & ~tests[:-1]
    share = tied.sum() / len(np.unique(dataset.user_rows[split.test]))
    if share <= 0.1:
        return []
    text = f"For {share:.0%} of the tested users the tested interaction has the same time as the one before."
    advice = (
        "The order of the file decides which interactions test: check that it is the true order, or give finer times."
    )
    return [Finding("warning", "ties in time", text, advice)]


def clock_fault(dataset: Dataset) -> str | None:
    """Return why the timestamps cannot be dates, as a sentence; None if they can."""
    order = time_order(dataset)
    users, times = dataset.user_rows[order], dataset.times[order]
    gaps = np.diff(times)[(users[1:] == users[:-1]) & (times[:-1] != NO_TIME)]
    step = int(np.median(gaps)) if len(gaps) >= 100 else 0
    if step > 0 and (gaps == step).mean() > EQUAL_GAPS:
        return f"Each user's interactions follow each other at intervals of exactly {step / 1e6:g} seconds."
    return None if has_clock(dataset) else "Most users begin at the very same moment."


def check_features(dataset: Dataset) -> list[Finding]:
    """Report features that nearly all records lack, that many lack, or that have the same value everywhere."""
    found = []
    for side in SIDES:
        rows = len(dataset.table(side))
        for name in dataset.features(side) if rows > 1 else []:
            column = dataset.table(side).column(name).combine_chunks()
            present = is_present(column)
            share = share_present(present)
            if share < 0.01:
                text = f"The {side} feature '{name}' is present in {present.sum():,} of {count(rows, side)}."
                found.append(Finding("warning", "dead feature", text, "Fill it, or leave it out."))
                continue
            if share < 0.8:
                text = f"The {side} feature '{name}' is present in only {share:.1%} of the {side}s."
                found.append(Finding("note", "missing values", text, "See whether the source can fill it."))
            if present.sum() > 1 and is_constant(column.filter(pa.array(present))):
                text = f"The {side} feature '{name}' has the same value in all {present.sum():,} {side}s that have it."
                found.append(Finding("note", "constant feature", text, "It carries no information: leave it out."))
    return found


def check_cells(dataset: Dataset) -> list[Finding]:
    """Report texts and categories that look like lists or objects in one cell."""
    found = []
    for side in SIDES:
        for name in dataset.features(side):
            if not name.startswith(("categorical.", "text.")):
                continue
            flat, _ = flat_with_nulls(dataset.table(side).column(name).combine_chunks())
            if not pa.types.is_string(flat.type):
                continue
            values = flat.filter(pa.array(is_present(flat)))
            for pattern, what, advice in CELLS:
                if name.startswith("text.") and pattern == SEPARATED:
                    continue
                share = pc.mean(pc.match_substring_regex(values, pattern).cast(pa.float64())).as_py()
                if share is not None and share > CELLS_SHARE:
                    text = f"{share:.0%} of the values of the {side} feature '{name}' look like {what}, "
                    text += f"as '{_first(values, pattern)}'."
                    found.append(Finding("warning", "lists in cells", text, advice.format(name=name)))
                    break
    return found


def _first(values: pa.Array, pattern: str) -> str:
    text = values.filter(pc.match_substring_regex(values, pattern))[0].as_py()
    return text if len(text) <= 40 else text[:37] + "..."


def is_constant(values: pa.Array) -> bool:
    """Return whether all values are equal.

    Args:
        values: (values,) At least one, none missing. Types that cannot be compared count as not constant.
    """
    if pa.types.is_list(values.type) and is_plain(values.type.value_type):
        if len(pc.list_value_length(values).unique()) > 1:
            return False
        codes = values.flatten().dictionary_encode("encode").indices.to_numpy().reshape(len(values), -1)
        return bool((codes == codes[0]).all())
    return is_plain(values.type) and len(values.unique()) == 1


def show_id(dataset: Dataset, side: Side, row: int) -> str:
    """Return a record as a message names it: its side and its id."""
    return f"{side} {dataset.ids(side)[int(row)].as_py()!r}"
