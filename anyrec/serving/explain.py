"""Why an item was recommended: what of the user, of the item and of the user's history its score rests on, by masking."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from anyrec.core.ragged import Prepared, select
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.item_facts import title_of
from anyrec.model.classical import ClassicalModel
from anyrec.model.records import Records
from anyrec.model.represent import represent_rows
from anyrec.model.scoring import score_blocks
from anyrec.model.towers import IDENTITY, Columns
from anyrec.model.two_tower import TwoTowerModel, towers_of
from anyrec.recommender import Recommender

LATEST = 100
"""Items of a history that are masked, the latest."""
REFERENCE = 512
"""Items against whose mean change a change of the user's side is measured."""
TOLD, LEAST = 6, 0.02
"""Reasons that a sentence names at most, and the share below which one is not named."""
CELLS = 1 << 24


class Reason(NamedTuple):
    """kind: "history", "user" or "item". name: the item's id, or the feature (`categorical.genres`). told: in words.

    effect: by how much the score falls when it is masked; for the user's side, less how much it falls for the mean item, since what
    moves all items alike recommends none. share: of all that speaks for the item, max(effect, 0) over their sum; 0 where nothing does.
    """

    kind: str
    name: Any
    told: str
    effect: float
    share: float


class Explanation(NamedTuple):
    """reasons: by share, largest first. note: what cannot be told, or "". nearest: titles of what the user had that are most like the
    item, for a model that reads no history."""

    user_id: Any
    item_id: Any
    reasons: list[Reason]
    note: str = ""
    nearest: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        return sentence_of(self)


def explain(recommender: Recommender, users: Any, lists: pa.Table) -> list[Explanation]:
    """An explanation of each row of `lists` (user_id, item_id), in its order.

    users: whom the lists were made for, as `Recommender.recommend` takes them; features of theirs are masked one by one, those of the
    items, and each of the latest items of their histories. A classical model's features are its users' items. What a pipeline's own
    ranker and rules did is no part of it: their doings are in the trace.
    """
    model = recommender.model
    records = model.read_records("user", users)
    place = {value: n for n, value in enumerate(records.ids.to_pylist())}
    found: dict[tuple[Any, Any], Explanation] = {}
    owners = lists.column("user_id").to_pylist()
    shown = model.rows_of("item", lists.column("item_id"))
    by_user: dict[Any, list[int]] = {}
    for n, owner in enumerate(owners):
        by_user.setdefault(owner, []).append(n)
    for owner, here in by_user.items():
        part = records.slice(place[owner], 1)
        items = shown[here]
        with torch.inference_mode():
            if isinstance(model, ClassicalModel):
                made = _explain_classical(model, owner, part, items)
            else:
                made = _explain_towers(towers_of(model), owner, part, items)
        found.update({(owner, one.item_id): one for one in made})
    item_ids = lists.column("item_id").to_pylist()
    return [found[key] for key in zip(owners, item_ids, strict=True)]


def explain_result(recommender: Recommender, data: Dataset, result: dict[str, Any]) -> None:
    """Add `explanation` to each recommendation of a result document (`anyrec.serving.result.infer`) that was made for `data`."""
    ranker = recommender
    if len(data.items):
        ranker = recommender.add_items(recommender.read_records("item", data, faults=[]))
    shown = [(entry["user_id"], one) for entry in result["users"] for one in entry["recommendations"]]
    if not shown:
        return
    owners = pa.array([owner for owner, _ in shown], data.ids("user").type)
    lists = pa.table(
        {"user_id": owners, "item_id": pa.array([one["item_id"] for _, one in shown], ranker.dataset.ids("item").type)}
    )
    rows = ranker.model.rows_of("item", lists.column("item_id"))
    for (_, one), row, found in zip(
        shown, rows, explain(ranker, ranker.read_records("user", data, faults=[]), lists), strict=True
    ):
        reasons = [reason._asdict() for reason in found.reasons]
        title = title_of(ranker.dataset, int(row))
        one["explanation"] = {"title": title, "sentence": found.sentence, "reasons": reasons}


def _explain_towers(model: TwoTowerModel, owner: Any, user: Records, items: np.ndarray) -> list[Explanation]:
    """user: the one record; items: (shown,) rows."""
    scorer, table = model.scorer, model.dataset.items
    record, history = _user_record(model, user)
    users, user_names, had = _user_variants(model, record, history)
    parts, item_names = _item_variants(model, items)
    shown = parts.view(1 + len(item_names), len(items), *parts.shape[1:])
    known = model.representations("item")
    sample = known[torch.linspace(0, len(known) - 1, min(REFERENCE, len(known)), device=known.device).long()]
    scores = score_blocks(scorer, users, shown[0]).double()
    mean = score_blocks(scorer, users, sample).double().mean(1)
    for_user = ((scores[0] - scores) - (mean[0] - mean)[:, None])[1:].cpu().numpy()
    own = score_blocks(scorer, users[:1], parts).double().view(1 + len(item_names), len(items))
    for_item = (own[0] - own)[1:].cpu().numpy()
    effects = np.concatenate([for_user, for_item])  # (reasons, shown)
    shares = _shares(effects)
    ids = model.dataset.ids("item")
    history_ids = ids.take(pa.array(had)).to_pylist()
    heads: list[tuple[str, Any, str | None]] = [
        *(("user", name, _told(record, "user", name, 0)) for name in user_names),
        *(("history", one, title_of(model.dataset, int(at))) for one, at in zip(history_ids, had, strict=True)),
    ]
    found = []
    nearest = [()] * len(items) if model.reads_history else _nearest(model, _liked(model, user), items)
    for n, at in enumerate(items):
        mine = [*heads, *(("item", name, _told(table, "item", name, int(at))) for name in item_names)]
        reasons = [
            Reason(kind, name, told, float(effects[m, n]), float(shares[m, n]))
            for m, (kind, name, told) in enumerate(mine)
            if told is not None
        ]
        found.append(Explanation(owner, ids[int(at)].as_py(), _sorted(reasons), "", nearest[n]))
    return found


def _explain_classical(model: ClassicalModel, owner: Any, user: Records, items: np.ndarray) -> list[Explanation]:
    """What each item of the user's history adds, by taking it out; for a model that reads none, that it cannot be told."""
    classical, ids = model.scorer.classical, model.dataset.ids("item")
    row = int(user.rows[0])
    history = model.scorer.history_of(model.represent(user))
    if not classical.personal:
        note = f"'{classical.type}' gives everyone the same list"
    elif not history.nnz:
        note = "nothing is known of this user: these are the items that most people had"
    else:
        had = history.indices
        effects = _without_each(classical, max(row, 0), history, items, len(ids))
        if not np.abs(effects).max() > 0:
            note = f"'{classical.type}' keeps what it learned of a user and reads no history when it scores"
        else:
            shares = _shares(effects)
            names = ids.take(pa.array(had)).to_pylist()
            titles = [title_of(model.dataset, int(at)) for at in had]
            return [
                Explanation(
                    owner,
                    ids[int(at)].as_py(),
                    _sorted(
                        [
                            Reason("history", name, title, float(effects[m, n]), float(shares[m, n]))
                            for m, (name, title) in enumerate(zip(names, titles, strict=True))
                        ]
                    ),
                )
                for n, at in enumerate(items)
            ]
    return [Explanation(owner, ids[int(at)].as_py(), [], note) for at in items]


def _without_each(classical: Any, row: int, history: Any, items: np.ndarray, width: int) -> np.ndarray:
    """(had, shown) by how much the scores fall, more than for the mean item, when one item of the history is taken out."""
    from scipy import sparse

    had = history.indices
    whole = np.asarray(classical.score(np.array([row]), history), np.float64)[0]
    effects = np.empty((len(had), len(items)))
    step = max(1, CELLS // width)
    for start in range(0, len(had), step):
        part = np.arange(start, min(start + step, len(had)))
        kept = np.tile(had, (len(part), 1))[np.arange(len(had)) != part[:, None]]
        offsets = np.arange(len(part) + 1) * (len(had) - 1)
        ones = np.ones(len(kept), np.float32)
        matrix = sparse.csr_matrix((ones, kept, offsets), shape=(len(part), width))
        scores = np.asarray(classical.score(np.full(len(part), row), matrix), np.float64)
        fall = whole - scores
        effects[part] = fall[:, items] - fall.mean(1, keepdims=True)
    return effects


def _user_record(model: TwoTowerModel, user: Records) -> tuple[pa.Table, pa.Array | None]:
    """The one user as the model reads it: the record that was given, or what is known where it holds nothing but an id."""
    known = model.dataset.users.take(pa.array(user.rows, mask=user.rows < 0))
    whole = user.table is None or (bool(user.bare[0]) and user.rows[0] >= 0)
    taken = known if whole else user.table
    assert taken is not None
    return taken, model.history_of(user) if model.reads_history else None


def _user_variants(
    model: TwoTowerModel, record: pa.Table, history: pa.Array | None
) -> tuple[Tensor, list[str], np.ndarray]:
    """What the interaction reads of the user: whole, without each feature in turn, without each item had in turn.

    Also the names of the features, and (had,) the items' rows, the latest first.
    """
    scorer = model.scorer
    columns = model.prepare("user", record)
    names = [name for name in columns if name not in scorer.user.histories]
    had, events, owners = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    flat = None
    if history is not None:
        flat = history.flatten()
        events = pc.struct_field(flat, "item").to_numpy(zero_copy_only=False).astype(np.int64)
        last = events[::-1]
        had = last[np.sort(np.unique(last, return_index=True)[1])][:LATEST]
    count = 1 + len(names) + len(had)
    made = _masked({name: columns[name] for name in names}, names, count, model.device)
    if flat is not None:
        kept = np.ones((count, len(events)), bool)
        kept[1 + len(names) :] = events != had[:, None]
        owners, places = np.nonzero(kept)
        offsets = np.searchsorted(owners, np.arange(count + 1)).astype(np.int32)
        lists = pa.ListArray.from_arrays(
            pa.array(offsets), flat.take(pa.array(places)), mask=pa.array(np.diff(offsets) == 0)
        )
        made |= model.prepare_history(lists)
    return represent_rows(scorer, "user", made, count, item_vectors=model.history_vectors()), names, had


def _item_variants(model: TwoTowerModel, items: np.ndarray) -> tuple[Tensor, list[str]]:
    """((1 + features) * items, ...) what the interaction reads of the items: whole, then without each feature in turn."""
    table = model.dataset.items.take(pa.array(items))
    columns = model.prepare("item", table)
    names = list(columns)
    made = _masked(columns, names, 1 + len(names), model.device, len(items))
    return represent_rows(model.scorer, "item", made, (1 + len(names)) * len(items)), names


def _masked(columns: Columns, names: list[str], count: int, device: torch.device, rows: int = 1) -> Columns:
    """`count` copies of the rows, one after another; in the copy 1 + n the feature `names[n]` is absent."""
    places = torch.arange(rows, device=device).repeat(count)
    copies = torch.arange(count, device=device).repeat_interleave(rows)
    return {
        name: Prepared(
            select(columns[name].values, places), columns[name].present.index_select(0, places) & (copies != 1 + n)
        )
        for n, name in enumerate(names)
    }


def _nearest(model: TwoTowerModel, had: np.ndarray, items: np.ndarray, count: int = 2) -> list[tuple[str, ...]]:
    """For each item, the titles of what the user had that is nearest to it by the cosine of item vectors. had: item rows."""
    if not len(had):
        return [()] * len(items)
    rows = torch.from_numpy(np.concatenate([items, had])).to(model.device)
    vectors = model.vectors("item", model.representations("item")[rows])
    unit = torch.nn.functional.normalize(vectors, dim=1)
    alike = (unit[: len(items)] @ unit[len(items) :].T).cpu().numpy()
    alike[items[:, None] == had] = -np.inf
    best = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return [
        tuple(title_of(model.dataset, int(had[at])) for at in mine if np.isfinite(alike[n, at]))
        for n, mine in enumerate(best)
    ]


def _liked(model: TwoTowerModel, user: Records) -> np.ndarray:
    """(items,) distinct items that one user had and did not dislike; all that they had if the model keeps no histories."""
    if model.history is None:
        return model.seen_of(user)[1]
    events = model.history_of(user).flatten()
    return np.unique(pc.struct_field(events, "item").to_numpy(zero_copy_only=False)).astype(np.int64)


def _shares(effects: np.ndarray) -> np.ndarray:
    """effects: (reasons, shown) -> the same shape: max(effect, 0) over the sum of each column."""
    positive = np.maximum(effects, 0)
    total = positive.sum(0)
    return np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)


def _sorted(reasons: list[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda one: (-one.share, -one.effect, str(one.name)))


def sentence_of(explanation: Explanation) -> str:
    """The reasons that matter in one sentence for people."""
    told = [reason for reason in explanation.reasons if reason.share >= LEAST][:TOLD]
    groups: dict[str, list[str]] = {}
    for reason in told:
        groups.setdefault(reason.kind, []).append(f"{reason.told} {reason.share:.0%}")
    words = {"history": "you had: ", "user": "your ", "item": "its "}
    joints = {"history": ", ", "user": ", your ", "item": ", its "}
    parts = [words[kind] + joints[kind].join(group) for kind, group in groups.items()]
    if explanation.nearest:
        parts.insert(0, "it is most like what you had: " + ", ".join(explanation.nearest))
    if explanation.note:
        parts.append(explanation.note)
    return "because " + "; ".join(parts) if parts else "because nothing that was masked speaks for it"


def _told(table: pa.Table, side: Side, name: str, row: int) -> str | None:
    """A feature and its value in words; None where the record has none."""
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
