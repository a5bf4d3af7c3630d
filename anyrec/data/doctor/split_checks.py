"""Whether a split allows conclusions: its size, repeats, and how its test differs from its training part."""

from __future__ import annotations

import numpy as np

from anyrec.data.dataset import Dataset
from anyrec.data.doctor.table_checks import clock_fault
from anyrec.data.doctor.value_codes import value_codes
from anyrec.data.findings import Finding, count
from anyrec.data.ids import NO_TIME, SIDES
from anyrec.data.labels import Labels
from anyrec.data.split import FEWEST_TESTED, PARTS, Split, part_of_each

REPEATS = 0.05
"""The fraction of repeated interactions, or of test pairs, from which metrics depend on how repeats are counted."""
MOST_VALUES = 20
"""The most values that a stability index tells apart."""


def check_split(dataset: Dataset, labels: Labels, split: Split) -> list[Finding]:
    """Report whether the split allows conclusions: its size, new records in its test, and training on the future."""
    if split.protocol == "none":
        return []
    found = []
    train, test = split.train[labels.positive[split.train]], split.test
    testers = len(np.unique(dataset.user_rows[test]))
    if testers < FEWEST_TESTED:
        text = f"Only {count(testers, 'user')} can be tested on."
        advice = f"Take no conclusion from the metrics of fewer than {FEWEST_TESTED} users; collect more interactions."
        found.append(Finding("warning", "small test", text, advice))
    if not len(train) or not len(test):
        return found
    for side in SIDES:
        rows = dataset.rows(side)
        new = np.isin(rows[test], rows[train], invert=True).mean()
        if new > 0.05 and split.protocol != f"cold_{side}s":
            whose = "of a user" if side == "user" else "with an item"
            text = f"{new:.0%} of the test interactions are {whose} that training never sees."
            advice = f"Such {side}s are known by their features alone: give them features, and keep id_dropout on."
            found.append(Finding("warning", f"new {side}s in test", text, advice))
    times = dataset.times
    known = [np.sort(times[rows][times[rows] != NO_TIME]) for rows in (train, test)]
    if len(known[0]) and len(known[1]) and clock_fault(dataset) is None:
        later = 1 - np.searchsorted(known[0], known[1], side="right").mean() / len(known[0])
        if later > 0.01:
            text = f"On average {later:.0%} of the training interactions happened after a test interaction"
            text += f" (split.protocol {split.protocol})."
            advice = "The metrics are of a model that knows what was popular later; set split.protocol to global_time."
            found.append(Finding("note", "training on the future", text, advice))
    return found


def check_seen_before(dataset: Dataset, labels: Labels, split: Split, rule: str) -> list[Finding]:
    """Report positives of an item that their user had before, which lists leave out."""
    keys = dataset.user_rows * len(dataset.items) + dataset.item_rows
    positives = keys[labels.positive]
    share = 1 - len(np.unique(positives)) / max(1, len(positives))
    if not share:
        return []
    parts = part_of_each(dataset, split, labels.positive)
    tested = np.unique(keys[split.test])
    again = np.isin(tested, keys[parts < PARTS.index("test")]).mean() if len(tested) else 0.0
    text = f"{'Most' if share > 0.5 else 'Some'} interactions ({share:.1%}) repeat an item that the user had before"
    text += f", and so do {again:.1%} of the test pairs." if len(tested) else "."
    if rule == "include_seen":
        return [Finding("note", "repeats", text, "Serve with seen items (--include-seen): they are measured that way.")]
    text += " Lists leave out seen items, so a repeated item is never served" + (
        " and not measured (evaluation.repeats=drop)." if rule == "drop" else " and counts as a miss in the metrics."
    )
    advice = (
        "If users should be shown items again, serve with seen items (--include-seen) and set evaluation.repeats to "
        "include_seen; to measure new items alone, set it to drop."
    )
    return [Finding("warning" if max(share, again) >= REPEATS else "note", "repeats", text, advice)]


def check_drift(dataset: Dataset, labels: Labels, split: Split) -> list[Finding]:
    """Report whether test interactions go to other items than training ones, by popularity and by feature."""
    train, test = split.train[labels.positive[split.train]], split.test
    if len(test) < FEWEST_TESTED or len(train) < FEWEST_TESTED:
        return []
    items = len(dataset.items)
    before, after = (np.bincount(dataset.item_rows[rows], minlength=items) for rows in (train, test))
    found = []
    distance, chance = _distance(before, after), _distance_by_chance(before, after)
    if distance - chance > 0.15 and split.protocol != "cold_items":
        text = f"The items' popularity differs between training and test by {distance:.2f}"
        text += f" (total variation, 0 to 1); by chance it would be {chance:.2f}."
        advice = "Tastes or the catalogue have moved: weigh recent interactions more (data.half_life_interactions)."
        found.append(Finding("warning", "popularity drift", text, advice))
    for name in dataset.features("item"):
        codes = value_codes(dataset, "item", name) if name.startswith(("categorical.", "continuous.")) else None
        index = 0.0 if codes is None else stability_index(*codes, before, after)
        if index > 0.25:
            text = f"The item feature '{name}' is spread differently over test and training interactions"
            text += f" (population stability index {index:.2f}; past 0.25 is a large change)."
            advice = "Check that the test resembles what the model will serve; weight recent interactions more."
            found.append(Finding("warning", "feature drift", text, advice))
    return found


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the total variation of two counts: the fraction of one that would have to move to give the other."""
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def _distance_by_chance(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean of `_distance` if the test is drawn from all interactions at random."""
    rng, both = np.random.default_rng(0), before + after
    draws = [[rng.multinomial(part.sum(), both / both.sum()) for part in (before, after)] for _ in range(5)]
    return float(np.mean([_distance(*pair) for pair in draws]))


def stability_index(owners: np.ndarray, codes: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """Return the population stability index of a feature's values, minus what chance alone adds.

    The rarest values count as one value.

    Args:
        owners: (values,) As `value_codes` returns them.
        codes: (values,) As `value_codes` returns them.
        before: (items,) The number of training interactions of each item.
        after: (items,) The number of test interactions of each item.
    """
    counts = np.stack([np.bincount(codes, weights[owners]) for weights in (before, after)])
    order = np.argsort(-counts.sum(0), kind="stable")
    counts = np.concatenate([counts[:, order[:MOST_VALUES]], counts[:, order[MOST_VALUES:]].sum(1, keepdims=True)], 1)
    counts = counts[:, counts.sum(0) > 0]
    shares = (counts + 0.5) / (counts + 0.5).sum(1, keepdims=True)
    index = ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()
    return float(index - (counts.shape[1] - 1) * (1 / before.sum() + 1 / after.sum()))
