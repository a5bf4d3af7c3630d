"""The data doctor: what is odd, leaking or drifting in a dataset, said before a model is trained on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from anyrec.core.config import Config
from anyrec.data.dataset import Dataset
from anyrec.data.doctor.near_duplicates import check_images, check_texts
from anyrec.data.doctor.table_checks import (
    check_activity,
    check_cells,
    check_features,
    check_ids,
    check_repeats,
    check_size,
    check_tail,
    check_times,
    check_values,
    clock_fault,
    flattened,
    is_plain,
    is_present,
)
from anyrec.data.findings import Finding, count
from anyrec.data.ids import NO_TIME, SIDES, Side
from anyrec.data.interpretation import interpretation
from anyrec.data.labels import Labels, label_interactions
from anyrec.data.leaks import PAIRS, leak_share
from anyrec.data.split import PARTS, Split, part_of_each, split_interactions

LEVELS = ("problem", "warning", "note")
FEWEST_TESTS = 50
REPEATS = 0.05
"""Share of repeated interactions, or of test pairs, from which metrics depend on how they are counted."""
FEWEST_RECORDS = 30
"""Of fewer users or items with a feature, nothing is concluded."""
LEAKS = 0.95
"""Rank correlation, or area under the curve, past which a feature is the answer itself."""
LEAKS_BY_NAME = 0.7
"""The correlation that does where the feature's name says that it is counted from interactions."""
EVENTS = "(rating|review|vote|purchase|sale|click|view|order|play|like|interaction)s?"
COUNTED = re.compile(
    rf"popularity|best_?sell|sales_?rank|(\b|_)(n|num|number|count|total|avg|average|mean)_?(of_?)?{EVENTS}(\b|_)"
    rf"|(\b|_){EVENTS}_?(count|num|avg|average|mean|total)"
)
FOLDS = 5
BINS = 20


def examine(dataset: Dataset, config: Config | None = None, images: bool = True) -> list[Finding]:
    """All findings, problems first, then by kind. Features that the config switches off are not looked at.

    images: whether to open the items' image files (at most 5,000) and compare them.
    """
    config = config or Config()
    dataset = _as_used(dataset.sorted(), config)
    if not len(dataset.interactions):
        return [Finding("problem", "no interactions", "There are no interactions.", "There is nothing to train on.")]
    labels = label_interactions(dataset, config.data, checked=False)
    split, _ = split_interactions(dataset, config.split, config.seed, labels.positive)
    found = [
        *check_size(dataset),
        *check_tail(dataset),
        *check_activity(dataset),
        *check_repeats(dataset),
        *check_seen_before(dataset, labels, split, config.evaluation.repeats),
        *check_ids(dataset),
        *(one for one in interpretation(dataset, config.data) if one.level != "note"),
        *check_values(dataset, labels),
        *check_times(dataset, labels, split),
        *check_features(dataset),
        *check_cells(dataset),
        *check_texts(dataset),
        *(check_images(dataset, config) if images else []),
        *check_lists(dataset, split, config),
        *check_counted(dataset, split),
        *check_answers(dataset, labels, config),
        *check_split(dataset, labels, split),
        *check_drift(dataset, labels, split),
    ]
    return sorted(found, key=lambda finding: (LEVELS.index(finding.level), finding.kind, finding.text))


def as_lines(findings: Sequence[Finding], most: int | None = None) -> list[str]:
    """A line a finding, at most so many, and one that says how many more there are."""
    shown = [f"{finding.level}: {finding.text} {finding.advice}" for finding in findings[:most]]
    hidden = len(findings) - len(shown)
    return [*shown, f"... and {count(hidden, 'more finding')}."] if hidden else shown


def _as_used(dataset: Dataset, config: Config) -> Dataset:
    """The dataset without the features that the config switches off, whole groups or single ones."""
    tables: dict[str, pa.Table] = {}
    for side in SIDES:
        choices, _ = config.tower(side)
        off = []
        for name in dataset.features(side):
            group, field = name.split(".", 1)
            choice = choices.get(group)
            if (group in choices and choice is None) or (
                choice and field in choice.fields and not choice.fields[field]
            ):
                off.append(name)
        tables[side] = dataset.table(side).drop_columns(off)
    return replace(dataset, users=tables["user"], items=tables["item"])


def check_lists(dataset: Dataset, split: Split, config: Config) -> list[Finding]:
    """Features that name the held-out partner: lists of ids, and texts."""
    found = []
    held_out = np.concatenate([split.validation, split.test])
    for side, other in PAIRS:
        for name in dataset.features(side):
            share = leak_share(dataset, side, other, name, held_out)
            if share <= config.data.leak_share:
                continue
            dropped = config.data.drop_leaks and not name.startswith("text.")
            text = (
                f"The {side} feature '{name}' names the held-out {other} in {share:.0%} of the held-out interactions."
            )
            advice = "Build it from what came before the held-out interactions, or leave it out."
            if dropped:
                advice = "Training leaves it out (data.drop_leaks); to use it, build it from what came before."
            level = "warning" if dropped else "problem"
            found.append(Finding(level, "leak of held-out ids", text, advice))
    return found


def check_counted(dataset: Dataset, split: Split) -> list[Finding]:
    """Numbers of users and items that follow their interactions: known only once these have happened.

    What follows the training interactions more closely than all of them was counted from training, and is no leak.
    """
    found = []
    for side in SIDES:
        whole = _outcomes(dataset, side, np.arange(len(dataset.interactions)))
        training = _outcomes(dataset, side, split.train)
        for name in dataset.features(side):
            column = dataset.table(side).column(name).combine_chunks()
            if not name.startswith("continuous.") or pa.types.is_list(column.type):
                continue
            numbers = np.where(is_present(column), column.cast(pa.float64()).fill_null(0.0).to_numpy(), np.nan)
            followed, outcome = max((_follows(numbers, whole[name], training[name]), name) for name in whole)
            if followed <= (LEAKS_BY_NAME if COUNTED.search(name.lower()) else LEAKS):
                continue
            text = f"The {side} feature '{name}' ranks the {side}s nearly as their {outcome} does"
            text += f" (correlation {followed:.2f}), held-out interactions included."
            advice = "If it is made from the interactions, make it from those of training alone or leave it out."
            level = "problem" if followed > LEAKS and side == "item" else "warning"
            found.append(Finding(level, "leak of the outcome", text, advice))
    return found


def _outcomes(dataset: Dataset, side: Side, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """What the chosen interactions make of each record, by name: (records,) how many it has, their mean values."""
    rows, size = dataset.rows(side)[chosen], len(dataset.table(side))
    outcomes = {"number of interactions": np.bincount(rows, minlength=size).astype(np.float64)}
    for name in ("rating", "label"):
        column = dataset.column(name)
        if column is not None:
            given = column.is_valid().to_numpy(zero_copy_only=False)[chosen]
            values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)[chosen]
            with np.errstate(invalid="ignore"):
                outcomes[f"mean {name}"] = np.bincount(rows, values, size) / np.bincount(rows, given, size)
    return outcomes


def _follows(numbers: np.ndarray, whole: np.ndarray, training: np.ndarray) -> float:
    """How closely numbers go with an outcome; 0 where training alone explains them better."""
    closely, known = abs(rank_correlation(numbers, whole)), abs(rank_correlation(numbers, training))
    return 0.0 if known > max(closely, LEAKS) else closely


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, over the rows where neither is NaN; 0 where too few are left or one of them is constant."""
    both = ~np.isnan(one) & ~np.isnan(other)
    if both.sum() < FEWEST_RECORDS:
        return 0.0
    ranks = [_ranks(one[both]), _ranks(other[both])]
    if min(np.ptp(ranks[0]), np.ptp(ranks[1])) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing their mean."""
    _, place, each = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(each) - (each - 1) / 2)[place]


def check_answers(dataset: Dataset, labels: Labels, config: Config) -> list[Finding]:
    """Features that tell an explicit negative from an explicit positive, of users or items they were not learned on."""
    found = []
    explicit = _explicit(dataset, config) & (labels.positive | labels.negative)
    for side in SIDES:
        rows, size = dataset.rows(side), len(dataset.table(side))
        good = np.bincount(rows[explicit & labels.positive], minlength=size).astype(np.float64)
        bad = np.bincount(rows[explicit & labels.negative], minlength=size).astype(np.float64)
        if min((good > 0).sum(), (bad > 0).sum()) < 10 or min(good.sum(), bad.sum()) < 50:
            continue
        for name in dataset.features(side):
            codes = value_codes(dataset, side, name)
            area = 0.5 if codes is None else held_out_area(*codes, good, bad)
            if area > LEAKS:
                what = "label" if dataset.column("label") is not None else "low rating"
                text = f"The {side} feature '{name}' gives the {what} away: by it alone, "
                text += f"{area:.0%} of the positives of {side}s it was not learned on rank above the negatives."
                advice = f"Leave it out if it was written down after the {what}."
                found.append(Finding("problem", "leak of the label", text, advice))
    return found


def _explicit(dataset: Dataset, config: Config) -> np.ndarray:
    """(interactions,) bool: those that say by a label, or by a rating under `min_rating`, which they are."""
    explicit = np.zeros(len(dataset.interactions), bool)
    for name in ("label", "rating") if config.data.min_rating is not None else ("label",):
        column = dataset.column(name)
        if column is not None:
            explicit |= column.is_valid().to_numpy(zero_copy_only=False)
    return explicit


def value_codes(dataset: Dataset, side: Side, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(values,) the record of each value of a feature, and (values,) its code; numbers are in bins, absent is one.

    None for what has no values to compare: sequences, images, nested columns.
    """
    column = dataset.table(side).column(name).combine_chunks()
    flat, owners = flattened(column)
    if name.startswith(("temporal.", "image.")) or not is_plain(flat.type):
        return None
    present = is_present(flat)
    if pa.types.is_floating(flat.type):
        numbers = flat.fill_null(0.0).to_numpy(zero_copy_only=False)
        edges = np.unique(np.quantile(numbers[present], np.linspace(0, 1, BINS + 1))) if present.any() else []
        codes = np.searchsorted(edges, numbers, side="right")
    else:
        codes = flat.dictionary_encode("encode").indices.to_numpy()
    codes = np.where(present, codes + 1, 0)
    absent = np.setdiff1d(np.arange(len(column)), owners)
    return np.append(owners, absent), np.append(codes, np.zeros(len(absent), np.int64))


def held_out_area(owners: np.ndarray, codes: np.ndarray, good: np.ndarray, bad: np.ndarray) -> float:
    """Area under the curve of ranking records by how often others of their value are positive.

    owners, codes: (values,) as `value_codes` gives them. good, bad: (records,) how many interactions each has.
    Each fifth of the records is ranked by what the other four show, so that a value of one record's own says nothing.
    """
    fold = np.random.default_rng(0).permutation(len(good)) % FOLDS
    right = pairs = 0.0
    for number in range(FOLDS):
        learned, scored = fold[owners] != number, fold == number
        share = good[fold != number].sum() / max(1.0, (good + bad)[fold != number].sum())
        wins = np.bincount(codes[learned], good[owners[learned]], codes.max() + 1)
        all_ = wins + np.bincount(codes[learned], bad[owners[learned]], codes.max() + 1)
        rates = (wins + share) / (all_ + 1)
        each = np.maximum(1, np.bincount(owners, minlength=len(good)))
        scores = (np.bincount(owners, rates[codes], len(good)) / each)[scored]
        _, place = np.unique(scores, return_inverse=True)
        up, down = np.bincount(place, good[scored]), np.bincount(place, bad[scored])
        right += (up * (np.cumsum(down) - down / 2)).sum()
        pairs += up.sum() * down.sum()
    return right / pairs if pairs else 0.5


def check_split(dataset: Dataset, labels: Labels, split: Split) -> list[Finding]:
    """Whether the split can be concluded from: its size, what is new in its test, and what it trains on meanwhile."""
    if split.protocol == "none":
        return []
    found = []
    train, test = split.train[labels.positive[split.train]], split.test
    testers = len(np.unique(dataset.user_rows[test]))
    if testers < FEWEST_TESTS:
        text = f"Only {count(testers, 'user')} can be tested on."
        advice = f"Take no conclusion from the metrics of fewer than {FEWEST_TESTS} users; collect more interactions."
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
    """Positives of an item that their user had before, which lists leave out."""
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
    """Whether test interactions go to other items than training ones, by popularity and by feature."""
    train, test = split.train[labels.positive[split.train]], split.test
    if len(test) < FEWEST_TESTS or len(train) < FEWEST_TESTS:
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
            advice = "See whether what is tested is what the model will meet; weigh recent interactions more."
            found.append(Finding("warning", "feature drift", text, advice))
    return found


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation of two counts: the share of one that would have to move to give the other."""
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def _distance_by_chance(before: np.ndarray, after: np.ndarray) -> float:
    """What `_distance` is on average where the test is drawn from all interactions at random."""
    rng, both = np.random.default_rng(0), before + after
    draws = [[rng.multinomial(part.sum(), both / both.sum()) for part in (before, after)] for _ in range(5)]
    return float(np.mean([_distance(*pair) for pair in draws]))


def stability_index(owners: np.ndarray, codes: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """Population stability index of a feature's values, less what chance alone adds; the rarest values count as one.

    owners, codes: (values,) as `value_codes` gives them. before, after: (items,) interactions of each item.
    """
    counts = np.stack([np.bincount(codes, weights[owners]) for weights in (before, after)])
    order = np.argsort(-counts.sum(0), kind="stable")
    counts = np.concatenate([counts[:, order[:BINS]], counts[:, order[BINS:]].sum(1, keepdims=True)], 1)
    counts = counts[:, counts.sum(0) > 0]
    shares = (counts + 0.5) / (counts + 0.5).sum(1, keepdims=True)
    index = ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()
    return float(index - (counts.shape[1] - 1) * (1 / before.sum() + 1 / after.sum()))
