"""Findings on ids: floats, placeholders, test records, surrounding spaces; and categories that are ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.dataset import Dataset
from anyrec.data.findings import Finding, count
from anyrec.data.ids import SIDES, Side
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.summary import distinct_values, is_present

MISSING = r"(?i)^\s*(null|nil|none|nan|na|n/a|#n/a|nat|undefined|unknown|missing|empty|-1|-+|\?+|)\s*$"
"""Ids that programs write for a missing value."""
TRIAL = "test|testing|tester|dummy|fake|sample|example|demo|foo|bar|foobar|asdf|qwerty|tmp|temp|todo|xxx+"
SHARED = "admin|root|guest|anonymous|anon|deleted|bot|robot|crawler|spider|system"
THING = "user|item|account|product|customer|id|record|article|film|movie|book"
TEST = (
    rf"(?i)^\s*((({TRIAL}|{SHARED})[\s_.-]*({THING})?)|(({THING})[\s_.-]*({TRIAL}|{SHARED})))[\s_.-]*[0-9]{{0,6}}\s*$"
)
"""Ids of tests and of accounts that many people or programs share: `test_user`, `dummy-12`, `user_test`, `guest`."""
MOST_TEST = 0.2
"""If more of the ids than this fraction look like tests, they are a way of naming records, as in generated data."""
SHOWN = 3
"""Ids that a sentence names."""
UNIQUE, FEWEST = 0.9, 20
"""Fraction of distinct values from which on a category is an id, and the fewest values to tell."""


def check_ids(dataset: Dataset) -> list[Finding]:
    """Report ids that are floats, placeholders, tests, or surrounded by spaces."""
    found = []
    for side in SIDES:
        ids = dataset.ids(side)
        found += _floats(side, ids)
        texts = ids.cast(pa.string()) if pa.types.is_integer(ids.type) else ids
        if pa.types.is_string(texts.type):
            found += [*_placeholders(dataset, side, texts), *_tests(dataset, side, texts), *_spaces(side, texts)]
    return found


def check_unique_categories(dataset: Dataset) -> list[Finding]:
    """Report categorical features whose values are different in nearly all records."""
    found = []
    for side in SIDES:
        for name in dataset.features(side):
            if not name.startswith("categorical."):
                continue
            column = dataset.table(side).column(name).combine_chunks()
            distinct, values = distinct_values(column)
            if values >= FEWEST and distinct >= UNIQUE * values:
                flat, _ = flat_with_nulls(column)
                text = f"{distinct:,} of {values:,} values of the {side} feature '{name}' are different, "
                text += f"as '{flat[int(is_present(flat).argmax())]}'."
                advice = "It is an id, and says nothing about other records: leave it out, or make it a text."
                found.append(Finding("warning", "unique categories", text, advice))
    return found


def _floats(side: Side, ids: pa.Array) -> list[Finding]:
    """Report ids that a spreadsheet or a data frame has turned into floats."""
    if pa.types.is_floating(ids.type):
        text = f"The {len(ids):,} ids of the {side}s are numbers with a decimal point."
        return [Finding("warning", f"float {side} ids", text, "Write ids as whole numbers or as texts.")]
    if not pa.types.is_string(ids.type):
        return []
    floats = ids.filter(pc.match_substring_regex(ids, r"^-?\d+\.0+$"))
    if not len(floats):
        return []
    whole = pc.replace_substring_regex(floats, r"\.0+$", "")
    twins = pc.sum(pc.is_in(whole, value_set=ids)).as_py()
    text = f"{len(floats):,} of {count(len(ids), f'{side} id')} look like floats, as '{floats[0]}'"
    text += f", and {twins:,} of them also occur without the decimal point." if twins else "."
    advice = "Write them as whole numbers at the source (a missing id turns a pandas column into floats)."
    return [Finding("problem" if twins else "warning", f"float {side} ids", text, advice)]


def _placeholders(dataset: Dataset, side: Side, ids: pa.Array) -> list[Finding]:
    """Report ids that stand for a missing value: their interactions are those of many users or items."""
    places = _matching(ids, MISSING)
    if not len(places):
        return []
    text = f"{_named(side, ids, places)} {'stands' if len(places) == 1 else 'stand'} for a missing value"
    text += f"; {_interactions(dataset, side, places)}."
    advice = f"Remove these records and interactions, which join what different {side}s did, or find the true ids."
    return [Finding("problem", f"placeholder {side} ids", text, advice)]


def _tests(dataset: Dataset, side: Side, ids: pa.Array) -> list[Finding]:
    """Report ids of tests, robots and shared accounts, unless many ids are of that form."""
    places = _matching(ids, TEST)
    if not len(places) or len(places) > MOST_TEST * len(ids):
        return []
    text = f"{_named(side, ids, places)} {'looks' if len(places) == 1 else 'look'} like a test or a shared account"
    text += f"; {_interactions(dataset, side, places)}."
    return [Finding("warning", f"test {side} ids", text, f"Leave such {side}s out if they are no real {side}s.")]


def _spaces(side: Side, ids: pa.Array) -> list[Finding]:
    """Report ids with spaces before or after them, and whether the same id occurs without them."""
    bare = pc.utf8_trim_whitespace(ids)
    spaced = pc.not_equal(bare, ids)
    number = pc.sum(spaced).as_py() or 0
    if not number:
        return []
    twins = pc.sum(pc.is_in(bare.filter(spaced), value_set=ids.filter(pc.invert(spaced)))).as_py() or 0
    verb = "begins or ends" if number == 1 else "begin or end"
    text = f"{number:,} of {count(len(ids), f'{side} id')} {verb} with a space, as '{ids.filter(spaced)[0]}'"
    text += f", and {twins:,} of them also occur without it." if twins else "."
    advice = "Remove the spaces at the source" + (f": one {side} counts as two." if twins else ".")
    return [Finding("problem" if twins else "warning", f"{side} ids with spaces", text, advice)]


def _matching(ids: pa.Array, pattern: str) -> np.ndarray:
    """Return the rows of the ids that a regular expression matches."""
    return np.flatnonzero(pc.fill_null(pc.match_substring_regex(ids, pattern), False).to_numpy(zero_copy_only=False))


def _named(side: Side, ids: pa.Array, places: np.ndarray) -> str:
    """Return `The user ids 'a', 'b' and 3 more`."""
    shown = ", ".join(f"'{ids[int(place)]}'" for place in places[:SHOWN])
    more = f" and {len(places) - SHOWN:,} more" if len(places) > SHOWN else ""
    return f"The {side} id{'s' if len(places) > 1 else ''} {shown}{more}"


def _interactions(dataset: Dataset, side: Side, places: np.ndarray) -> str:
    """Return how many interactions some records have, as a text."""
    number = int(np.isin(dataset.rows(side), places).sum())
    verb = "is" if number == 1 else "are"
    return f"{count(number, 'interaction')} ({number / max(1, len(dataset.interactions)):.1%}) {verb} theirs"
