"""Features that reveal the outcome: held-out ids, counts of interactions, labels."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from anyrec.core.config import Config
from anyrec.data.dataset import Dataset
from anyrec.data.doctor.value_codes import value_codes
from anyrec.data.findings import Finding
from anyrec.data.ids import SIDES, Side
from anyrec.data.labels import Labels
from anyrec.data.leaks import PAIRS, leak_share
from anyrec.data.split import Split
from anyrec.data.summary import is_present

FEWEST_RECORDS = 30
"""With fewer users or items that have a feature, nothing is concluded from it."""
LEAKS = 0.95
"""The rank correlation, or area under the curve, above which a feature is the outcome itself."""
LEAKS_BY_NAME = 0.7
"""That correlation for a feature whose name says that it is counted from interactions."""
EVENTS = "(rating|review|vote|purchase|sale|click|view|order|play|like|interaction)s?"
COUNTED = re.compile(
    rf"popularity|best_?sell|sales_?rank|(\b|_)(n|num|number|count|total|avg|average|mean)_?(of_?)?{EVENTS}(\b|_)"
    rf"|(\b|_){EVENTS}_?(count|num|avg|average|mean|total)"
)
"""Names of features that are counted from interactions."""
FOLDS = 5


def check_lists(dataset: Dataset, split: Split, config: Config) -> list[Finding]:
    """Report features that name the held-out partner: lists of ids, and texts."""
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
    """Report numbers of users and items that follow their interactions, which are known only after these have happened.

    A number that follows the training interactions more closely than all interactions was counted from training, which
    is no leak.
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
    """Return what the chosen interactions make of each record, by name.

    Args:
        dataset: The data.
        side: The side of the records.
        chosen: (chosen,) Interactions.

    Returns:
        (records,) float64 each: the number of interactions, and the means of their ratings and labels.
    """
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
    """Return how closely numbers follow an outcome; 0 if training alone explains them better."""
    closely, known = abs(rank_correlation(numbers, whole)), abs(rank_correlation(numbers, training))
    return 0.0 if known > max(closely, LEAKS) else closely


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation over the rows where neither value is NaN.

    It is 0 if too few rows are left or one of the columns is constant.
    """
    both = ~np.isnan(one) & ~np.isnan(other)
    if both.sum() < FEWEST_RECORDS:
        return 0.0
    ranks = [_ranks(one[both]), _ranks(other[both])]
    if min(np.ptp(ranks[0]), np.ptp(ranks[1])) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks; equal values share their mean."""
    _, place, each = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(each) - (each - 1) / 2)[place]


def check_answers(dataset: Dataset, labels: Labels, config: Config) -> list[Finding]:
    """Report features that separate explicit negatives from explicit positives of records not learned from."""
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
    """Return (interactions,) bool, which of them have a label, or a rating if `min_rating` is set."""
    explicit = np.zeros(len(dataset.interactions), bool)
    for name in ("label", "rating") if config.data.min_rating is not None else ("label",):
        column = dataset.column(name)
        if column is not None:
            explicit |= column.is_valid().to_numpy(zero_copy_only=False)
    return explicit


def held_out_area(owners: np.ndarray, codes: np.ndarray, good: np.ndarray, bad: np.ndarray) -> float:
    """Return the area under the curve of ranking records by how often other records with their value are positive.

    Each fifth of the records is ranked by what the other four show, so that a record's own value says nothing.

    Args:
        owners: (values,) As `value_codes` returns them.
        codes: (values,) As `value_codes` returns them.
        good: (records,) The number of positives of each record.
        bad: (records,) The number of negatives of each record.
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
