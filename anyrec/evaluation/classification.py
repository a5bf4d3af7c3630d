"""Evaluation as classification: with one threshold for all, is each pair of user and item called rightly?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from anyrec.core.errors import DataError, Fault
from anyrec.data.dataset import Dataset
from anyrec.data.pairs import Pairs
from anyrec.data.split import PARTS, Part, Split
from anyrec.evaluation.held_out import Repeats, refuse_refitted
from anyrec.model.fitted import FittedModel

LOWEST = np.finfo(np.float64).min


class Classification(NamedTuple):
    """What one threshold makes of labelled scores: a row is called positive where its score is at least the threshold.

    With P positives, N negatives, TP and FP those of either called positive, and TN = N - FP, FN = P - TP:
    accuracy = (TP + TN) / (P + N), over all rows.
    precision = TP / (TP + FP), over the rows called positive; 0 where none is.
    recall = TP / P, over the positives; 0 where there is none.
    f1 = 2 TP / (2 TP + FP + FN); 0 where there is no positive and none is called so.
    auc = (pairs of a positive and a negative in the right order + half of those that tie) / (P N), whatever the
        threshold; None where P or N is 0.
    """

    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float | None
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the confusion matrix and the support (P and N) each in an object of its own."""
        flat = self._asdict()
        names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        confusion = {name: flat.pop(name) for name in names}
        support = {
            "positives": self.true_positives + self.false_negatives,
            "negatives": self.true_negatives + self.false_positives,
        }
        return {**flat, "confusion": confusion, "support": support}


class Labelled(NamedTuple):
    """users, items: (pairs,) rows. labels: (pairs,) bool. negatives: "explicit" or "random"."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    negatives: str


def classification(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Classification:
    """labels: (rows,) bool; scores: (rows,), of which one that is not a number counts as the lowest.

    Raises DataError where there is no row.
    """
    if not len(labels):
        raise DataError(Fault("labels", "there is nothing to measure.", "Give at least one labelled pair.", "no data"))
    scores = finite(scores)
    called = scores >= threshold
    positives, negatives = int(labels.sum()), int((~labels).sum())
    hits, mistakes = int((called & labels).sum()), int((called & ~labels).sum())
    misses = positives - hits
    return Classification(
        threshold=float(threshold),
        accuracy=(hits + negatives - mistakes) / len(labels),
        precision=_share(hits, hits + mistakes),
        recall=_share(hits, positives),
        f1=_share(2 * hits, 2 * hits + mistakes + misses),
        auc=auc(labels, scores),
        true_positives=hits,
        false_positives=mistakes,
        true_negatives=negatives - mistakes,
        false_negatives=misses,
    )


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """(R - P (P + 1) / 2) / (P N) with R the sum of the positives' ranks from below, ties sharing their mean rank.

    None where either label is missing.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(finite(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The score that makes the best F1 when it is the threshold; of several the greatest. (rows,) each, at least one row."""
    scores = finite(scores)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    called = np.arange(1, len(order) + 1)
    f1 = 2 * np.cumsum(labels[order]) / (called + labels.sum())
    together = np.append(
        ordered[1:] == ordered[:-1], False
    )  # equal scores are called alike: only the last of them counts
    return float(ordered[np.argmax(np.where(together, -1.0, f1))])


def finite(scores: np.ndarray) -> np.ndarray:
    """(rows,) float64, what is not a number as the lowest there is."""
    return np.nan_to_num(np.asarray(scores, np.float64), nan=LOWEST)


def classify(model: FittedModel, part: Part = "test", threshold: float | None = None) -> dict[str, Any]:
    """How well a threshold tells the part's positives from negatives, as JSON.

    The pairs are those of `labelled_pairs`, scored with what was known of their users before the part.

    Args:
        threshold: by default the one with the best F1 on validation, whose pairs are found in the same way.

    Returns:
        `negatives` says of which kind they are, `threshold_from` and `threshold_negatives` the same of the threshold,
        `repeats` how pairs that the user had before were counted, `notes` what to beware of.

    Raises:
        ModelError: for a model without its data, or the validation part of a model that was refitted on it.
        DataError: if the part, or the validation part that a threshold is needed from, is empty.
    """
    refuse_refitted(model, part)
    pairs, notes = labelled_pairs(model, part), []
    chosen: dict[str, Any] = {"threshold_from": "given"}
    if threshold is None:
        threshold, chosen, notes = validation_threshold(model)
        if part == "validation":
            notes.append("The threshold was chosen on the very pairs that are measured: all but auc is too good.")
        if chosen["threshold_negatives"] != pairs.negatives:
            notes.append("The threshold was chosen among another kind of negatives than those that are measured.")
    state, repeats = model.before(part), model.config.evaluation.repeats
    found = classify_pairs(state, pairs.users, pairs.items, pairs.labels, threshold, repeats)
    return {"part": part, **found, "negatives": pairs.negatives, **chosen, "notes": notes}


def classify_pairs(
    state: FittedModel, users: np.ndarray, items: np.ndarray, labels: np.ndarray, threshold: float, repeats: Repeats
) -> dict[str, Any]:
    """The figures of labelled pairs, and how many of them repeat what the user had before, as JSON.

    users, items: (pairs,) rows. labels: (pairs,) bool. state: as `FittedModel.before` returns it.
    """
    scores, repeated = score_pairs(state, users, items), state.seen.contains(users, items)
    if repeats == "miss":  # a list that leaves out seen items cannot contain the pair
        scores[repeated] = LOWEST
    kept = ~repeated if repeats == "drop" else np.ones_like(repeated)
    found = classification(labels[kept], scores[kept], threshold).as_dict()
    counts = {"rule": repeats, "pairs": int(repeated.sum()), "positives": int((repeated & labels).sum())}
    if repeated.any() and not repeated.all():
        counts["without_them"] = classification(labels[~repeated], scores[~repeated], threshold).as_dict()
    return {**found, "repeats": counts}


def validation_threshold(model: FittedModel) -> tuple[float, dict[str, Any], list[str]]:
    """The threshold with the best F1 on the validation part, where it is from, and what to beware of."""
    pairs, repeats = labelled_pairs(model, "validation"), model.config.evaluation.repeats
    state = model.before("validation")
    scores, repeated = score_pairs(state, pairs.users, pairs.items), state.seen.contains(pairs.users, pairs.items)
    kept = ~repeated if repeats != "include_seen" and not repeated.all() else np.ones_like(repeated)
    threshold = best_threshold(pairs.labels[kept], scores[kept])
    notes = []
    if model.refitted:
        notes.append("The threshold was chosen on validation, which training.refit learned from: it may be too high.")
    return threshold, {"threshold_from": "validation", "threshold_negatives": pairs.negatives}, notes


def score_pairs(state: FittedModel, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """users, items: (pairs,) rows -> (pairs,) float64 scores. state: as `FittedModel.before` returns it."""
    with torch.inference_mode():
        represented = state.representations("user")[torch.from_numpy(users).to(state.device)]
        chosen = state.representations("item")[torch.from_numpy(items).to(state.device)]
        return state.predict(represented, chosen)["score"].float().cpu().numpy().astype(np.float64)


def labelled_pairs(model: FittedModel, part: Part) -> Labelled:
    """The distinct positives of a part of the split, and negatives of the same users.

    Negatives are "explicit" (label 0, or a low rating) where the part's users have any that no training saw. Else they are
    "random": for each positive one item, drawn by the config's seed from those that its user has no interaction with.
    """
    learning, config = model.required_learning(), model.config
    split, dataset, labels = learning.split, learning.dataset, learning.labels
    rows = learning.held_out(part)
    if not len(rows):
        hint = "Give a threshold." if part == "validation" else "Train with such a part (split.test)."
        raise DataError(Fault("split", f"the {part} part holds no positive interaction.", hint, "empty part"))
    positives = np.unique(_keys(dataset, rows))
    negatives, kind = _explicit_negatives(dataset, split, part, labels.negative, positives), "explicit"
    if not len(negatives):
        rng = np.random.default_rng([config.seed, PARTS.index(part)])
        interacted = config.evaluation.candidates == "interacted"
        negatives, kind = _random_negatives(dataset, positives >> 32, interacted, rng), "random"
    keys = np.concatenate([positives, negatives])
    return Labelled(keys >> 32, keys & 0xFFFFFFFF, np.arange(len(keys)) < len(positives), kind)


def _keys(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """(rows,) user and item of interactions as one number."""
    return dataset.user_rows[rows] << 32 | dataset.item_rows[rows]


def _explicit_negatives(
    dataset: Dataset, split: Split, part: Part, negative: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    """Keys of the explicit negatives of the positives' users: in the part or, where a split by time or by cold items leaves
    some in no part, of the part's time or items; never a pair that was trained on or is a positive."""
    unused = negative.copy()
    unused[np.concatenate([split.train, split.validation, split.test])] = False
    rows = np.flatnonzero(unused)
    held_out = split.rows(part)
    if split.protocol == "cold_items":
        rows = rows[np.isin(dataset.item_rows[rows], dataset.item_rows[held_out])]
    if split.protocol == "global_time" and len(split.test):
        times = dataset.times
        rows = rows[(times[rows] >= times[split.test].min()) == (part == "test")]
    rows = np.concatenate([held_out[negative[held_out]], rows])
    keys = _keys(dataset, rows)[np.isin(dataset.user_rows[rows], positives >> 32)]
    return np.setdiff1d(keys, np.concatenate([_keys(dataset, split.train), positives]))


def _random_negatives(dataset: Dataset, users: np.ndarray, interacted: bool, rng: np.random.Generator) -> np.ndarray:
    """For each of `users: (n,)` the key of one item that they have no interaction with, drawn evenly, with replacement.

    interacted: draw only among items that occur in an interaction. A user who had every item gets none.
    """
    counts = np.bincount(dataset.item_rows, minlength=len(dataset.items))
    items = np.flatnonzero(counts) if interacted else np.arange(len(counts))
    had = Pairs.of(dataset.user_rows, np.searchsorted(items, dataset.item_rows), len(dataset.users))
    free = len(items) - had.counts()[users]
    users, free = users[free > 0], free[free > 0]
    drawn = rng.integers(0, free)
    # The n-th free item of a user comes after every item they had that has at most n free ones before it.
    owners = np.repeat(np.arange(len(dataset.users)), had.counts())
    free_before = had.items - (np.arange(len(had.items)) - had.offsets[owners])
    width = len(items) + 1
    skipped = np.searchsorted(owners * width + free_before, users * width + drawn, side="right") - had.offsets[users]
    return users << 32 | items[drawn + skipped]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
