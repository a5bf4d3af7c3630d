"""Explanations of recommended items: how much the score depends on each feature and history item, by masking it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import sparse

from anyrec.core.contracts import Classical
from anyrec.core.time_limit import check_time
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.item_facts import title_of
from anyrec.model.blended import BlendedModel, towers_of
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records
from anyrec.model.request_reader import Users
from anyrec.model.scoring import score_blocks
from anyrec.model.towers import IDENTITY
from anyrec.model.two_tower import TwoTowerModel
from anyrec.recommender import Recommender
from anyrec.serving.masking import blended_variants, item_variants, user_variants

REFERENCE_ITEMS = 512
"""Number of items, evenly spaced in the catalogue, whose mean effect is subtracted from effects of the user."""
MAX_NAMED, MIN_SHARE = 6, 0.02
"""Maximum number of reasons in a sentence, and the share below which a reason is not in it."""
ROUNDING = 1e-6
"""Effects up to this fraction of the largest score are rounding: the scores of one user and of several are products of
matrices of different shape.
"""
MAX_CELLS = 1 << 24
"""Maximum size of an array of scores."""


@dataclass(frozen=True)
class Reason:
    """A feature or history item that the score depends on.

    Attributes:
        kind: Whether it is an item of the user's history, a feature of the user, or a feature of the item.
        name: Id of the history item, or name of the feature (`categorical.genres`).
        label: Description for people: the title, or the feature with its value.
        effect: Decrease of the score if it is masked. For histories and features of the user the mean decrease over
            all items is subtracted, since a change of all scores does not recommend any item.
        share: max(effect, 0) divided by the sum over all reasons; 0 if no effect is positive.
    """

    kind: Literal["history", "user", "item"]
    name: str | int
    label: str
    effect: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """Why an item was recommended to a user.

    Attributes:
        user_id: The user.
        item_id: The item.
        reasons: By share, the largest first.
        note: Why there are no reasons, or "".
        nearest: Titles of the user's items with the most similar vectors, for a model that reads no history.
    """

    user_id: str | int
    item_id: str | int
    reasons: list[Reason]
    note: str = ""
    nearest: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The main reasons in one sentence."""
        return sentence_of(self)


def explain(recommender: Recommender, users: Users, lists: pa.Table) -> list[Explanation]:
    """Explain recommended items.

    The features of the user and of the items are masked one by one, and each of the user's latest items. For a
    classical model only the items of the user's history are masked. The score of a blend is that of all its members.
    The effects of a pipeline's ranker and rules are not explained here; the trace has them.

    Args:
        recommender: A fitted recommender.
        users: The users of the lists, as `Recommender.recommend` takes them.
        lists: user_id, item_id.

    Returns:
        An explanation of each row of `lists`.
    """
    model = recommender.model
    records = model.read_records("user", users)
    place = {user: n for n, user in enumerate(records.ids.to_pylist())}
    owners, item_ids = lists.column("user_id").to_pylist(), lists.column("item_id").to_pylist()
    rows = model.rows_of("item", lists.column("item_id"))
    by_user: dict[str | int, list[int]] = {}
    for n, owner in enumerate(owners):
        by_user.setdefault(owner, []).append(n)
    found: dict[tuple[str | int, str | int], Explanation] = {}
    for owner, own in by_user.items():
        check_time()
        user = records.slice(place[owner], 1)
        with torch.inference_mode():
            if isinstance(model, ClassicalModel):
                explanations = _explain_classical(model, owner, user, rows[own])
            else:
                explanations = _explain_by_masking(model, owner, user, rows[own])
        found.update({(owner, one.item_id): one for one in explanations})
    return [found[key] for key in zip(owners, item_ids, strict=True)]


def explain_result(recommender: Recommender, data: Dataset, result: JsonObject) -> None:
    """Add `explanation` to each recommendation of a result document.

    Args:
        recommender: The recommender that made the result.
        data: The request of the result.
        result: What `anyrec.serving.result.infer` returned; it is changed in place.
    """
    ranker = recommender
    if len(data.items):
        ranker = recommender.add_items(recommender.read_records("item", data, faults=[]))
    shown = [(entry["user_id"], entry_item) for entry in result["users"] for entry_item in entry["recommendations"]]
    if not shown:
        return
    owners = pa.array([owner for owner, _ in shown], data.ids("user").type)
    items = pa.array([item["item_id"] for _, item in shown], ranker.dataset.ids("item").type)
    lists = pa.table({"user_id": owners, "item_id": items})
    rows = ranker.model.rows_of("item", lists.column("item_id"))
    explanations = explain(ranker, ranker.read_records("user", data, faults=[]), lists)
    for (_, item), row, found in zip(shown, rows.tolist(), explanations, strict=True):
        item["explanation"] = explanation_as_json(ranker.dataset, row, found)


def explanation_as_json(dataset: Dataset, row: int, found: Explanation) -> JsonObject:
    """Return an explanation as `schemas/result.schema.json` describes it. row: that of the item in the data."""
    return {
        "title": title_of(dataset, row),
        "sentence": found.sentence,
        "reasons": [_reason_as_json(reason) for reason in found.reasons],
    }


def _reason_as_json(reason: Reason) -> JsonObject:
    return {
        "kind": reason.kind,
        "name": reason.name,
        "told": reason.label,
        "effect": reason.effect,
        "share": reason.share,
    }


def _explain_by_masking(model: FittedModel, owner: str | int, user: Records, items: np.ndarray) -> list[Explanation]:
    """Explain some items of one user by masking features and items of the history.

    Args:
        model: A model with towers.
        owner: Id of the user.
        user: The user's record.
        items: (shown,) item rows.
    """
    scorer, table = model.scorer, model.dataset.items
    towers = towers_of(model)
    variants = user_variants(towers, user)
    parts, item_names = item_variants(towers, items)
    if isinstance(model, BlendedModel):
        variants = blended_variants(model, user, variants)
        parts = model.joined(parts, np.tile(items, 1 + len(item_names)))
    users, history = variants.represented, variants.history
    shown = parts.view(1 + len(item_names), len(items), *parts.shape[1:])
    known = model.representations("item")
    count = min(REFERENCE_ITEMS, len(known))
    sample = known[torch.linspace(0, len(known) - 1, count, device=known.device).long()]
    scores = score_blocks(scorer, users, shown[0]).double()  # (variants, shown)
    mean = score_blocks(scorer, users, sample).double().mean(1)  # (variants,)
    of_user = ((scores[0] - scores) - (mean[0] - mean)[:, None])[1:].cpu().numpy()
    own = score_blocks(scorer, users[:1], parts).double().view(1 + len(item_names), len(items))
    of_item = (own[0] - own)[1:].cpu().numpy()
    effects = np.concatenate([of_user, of_item])  # (reasons, shown)
    shares = _shares(effects)
    ids = model.dataset.ids("item")
    history_ids = ids.take(pa.array(history)).to_pylist()
    heads: list[tuple[Literal["history", "user", "item"], str | int, str | None]] = [
        *(("user", name, _label(variants.record, "user", name, 0)) for name in variants.features),
        *(
            ("history", one, title_of(model.dataset, row))
            for one, row in zip(history_ids, history.tolist(), strict=True)
        ),
    ]
    nearest = [()] * len(items) if model.reads_history else _nearest_titles(towers, _liked(towers, user), items)
    found = []
    for n, row in enumerate(items.tolist()):
        labelled = [*heads, *(("item", name, _label(table, "item", name, row)) for name in item_names)]
        reasons = [
            Reason(kind, name, label, float(effects[m, n]), float(shares[m, n]))
            for m, (kind, name, label) in enumerate(labelled)
            if label is not None
        ]
        found.append(Explanation(owner, ids[row].as_py(), _sorted(reasons), "", nearest[n]))
    return found


def _explain_classical(model: ClassicalModel, owner: str | int, user: Records, items: np.ndarray) -> list[Explanation]:
    """Explain some items of one user by the history; with a note alone if the scores do not depend on it.

    Args:
        model: The model.
        owner: Id of the user.
        user: The user's record.
        items: (shown,) item rows.
    """
    classical, ids = model.scorer.classical, model.dataset.ids("item")
    item_ids = ids.take(pa.array(items)).to_pylist()
    represented = model.represent(user)
    matrix = model.scorer.history_of(represented)
    row = int(model.scorer.component_rows(represented, matrix)[0])
    history = np.asarray(matrix.indices)
    effects = np.empty((0, len(items)))
    note = ""
    if not classical.personal:
        note = f"'{classical.type}' gives everyone the same list"
    elif not len(history) and classical.ranks_new_users:
        note = "this user has no history: these are the items that such users choose now"
    elif model.scorer.unknown(represented)[0]:
        note = "nothing is known of this user: these are the items that most people had"
    else:
        effects = _without_each(classical, row, matrix, items, len(ids))
        if not np.abs(effects).max() > 0:
            note = f"'{classical.type}' keeps what it learned of a user and reads no history when it scores"
    if note:
        return [Explanation(owner, item, [], note) for item in item_ids]
    shares = _shares(effects)
    history_ids = ids.take(pa.array(history)).to_pylist()
    titles = [title_of(model.dataset, row) for row in history.tolist()]
    found = []
    for n, item in enumerate(item_ids):
        reasons = [
            Reason("history", name, title, float(effects[m, n]), float(shares[m, n]))
            for m, (name, title) in enumerate(zip(history_ids, titles, strict=True))
        ]
        found.append(Explanation(owner, item, _sorted(reasons)))
    return found


def _without_each(classical: Classical, row: int, matrix: Any, items: np.ndarray, width: int) -> np.ndarray:
    """Return the decrease of scores, minus its mean over all items, if one item of the history is removed.

    Args:
        classical: The fitted model.
        row: Row of the user.
        matrix: (1, items) `csr_matrix`, the history.
        items: (shown,) item rows.
        width: The number of items in the catalogue.

    Returns:
        (history, shown) float64.
    """
    history = np.asarray(matrix.indices)
    complete = np.asarray(classical.score(np.array([row]), matrix), np.float64)[0]
    effects = np.empty((len(history), len(items)))
    step = max(1, MAX_CELLS // width)
    for start in range(0, len(history), step):
        check_time()
        part = np.arange(start, min(start + step, len(history)))
        kept = np.tile(history, (len(part), 1))[np.arange(len(history)) != part[:, None]]
        offsets = np.arange(len(part) + 1) * (len(history) - 1)
        ones = np.ones(len(kept), np.float32)
        without = sparse.csr_matrix((ones, kept, offsets), shape=(len(part), width))
        scores = np.asarray(classical.score(np.full(len(part), row), without), np.float64)
        decrease = complete - scores
        effects[part] = decrease[:, items] - decrease.mean(1, keepdims=True)
    effects[np.abs(effects) <= ROUNDING * np.abs(complete).max()] = 0
    return effects


def _nearest_titles(model: TwoTowerModel, liked: np.ndarray, items: np.ndarray, k: int = 2) -> list[tuple[str, ...]]:
    """Return for each item the titles of the user's items with the highest cosine of item vectors.

    Args:
        model: The model.
        liked: (liked,) item rows of the user's items.
        items: (items,) item rows.
        k: Maximum number of titles.
    """
    if not len(liked):
        return [()] * len(items)
    rows = torch.from_numpy(np.concatenate([items, liked])).to(model.device)
    vectors = model.vectors("item", model.representations("item")[rows])
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosines = (unit[: len(items)] @ unit[len(items) :].T).cpu().numpy()  # (items, liked)
    cosines[items[:, None] == liked] = -np.inf
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return [
        tuple(title_of(model.dataset, int(liked[place])) for place in places if np.isfinite(cosines[n, place]))
        for n, places in enumerate(best)
    ]


def _liked(model: TwoTowerModel, user: Records) -> np.ndarray:
    """Return (items,) the distinct items of one user's history, which leaves out disliked items.

    Without histories in the model these are all items that the user has interacted with.
    """
    if model.history is None:
        return model.seen_of(user)[1]
    events = model.history_of(user).flatten()
    return np.unique(pc.struct_field(events, "item").to_numpy(zero_copy_only=False)).astype(np.int64)


def _shares(effects: np.ndarray) -> np.ndarray:
    """Return (reasons, shown) max(effect, 0) divided by the sum of its column; 0 if the sum is 0."""
    positive = np.maximum(effects, 0)
    total = positive.sum(0)
    return np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)


def _sorted(reasons: list[Reason]) -> list[Reason]:
    """Sort reasons by share, then by effect, then by name."""
    return sorted(reasons, key=lambda reason: (-reason.share, -reason.effect, str(reason.name)))


def sentence_of(explanation: Explanation) -> str:
    """Return the main reasons of an explanation in one sentence."""
    main = [reason for reason in explanation.reasons if reason.share >= MIN_SHARE][:MAX_NAMED]
    groups: dict[str, list[str]] = {}
    for reason in main:
        groups.setdefault(reason.kind, []).append(f"{reason.label} {reason.share:.0%}")
    words = {"history": "you had: ", "user": "your ", "item": "its "}
    joints = {"history": ", ", "user": ", your ", "item": ", its "}
    parts = [words[kind] + joints[kind].join(group) for kind, group in groups.items()]
    if explanation.nearest:
        parts.insert(0, "it is most like what you had: " + ", ".join(explanation.nearest))
    if explanation.note:
        parts.append(explanation.note)
    return "because " + "; ".join(parts) if parts else "because nothing that was masked speaks for it"


def _label(table: pa.Table, side: Side, name: str, row: int) -> str | None:
    """Return a feature and its value in words; None if the record has no value."""
    if name == IDENTITY:
        return "own past, as the model learned it" if side == "user" else "past with others, as the model learned it"
    value = table.column(name)[row].as_py()
    if value is None or value == []:
        return None
    group, field = name.split(".", 1)
    if group not in ("categorical", "continuous"):
        return field
    values = list(dict.fromkeys(value)) if isinstance(value, list) else [value]
    shown = ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values[:3])
    return f"{field} {shown}" + (", ..." if len(values) > 3 else "")
