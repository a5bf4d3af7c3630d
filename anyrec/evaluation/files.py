"""A model measured on files of the older shapes: labelled pairs, or each user's true items."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.data.columns import Faults, id_column, show
from anyrec.data.dataset import Dataset, Side, rows_of
from anyrec.data.read import TOP, decode_any, read_bytes
from anyrec.errors import DataError, Fault, InputError
from anyrec.evaluation.classification import best_threshold, classification, score_pairs, validation_threshold
from anyrec.evaluation.held_out import HeldOut, rank_pairs, rankable_items
from anyrec.evaluation.lists import Catalogue, list_metrics
from anyrec.evaluation.measure import category_feature, indicators
from anyrec.evaluation.ranking import Pairs, Ranking, ranking_metrics
from anyrec.scoring import score_blocks

if TYPE_CHECKING:
    from anyrec.recommender import Recommender


class FilePairs(NamedTuple):
    """The pairs of a file whose user and item the model knows.

    users, items: (pairs,) rows. labels: (pairs,) bool, or None where the file lists items by user. skipped: how many
    users and items were unknown, as often as they are named, and how many pairs were dropped for it.
    """

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray | None
    skipped: dict[str, int]


def evaluate_file(
    recommender: Recommender,
    truth_path: str | Path,
    exclude_path: str | Path | None = None,
    *,
    threshold: float | None = None,
    skip_unknown: bool = False,
) -> dict[str, Any]:
    """Metrics of a model on a JSON file, as JSON.

    truth_path: `[[user, item, label], ...]`, labels 0 or 1, gives classification metrics; `{user: [items]}` gives ranking and
        list metrics over the whole catalogue.
    exclude_path: `{user: [items]}`, items not to rank for a user; a true item stays in. For the second shape only.
    threshold: for the first shape only; by default the best on the model's validation part, or, where the model comes without
        its data, the best on the file itself.
    skip_unknown: drop and count pairs of users or items that the model does not know, instead of refusing them.
    Ids match whatever their type: "12" is the model's 12. Raises DataError with every fault of both files, InputError for
    an option that the file's shape has no use for.
    """
    faults = Faults()
    truth = read_pairs(Path(truth_path), recommender.dataset, skip_unknown, faults)
    exclude = (
        None if exclude_path is None else read_pairs(Path(exclude_path), recommender.dataset, skip_unknown, faults)
    )
    if exclude is not None and exclude.labels is not None:
        faults.add("shape", f"{exclude_path}", "pairs with labels exclude nothing.", 'Give {"user": ["item", ...]}.')
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    if not len(truth.users):
        mend = "Give at least one user and item that the model knows."
        raise DataError(Fault(str(truth_path), "there is nothing to measure.", mend, "no data"))
    if truth.labels is not None:
        if exclude is not None:
            fault = Fault("--exclude", "labelled pairs are not ranked: nothing is excluded.", "Leave it out.", "option")
            raise InputError(fault)
        return {**_classification(recommender, truth, threshold), "skipped": truth.skipped}
    if threshold is not None:
        raise InputError(Fault("--threshold", "a file without labels has no use for it.", "Leave it out.", "option"))
    skipped = {"skipped": truth.skipped} | ({} if exclude is None else {"skipped_exclude": exclude.skipped})
    return {**_ranking(recommender, truth, exclude), **skipped}


def _classification(recommender: Recommender, truth: FilePairs, threshold: float | None) -> dict[str, Any]:
    assert truth.labels is not None
    scores = score_pairs(recommender, truth.users, truth.items)
    chosen: dict[str, Any] = {"threshold_from": "given"}
    notes: list[str] = []
    if threshold is None and recommender.split is not None and len(recommender.split.validation):
        threshold, chosen, notes = validation_threshold(recommender)
    if threshold is None:
        threshold, chosen = best_threshold(truth.labels, scores), {"threshold_from": "this file"}
        notes = [
            "The threshold was chosen on the very pairs that are measured: all but auc is too good. Give one, or --data."
        ]
    return {**classification(truth.labels, scores, threshold).as_dict(), **chosen, "notes": notes}


def _ranking(recommender: Recommender, truth: FilePairs, exclude: FilePairs | None) -> dict[str, Any]:
    """Means over users of the metrics of ranking.py and lists.py. What users had and how popular items are is taken from
    all interactions that the model knows of."""
    dataset, config, ks = recommender.dataset, recommender.config, recommender.config.evaluation.k
    counts = np.bincount(recommender.seen.items, minlength=len(dataset.items))
    targets = Pairs.of(truth.users, truth.items, len(dataset.users))
    barred = None if exclude is None else Pairs.of(exclude.users, exclude.items, len(dataset.users))
    held = HeldOut(targets, barred, rankable_items(recommender))
    ranking = _rank(recommender, held)
    category = category_feature(dataset, config.evaluation.category)
    traits = None if category is None else indicators(dataset, "item", category)[0]
    known_users = int((recommender.seen.counts() > 0).sum())
    catalogue = Catalogue(counts, known_users, held.rankable, traits, recommender.seen)
    found: dict[str, Any] = ranking_metrics(ranking, ks)
    for name, value in list_metrics(ranking, catalogue, ks).items():
        if not np.isnan(value).all():
            found[name] = float(np.nanmean(value))
    return {
        **found,
        "users": len(ranking.users),
        "targets": len(ranking.targets),
        "excluded": 0 if barred is None else len(barred.items),
        "candidates": config.evaluation.candidates,
        "candidate_samples": config.evaluation.candidate_samples,
    }


def _rank(recommender: Recommender, held: HeldOut) -> Ranking:
    """As `rank_held_out`, but of what the model keeps of its users and items, so that it needs no data beside it."""
    with recommender._inference():
        users, items = recommender._known_rows("user"), recommender._known_rows("item")

        def score(rows: np.ndarray) -> Tensor:
            return score_blocks(recommender.model, users[torch.from_numpy(rows).to(users.device)], items)

        return rank_pairs(recommender, held, score)


def read_pairs(path: Path, dataset: Dataset, skip_unknown: bool, faults: Faults) -> FilePairs:
    """The pairs of a file in either shape; its faults are added to `faults`. Raises DataError for what is no JSON."""
    document = decode_any(read_bytes(path), path)
    if isinstance(document, list):
        return _labelled(document, path, dataset, skip_unknown, faults)
    if isinstance(document, dict) and not set(document) & set(TOP):
        return _listed(document, path, dataset, skip_unknown, faults)
    mend = 'Give [[user, item, label], ...] or {"user": ["item", ...]}.'
    if isinstance(document, dict):
        faults.add(
            "shape", str(path), "this is a data set, not pairs to measure on.", f"{mend} A data set goes with --data."
        )
    else:
        faults.add("shape", str(path), f"expected a list or an object; found {show(document)}.", mend)
    return _nothing()


def _labelled(document: list[Any], path: Path, dataset: Dataset, skip_unknown: bool, faults: Faults) -> FilePairs:
    """[[user, item, label], ...]"""
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


def _listed(document: dict[str, Any], path: Path, dataset: Dataset, skip_unknown: bool, faults: Faults) -> FilePairs:
    """{user: [items]}"""
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
    values: list[Any], side: Side, pointer: Callable[[int], str], dataset: Dataset, skip_unknown: bool, faults: Faults
) -> np.ndarray:
    """(values,) the row of each id in the model, -1 where it is unknown, which is a fault unless it may be skipped.

    Ids are compared as texts, since the keys of a JSON object are always texts.
    """
    ids = id_column(values, pointer, faults)
    rows = rows_of(ids.cast(pa.string()), dataset.ids(side).cast(pa.string()))
    unknown = np.flatnonzero((rows < 0) & ids.is_valid().to_numpy(zero_copy_only=False))
    if not skip_unknown:
        mend = "Take it out, or leave out all such with --skip-unknown."
        faults.add_rows(
            "unknown id", unknown, lambda row: (pointer(row), f"the model knows no {side} {show(values[row])}.", mend)
        )
    return rows


def _known(user_rows: np.ndarray, item_rows: np.ndarray, owners: np.ndarray, labels: np.ndarray | None) -> FilePairs:
    """user_rows: (users named,); item_rows, owners: (pairs,), whose place among the users named each pair has."""
    pair_users = user_rows[owners]
    kept = (pair_users >= 0) & (item_rows >= 0)
    skipped = {
        "unknown_users": int((user_rows < 0).sum()),
        "unknown_items": int((item_rows < 0).sum()),
        "dropped_pairs": int((~kept).sum()),
    }
    return FilePairs(pair_users[kept], item_rows[kept], None if labels is None else labels[kept], skipped)


def _nothing() -> FilePairs:
    none = np.empty(0, np.int64)
    return FilePairs(none, none, None, {})
