"""Evaluation as binary classification: user-item pairs are predicted positive from one score threshold on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.pairs import Pairs
from anyrec.data.split import PARTS, Part, Split
from anyrec.evaluation.held_out import Repeats, refuse_refitted
from anyrec.model.fitted import FittedModel

LOWEST = np.finfo(np.float64).min


@dataclass(frozen=True)
class Classification:
    """Metrics of labelled scores at one threshold: a row is predicted positive if its score is at least the threshold.

    With P positives, N negatives, TP and FP the positives and negatives that are predicted positive, TN = N - FP and
    FN = P - TP:
    accuracy = (TP + TN) / (P + N), over all rows.
    precision = TP / (TP + FP), over the rows predicted positive; 0 if there are none.
    recall = TP / P, over the positives; 0 if there are none.
    f1 = 2 TP / (2 TP + FP + FN); 0 if no row is positive or predicted positive.
    auc = (pairs of a positive and a negative in the right order + half of the pairs that tie) / (P N), independent of
        the threshold; None if P or N is 0.
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

    def as_dict(self) -> JsonObject:
        """Return a JSON object; the confusion matrix and the support (P and N) are objects within it."""
        flat = asdict(self)
        names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        confusion = {name: flat.pop(name) for name in names}
        support = {
            "positives": self.true_positives + self.false_negatives,
            "negatives": self.true_negatives + self.false_positives,
        }
        return {**flat, "confusion": confusion, "support": support}


class LabelledPairs(NamedTuple):
    """User-item pairs to classify.

    users, items: (pairs,) rows. labels: (pairs,) bool. negatives: How the negatives were found, "explicit" or "random".
    """

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    negatives: str


def classification(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Classification:
    """Compute the metrics of labelled scores at a threshold.

    Args:
        labels: (rows,) bool.
        scores: (rows,); nan counts as the lowest score.
        threshold: Score from which a row is predicted positive.

    Raises:
        DataError: If there is no row.
    """
    if not len(labels):
        raise DataError(Fault("labels", "there is nothing to measure.", "Give at least one labelled pair.", "no data"))
    scores = finite(scores)
    predicted = scores >= threshold
    positives, negatives = int(labels.sum()), int((~labels).sum())
    true_positives, false_positives = int((predicted & labels).sum()), int((predicted & ~labels).sum())
    false_negatives = positives - true_positives
    return Classification(
        threshold=float(threshold),
        accuracy=(true_positives + negatives - false_positives) / len(labels),
        precision=_share(true_positives, true_positives + false_positives),
        recall=_share(true_positives, positives),
        f1=_share(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
        auc=auc(labels, scores),
        true_positives=true_positives,
        false_positives=false_positives,
        true_negatives=negatives - false_positives,
        false_negatives=false_negatives,
    )


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Return the area under the ROC curve, (R - P (P + 1) / 2) / (P N).

    R is the sum of the ascending ranks of the positives; equal scores share their mean rank.

    Args:
        labels: (rows,) bool.
        scores: (rows,); nan counts as the lowest score.

    Returns:
        The area, or None if either label is absent.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(finite(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the score with the best F1 as threshold; of several, the greatest.

    Args:
        labels: (rows,) bool, at least one row.
        scores: (rows,); nan counts as the lowest score.
    """
    scores = finite(scores)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    predicted = np.arange(1, len(order) + 1)
    f1 = 2 * np.cumsum(labels[order]) / (predicted + labels.sum())
    # A threshold predicts all rows of the same score positive, so only the last of equal scores is a candidate.
    followed_by_equal = np.append(ordered[1:] == ordered[:-1], False)
    return float(ordered[np.argmax(np.where(followed_by_equal, -1.0, f1))])


def finite(scores: np.ndarray) -> np.ndarray:
    """Return scores as (rows,) float64, with nan replaced by the lowest number."""
    return np.nan_to_num(np.asarray(scores, np.float64), nan=LOWEST)


def classify(model: FittedModel, part: Part = "test", threshold: float | None = None) -> JsonObject:
    """Compute the classification metrics of the pairs of `labelled_pairs`.

    Users are scored by their interactions before the part.

    Args:
        model: A model with its data.
        part: The split part.
        threshold: Score from which a pair is predicted positive; by default the one with the best F1 on the pairs of
            the validation part.

    Returns:
        A JSON object with the metrics; `negatives`: the kind of negatives; `threshold_from` and `threshold_negatives`:
        the source of the threshold and its kind of negatives; `repeats`: how repeated pairs were counted; `notes`:
        caveats.

    Raises:
        ModelError: For a model without its data, or for the validation part of a model that was refitted on it.
        DataError: If the part is empty, or the validation part if a threshold is needed from it.
    """
    refuse_refitted(model, part)
    pairs, notes = labelled_pairs(model, part), []
    chosen: JsonObject = {"threshold_from": "given"}
    if threshold is None:
        threshold, chosen, notes = validation_threshold(model)
        if part == "validation":
            notes.append("The threshold was chosen on the evaluated pairs: all metrics except auc are too optimistic.")
        if chosen["threshold_negatives"] != pairs.negatives:
            notes.append("The threshold was chosen with another kind of negatives than the evaluated ones.")
    state, repeats = model.before(part), model.config.evaluation.repeats
    found = classify_pairs(state, pairs.users, pairs.items, pairs.labels, threshold, repeats)
    return {"part": part, **found, "negatives": pairs.negatives, **chosen, "notes": notes}


def classify_pairs(
    state: FittedModel, users: np.ndarray, items: np.ndarray, labels: np.ndarray, threshold: float, repeats: Repeats
) -> JsonObject:
    """Compute the metrics of labelled pairs, and of the pairs that are not repeated.

    Args:
        state: A model as `FittedModel.before` returns it.
        users: (pairs,) user rows.
        items: (pairs,) item rows.
        labels: (pairs,) bool.
        threshold: Score from which a pair is predicted positive.
        repeats: How pairs that the user interacted with before are counted.
    """
    scores, repeated = score_pairs(state, users, items), state.seen.contains(users, items)
    if repeats == "miss":  # lists exclude seen items, so they cannot contain the pair
        scores[repeated] = LOWEST
    kept = ~repeated if repeats == "drop" else np.ones_like(repeated)
    found = classification(labels[kept], scores[kept], threshold).as_dict()
    counts = {"rule": repeats, "pairs": int(repeated.sum()), "positives": int((repeated & labels).sum())}
    if repeated.any() and not repeated.all():
        counts["without_them"] = classification(labels[~repeated], scores[~repeated], threshold).as_dict()
    return {**found, "repeats": counts}


def validation_threshold(model: FittedModel) -> tuple[float, JsonObject, list[str]]:
    """Return the threshold with the best F1 on the validation part, its source as JSON, and caveats."""
    pairs, repeats = labelled_pairs(model, "validation"), model.config.evaluation.repeats
    state = model.before("validation")
    scores, repeated = score_pairs(state, pairs.users, pairs.items), state.seen.contains(pairs.users, pairs.items)
    kept = ~repeated if repeats != "include_seen" and not repeated.all() else np.ones_like(repeated)
    threshold = best_threshold(pairs.labels[kept], scores[kept])
    notes = []
    if model.refitted:
        notes.append("The threshold was chosen on the validation part, which a refit learned from: it may be too high.")
    return threshold, {"threshold_from": "validation", "threshold_negatives": pairs.negatives}, notes


def score_pairs(state: FittedModel, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Score user-item pairs.

    Args:
        state: A model as `FittedModel.before` returns it.
        users: (pairs,) user rows.
        items: (pairs,) item rows.

    Returns:
        (pairs,) float64 scores.
    """
    with torch.inference_mode():
        user_rows = state.representations("user")[torch.from_numpy(users).to(state.device)]
        item_rows = state.representations("item")[torch.from_numpy(items).to(state.device)]
        return state.predict(user_rows, item_rows)["score"].float().cpu().numpy().astype(np.float64)


def labelled_pairs(model: FittedModel, part: Part) -> LabelledPairs:
    """Return the distinct positives of a split part, and negatives of the same users.

    The negatives are explicit (label 0, or a rating below `data.min_rating`) if the part's users have any that were
    not trained on. Otherwise they are random: one item for each positive, drawn with the config's seed from the items
    that its user has no interaction with.

    Args:
        model: A model with its data.
        part: The split part.

    Raises:
        ModelError: If the model was loaded without its data.
        DataError: If the part has no positive interaction.
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
    return LabelledPairs(keys >> 32, keys & 0xFFFFFFFF, np.arange(len(keys)) < len(positives), kind)


def _keys(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """(rows,) int64, the user and item of interactions as one number."""
    return dataset.user_rows[rows] << 32 | dataset.item_rows[rows]


def _explicit_negatives(
    dataset: Dataset, split: Split, part: Part, negative: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    """Return the keys of the explicit negatives of the positives' users.

    They are those of the part, and those that a split by time or by cold items assigned to no part but that are of the
    part's time or items. A pair that was trained on or is a positive is excluded.
    """
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
    """Return, for each of `users: (n,)`, the key of one item without an interaction, drawn uniformly with replacement.

    interacted: Draw only items that occur in an interaction. A user who interacted with every item is omitted.
    """
    counts = np.bincount(dataset.item_rows, minlength=len(dataset.items))
    items = np.flatnonzero(counts) if interacted else np.arange(len(counts))
    seen = Pairs.of(dataset.user_rows, np.searchsorted(items, dataset.item_rows), len(dataset.users))
    free = len(items) - seen.counts()[users]
    users, free = users[free > 0], free[free > 0]
    drawn = rng.integers(0, free)
    # The n-th free item of a user comes after every seen item that has at most n free items before it.
    owners = np.repeat(np.arange(len(dataset.users)), seen.counts())
    free_before = seen.items - (np.arange(len(seen.items)) - seen.offsets[owners])
    width = len(items) + 1
    skipped = np.searchsorted(owners * width + free_before, users * width + drawn, side="right") - seen.offsets[users]
    return users << 32 | items[drawn + skipped]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
