"""Metrics of a model's heads on held-out interactions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.types import JsonObject
from anyrec.data.split import Part
from anyrec.evaluation.classification import auc
from anyrec.evaluation.held_out import refuse_refitted
from anyrec.model.fitted import FittedModel

LEAST = 1e-7
"""The log loss takes smaller probabilities for this."""


def head_metrics(model: FittedModel, part: Part = "test") -> dict[str, JsonObject]:
    """Measure each head on the positives of a split part that have its target.

    Users are represented by their interactions before the part.

    Args:
        model: A model with its data.
        part: The split part.

    Returns:
        By name of the head: `target`, the column; `count`, the interactions that are measured; and by the head's `task`

        - classes: `accuracy`, `log_loss`, `auc` (one class against the others, the mean over the classes that occur);
        - binary: the same three, with an accuracy at the threshold 0.5;
        - number: `rmse`, `mae`.

        A metric is None if it is not defined: without interactions, or `auc` with one class alone. A head without a
        task has no metrics. Interactions of a class that training did not have are not counted.

    Raises:
        ModelError: For a model without its data, or for the validation part of a model that was refitted on it.
    """
    if not model.heads:
        return {}
    refuse_refitted(model, part)
    learning = model.required_learning()
    dataset, rows = learning.dataset, learning.held_out(part)
    predicted = _predictions(model, part, dataset.user_rows[rows], dataset.item_rows[rows])
    found = {}
    for name, head in model.heads.items():
        column = dataset.column(head.target)
        if column is None:
            continue
        values, present = head.targets(column.take(pa.array(rows)))
        kept = present.numpy()
        metrics = TASKS[head.task](predicted[name][kept], np.asarray(values)[kept]) if head.task else {}
        found[name] = {"target": head.target, "count": int(kept.sum()), **metrics}
    return found


def _predictions(model: FittedModel, part: Part, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each head answers for the pairs of rows, (pairs, ...) float64, by name."""
    state = model.before(part)
    with torch.inference_mode():
        left = state.representations("user")[torch.from_numpy(users).to(state.device)]
        right = state.representations("item")[torch.from_numpy(items).to(state.device)]
        predictions = state.predict(left, right)
        answers = {name: head.answer(predictions[name].float()) for name, head in model.heads.items()}
    return {name: one.cpu().numpy().astype(np.float64) for name, one in answers.items()}


def _of_classes(probabilities: np.ndarray, classes: np.ndarray) -> JsonObject:
    """Return the metrics of probabilities (pairs, classes) against the true classes (pairs,)."""
    if not len(classes):
        return {"accuracy": None, "log_loss": None, "auc": None}
    own = probabilities[np.arange(len(classes)), classes]
    areas = [auc(classes == one, probabilities[:, one]) for one in np.unique(classes)]
    defined = [area for area in areas if area is not None]
    return {
        "accuracy": float((probabilities.argmax(1) == classes).mean()),
        "log_loss": float(-np.log(own.clip(LEAST)).mean()),
        "auc": float(np.mean(defined)) if defined else None,
    }


def _of_yes_or_no(probabilities: np.ndarray, truth: np.ndarray) -> JsonObject:
    """Return the metrics of probabilities (pairs,) of yes against the truth (pairs,), 0 or 1."""
    both = np.stack([1 - probabilities, probabilities], 1)
    found = _of_classes(both, truth.astype(np.int64))
    return {**found, "auc": auc(truth > 0.5, probabilities) if len(truth) else None}


def _of_numbers(numbers: np.ndarray, truth: np.ndarray) -> JsonObject:
    """Return the metrics of numbers (pairs,) against the true ones (pairs,)."""
    if not len(truth):
        return {"rmse": None, "mae": None}
    errors = numbers - truth
    return {"rmse": float(np.sqrt(np.square(errors).mean())), "mae": float(np.abs(errors).mean())}


TASKS = {"classes": _of_classes, "binary": _of_yes_or_no, "number": _of_numbers}
"""The metrics of each task of a head."""
