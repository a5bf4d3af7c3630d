"""Metrics of a model on a JSON file of labelled pairs, or of each user's true items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from anyrec.core.errors import DataError, Fault, InputError
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.formats.columns import id_column
from anyrec.data.formats.containers import read_bytes
from anyrec.data.formats.decode import DOCUMENT_PARTS, decode_any
from anyrec.data.formats.faults import Faults
from anyrec.data.ids import Side, rows_of
from anyrec.data.item_facts import category_feature, indicators
from anyrec.data.pairs import Pairs
from anyrec.data.split import NOW
from anyrec.evaluation.classification import best_threshold, classify_pairs, score_pairs, validation_threshold
from anyrec.evaluation.held_out import HeldOut, apply_repeats, rank_state, rankable_items
from anyrec.evaluation.list_metrics import CatalogueStatistics, list_metrics
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.model.fitted import FittedModel


class FilePairs(NamedTuple):
    """The pairs of a file whose user and item are in the model.

    users, items: (pairs,) rows. labels: (pairs,) bool, or None if the file lists items by user. skipped: number of
    unknown users and items, counted each time they are named, and number of pairs dropped because of them.
    """

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray | None
    skipped: dict[str, int]


def evaluate_file(
    model: FittedModel,
    truth_path: str | Path,
    exclude_path: str | Path | None = None,
    *,
    threshold: float | None = None,
    skip_unknown: bool = False,
) -> JsonObject:
    """Compute metrics of a model on a JSON file.

    Users are scored by their interactions before the pairs of the file (`levels_before`). Ids match independently of
    their type: "12" matches the model's 12.

    Args:
        model: The model, with or without its data.
        truth_path: `[[user, item, label], ...]` with labels 0 or 1 for classification metrics, or `{user: [items]}`
            for ranking and list metrics over all candidates.
        exclude_path: `{user: [items]}`, the items that lists exclude; by default the items that the user interacted
            with before. For ranking only. A true item among them is counted by `evaluation.repeats`.
        threshold: For classification only; by default the best on the model's validation part or, without the model's
            data, the best on the file itself.
        skip_unknown: Drop and count pairs with unknown users or items; otherwise they are errors.

    Returns:
        A JSON object with the metrics, their options, and the counts of skipped ids.

    Raises:
        DataError: With all faults of both files.
        InputError: For an option that does not apply to the shape of the file.
    """
    faults = Faults()
    truth = read_pairs(Path(truth_path), model.dataset, skip_unknown, faults)
    exclude = None if exclude_path is None else read_pairs(Path(exclude_path), model.dataset, skip_unknown, faults)
    if exclude is not None and exclude.labels is not None:
        faults.add("shape", f"{exclude_path}", "pairs with labels exclude nothing.", 'Give {"user": ["item", ...]}.')
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    if not len(truth.users):
        hint = "Give at least one user and item that the model knows."
        raise DataError(Fault(str(truth_path), "there is nothing to measure.", hint, "no data"))
    if truth.labels is not None:
        if exclude is not None:
            fault = Fault("--exclude", "labelled pairs are not ranked: nothing is excluded.", "Leave it out.", "option")
            raise InputError(fault)
        return {**_classification(model, truth, truth.labels, threshold), "skipped": truth.skipped}
    if threshold is not None:
        raise InputError(Fault("--threshold", "a file without labels has no use for it.", "Leave it out.", "option"))
    skipped = {"skipped": truth.skipped} | ({} if exclude is None else {"skipped_exclude": exclude.skipped})
    return {**_ranking(model, truth, exclude), **skipped}


def levels_before(model: FittedModel, pairs: FilePairs) -> np.ndarray:
    """Infer the split part before which each user is scored, because a file has no times.

    If the test part contains all held-out pairs of the file, users are scored before the test part. Otherwise, if the
    validation part contains them all, users are scored before the validation part. Otherwise each user is scored before
    the first part that contains one of the user's pairs. Users without a held-out pair are scored with all of their
    interactions.

    Args:
        model: The model.
        pairs: The pairs of the file.

    Returns:
        (users,) levels as `FittedModel.before` takes them.

    Raises:
        ModelError: If the model does not contain which interactions were held out.
    """
    seen, masks = model.seen, model.seen_parts
    model.seen_before("test")  # raises ModelError if the model does not contain which interactions were held out
    assert masks is not None  # for the type checker: see the line above
    place = seen.places(pairs.users, pairs.items)
    parts = np.where(place >= 0, masks[np.maximum(place, 0)], 0) & ~np.uint8(1)
    users, parts = pairs.users[parts > 0], parts[parts > 0]
    levels = np.full(len(model.dataset.users), NOW)
    for level in (2, 1):
        if (parts >> level & 1).all():
            levels[users] = level
            return levels
    np.minimum.at(levels, users, np.log2(parts & -parts.astype(np.int16)).astype(np.int64))
    return levels


def _classification(model: FittedModel, truth: FilePairs, labels: np.ndarray, threshold: float | None) -> JsonObject:
    """Compute the classification metrics of labelled pairs. labels: (pairs,) bool."""
    state, repeats = model.before(levels_before(model, truth)), model.config.evaluation.repeats
    chosen: JsonObject = {"threshold_from": "given"}
    notes: list[str] = []
    if threshold is None and model.split is not None and len(model.split.validation):
        threshold, chosen, notes = validation_threshold(model)
    if threshold is None:
        scores, repeated = score_pairs(state, truth.users, truth.items), state.seen.contains(truth.users, truth.items)
        kept = np.ones_like(repeated) if repeats == "include_seen" or repeated.all() else ~repeated
        threshold, chosen = best_threshold(labels[kept], scores[kept]), {"threshold_from": "this file"}
        notes = [
            "The threshold was chosen on the evaluated pairs: all metrics except auc are too optimistic. "
            "Give one, or --data."
        ]
    found = classify_pairs(state, truth.users, truth.items, labels, threshold, repeats)
    return {**found, **chosen, "notes": notes}


def _ranking(model: FittedModel, truth: FilePairs, exclude: FilePairs | None) -> JsonObject:
    """Compute the means over users of ranking and list metrics. Popularity counts all interactions in the model."""
    dataset, config, ks = model.dataset, model.config, model.config.evaluation.k
    targets = Pairs.of(truth.users, truth.items, len(dataset.users))
    state = model.before(levels_before(model, truth))
    seen = state.seen if exclude is None else Pairs.of(exclude.users, exclude.items, len(dataset.users))
    held = HeldOut(targets, seen, rankable_items(model))
    repeated = int(held.repeated.sum())
    held = apply_repeats(held, config.evaluation.repeats)
    if exclude is not None:
        held = replace(held, exclude_seen=True)
    ranking = rank_state(state, held)
    own = int(seen.counts()[ranking.users].sum()) if held.exclude_seen else 0
    category = category_feature(dataset, config.evaluation.category)
    traits = None if category is None else indicators(dataset, "item", category)[0]
    num_users = int((model.seen.counts() > 0).sum())
    catalogue = CatalogueStatistics(model.item_users, num_users, held.rankable, traits, state.seen)
    found: JsonObject = ranking_metrics(ranking, ks)
    for name, value in list_metrics(ranking, catalogue, ks).items():
        if not np.isnan(value).all():
            found[name] = float(np.nanmean(value))
    return {
        **found,
        "users": len(ranking.users),
        "targets": len(ranking.targets),
        "repeats": config.evaluation.repeats,
        "repeated_targets": repeated,
        "excluded": len(seen.items) if exclude is not None else own,
        "excluded_from": "history" if exclude is None else "file",
        "candidates": config.evaluation.candidates,
        "candidate_samples": config.evaluation.candidate_samples,
    }


def read_pairs(path: Path, dataset: Dataset, skip_unknown: bool, faults: Faults) -> FilePairs:
    """Read the pairs of a file in either shape.

    Args:
        path: The file.
        dataset: The users and items of the model.
        skip_unknown: Drop and count pairs with unknown users or items; otherwise they are faults.
        faults: Faults of the file are added to it.

    Raises:
        DataError: If the file is not JSON.
    """
    document = decode_any(read_bytes(path), path)
    if isinstance(document, list):
        return _labelled(document, path, dataset, skip_unknown, faults)
    if isinstance(document, dict) and not set(document) & set(DOCUMENT_PARTS):
        return _listed(document, path, dataset, skip_unknown, faults)
    hint = 'Give [[user, item, label], ...] or {"user": ["item", ...]}.'
    if isinstance(document, dict):
        faults.add(
            "shape", str(path), "this is a dataset, not pairs to evaluate.", f"{hint} Give a dataset with --data."
        )
    else:
        faults.add("shape", str(path), f"expected a list or an object; found {show(document)}.", hint)
    return _nothing()


def _labelled(
    document: Sequence[Sequence[object]], path: Path, dataset: Dataset, skip_unknown: bool, faults: Faults
) -> FilePairs:
    """Read `[[user, item, label], ...]`."""
    if not (set(map(type, document)) <= {list} and set(map(len, document)) <= {3}):
        wrong = [row for row, value in enumerate(document) if type(value) is not list or len(value) != 3]
        faults.add_rows(
            "shape",
            wrong,
            lambda row: (f"{path}: /{row}", f"expected [user, item, label]; found {show(document[row])}.", ""),
        )
        return _nothing()
    users, items, labels = map(list, zip(*document, strict=True)) if document else ([], [], [])
    if not (set(map(type, labels)) <= {int, float, bool} and set(labels) <= {0, 1}):
        wrong = [
            row for row, value in enumerate(labels) if type(value) not in (int, float, bool) or value not in (0, 1)
        ]
        faults.add_rows(
            "bad label",
            wrong,
            lambda row: (
                f"{path}: /{row}/2",
                f"a label is 0 or 1; found {show(labels[row])}.",
                "Write 1 for a positive.",
            ),
        )
        labels = [0] * len(document)
    user_rows = _rows(users, "user", lambda row: f"{path}: /{row}/0", dataset, skip_unknown, faults)
    item_rows = _rows(items, "item", lambda row: f"{path}: /{row}/1", dataset, skip_unknown, faults)
    return _known(user_rows, item_rows, np.arange(len(users)), np.array(labels, bool))


def _listed(document: JsonObject, path: Path, dataset: Dataset, skip_unknown: bool, faults: Faults) -> FilePairs:
    """Read `{user: [items]}`."""
    users = list(document)

    def user_at(row: int) -> str:
        return f"{path}: /" + users[row].replace("~", "~0").replace("/", "~1")

    if not set(map(type, document.values())) <= {list}:
        wrong = [row for row, user in enumerate(users) if type(document[user]) is not list]
        faults.add_rows(
            "shape",
            wrong,
            lambda row: (user_at(row), f"expected a list of item ids; found {show(document[users[row]])}.", ""),
        )
        return _nothing()
    lengths = np.fromiter(map(len, document.values()), np.int64, len(users))
    starts = np.cumsum(lengths) - lengths
    owners = np.repeat(np.arange(len(users)), lengths)

    def item_at(row: int) -> str:
        return f"{user_at(owners[row])}/{row - starts[owners[row]]}"

    items = list(chain.from_iterable(document.values()))
    user_rows = _rows(users, "user", user_at, dataset, skip_unknown, faults)
    return _known(user_rows, _rows(items, "item", item_at, dataset, skip_unknown, faults), owners, None)


def _rows(
    values: Sequence[object],
    side: Side,
    pointer: Callable[[int], str],
    dataset: Dataset,
    skip_unknown: bool,
    faults: Faults,
) -> np.ndarray:
    """Return (values,) rows of ids in the model; -1 for an unknown id, which is a fault unless `skip_unknown`.

    Ids are compared as text because the keys of a JSON object are always text.
    """
    ids = id_column(list(values), pointer, faults)
    rows = rows_of(ids.cast(pa.string()), dataset.ids(side).cast(pa.string()))
    unknown = np.flatnonzero((rows < 0) & ids.is_valid().to_numpy(zero_copy_only=False))
    if not skip_unknown:
        hint = "Remove it, or drop all unknown ids with --skip-unknown."
        faults.add_rows(
            "unknown id", unknown, lambda row: (pointer(row), f"the model knows no {side} {show(values[row])}.", hint)
        )
    return rows


def _known(user_rows: np.ndarray, item_rows: np.ndarray, owners: np.ndarray, labels: np.ndarray | None) -> FilePairs:
    """Drop and count the pairs with an unknown user or item.

    user_rows: (named users,). item_rows: (pairs,). owners: (pairs,) position of each pair's user in `user_rows`.
    """
    pair_users = user_rows[owners]
    kept = (pair_users >= 0) & (item_rows >= 0)
    skipped = {
        "unknown_users": int((user_rows < 0).sum()),
        "unknown_items": int((item_rows < 0).sum()),
        "dropped_pairs": int((~kept).sum()),
    }
    return FilePairs(pair_users[kept], item_rows[kept], None if labels is None else labels[kept], skipped)


def _nothing() -> FilePairs:
    """Return no pairs."""
    none = np.empty(0, np.int64)
    return FilePairs(none, none, None, {})
