"""What the interaction reads of users and items if one feature, or one item of the history, is masked at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from anyrec.core.ragged import Prepared, select
from anyrec.core.windows import Events
from anyrec.model.blended import BlendedModel, reader_of
from anyrec.model.records import Records
from anyrec.model.represent import represent_rows
from anyrec.model.towers import Columns, PrecomputedVectors
from anyrec.model.two_tower import TwoTowerModel

MAX_HISTORY = 100
"""Maximum number of history items that are masked, the latest ones."""
EVENTS_AT_A_TIME = 1 << 20
"""Events of variants that are prepared at the same time."""
MAX_KEPT = 4096
"""Maximum number of items of a model whose variants are kept in memory: a few kB each."""
_kept: WeakKeyDictionary[TwoTowerModel, dict[int, Tensor]] = WeakKeyDictionary()
"""The variants of items by model and row. They do not depend on the user, and pictures and texts take long to read."""


@dataclass(frozen=True)
class UserVariants:
    """One user, complete and with one part masked at a time.

    Attributes:
        record: The user's record, one row.
        represented: (1 + features + history, ...) what the interaction reads: of the complete user, without each
            feature, and without each history item.
        features: Names of the features.
        history: (history,) item rows, the latest first.
    """

    record: pa.Table
    represented: Tensor
    features: list[str]
    history: np.ndarray


def user_variants(model: TwoTowerModel, user: Records) -> UserVariants:
    """Mask the features and history items of one user. user: a single record."""
    scorer = model.scorer
    record, histories = _user_record(model, user)
    columns = model.prepare("user", record)
    names = [name for name in columns if name not in scorer.user.histories]
    history, events = np.empty(0, np.int64), np.empty(0, np.int64)
    flat = None
    if histories is not None:
        flat = histories.flatten()
        events = pc.struct_field(flat, "item").to_numpy(zero_copy_only=False).astype(np.int64)
        newest_first = events[::-1]
        history = newest_first[np.sort(np.unique(newest_first, return_index=True)[1])][:MAX_HISTORY]
    count = 1 + len(names) + len(history)
    inputs = _masked({name: columns[name] for name in names}, names, count, model.device)
    vectors = None
    if flat is not None:
        places = torch.tensor([len(history)] * (1 + len(names)) + [*range(len(history))], device=model.device)
        vectors = {
            name: (encoded.index_select(0, places), present.index_select(0, places))
            for name, (encoded, present) in _without_each(model, flat, events, history).items()
        }
    rows = torch.arange(count, device=model.device)
    return UserVariants(record, scorer.represent("user", inputs, rows, precomputed=vectors), names, history)


def _without_each(model: TwoTowerModel, flat: pa.Array, events: np.ndarray, history: np.ndarray) -> PrecomputedVectors:
    """Encode a user's history without each of some items, in blocks of bounded memory.

    Args:
        model: The model.
        flat: (events,) the user's events, oldest first.
        events: (events,) their item rows.
        history: (history,) distinct item rows.

    Returns:
        By feature, the vectors (history + 1, dim) and (history + 1,) whether there is one. The last row is that of the
        complete history, which can begin with another event than those without one.
    """
    items = model.history_vectors()
    assert items is not None
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    masked = np.append(history, -1)
    for start in range(0, len(masked), step := max(1, EVENTS_AT_A_TIME // max(1, len(events)))):
        kept = events != masked[start : start + step, None]  # (variants, events): a masked item loses all its events
        places, lengths = np.nonzero(kept)[1], kept.sum(1)
        offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), flat.take(pa.array(places)), mask=pa.array(lengths == 0))
        columns = model.prepare_history(lists)
        for name, encoder in model.scorer.user.histories.items():
            encoded = encoder.encode_variants(cast(Events, columns[name].values), items)
            parts.setdefault(name, []).append((encoded, columns[name].present))
    return {
        name: (torch.cat([one for one, _ in own]), torch.cat([one for _, one in own])) for name, own in parts.items()
    }


def blended_variants(model: BlendedModel, user: Records, variants: UserVariants) -> UserVariants:
    """Add what the classical models of a blend read of a user to the variants for the towers.

    If the towers read no history, the items that the classical models read are masked one at a time.

    Args:
        model: The blend.
        user: A single record.
        variants: The variants for its towers.
    """
    reader = reader_of(model.members)
    complete = reader.represent(user)  # (1, 1 or more)
    items = np.asarray(reader.scorer.history_of(complete).indices, np.int64)
    history = variants.history if len(variants.history) else items[:MAX_HISTORY]
    unmasked = len(variants.represented) - len(variants.history)
    kept = np.where(items == history[:, None], -1, items)  # (history, items)
    flags = np.tile([int(complete[0, 0]), 1], (len(history), 1))  # the row; the history replaces the known one
    without = torch.from_numpy(np.concatenate([flags, kept], 1))
    width = max(complete.shape[1], without.shape[1])
    read = torch.cat([_padded(complete, width).expand(unmasked, -1), _padded(without, width)])
    vectors = variants.represented
    if not len(variants.history):
        vectors = torch.cat([vectors, vectors[:1].expand(len(history), -1)])
    return replace(variants, represented=torch.cat([vectors, read.to(vectors)], 1), history=history)


def _padded(represented: Tensor, width: int) -> Tensor:
    """Pad what a classical model reads to a width, as `ClassicalScorer.represent` does."""
    filled = represented if represented.shape[1] > 1 else torch.nn.functional.pad(represented, (0, 1), value=0)
    return torch.nn.functional.pad(filled, (0, max(0, width - filled.shape[1])), value=-1)


def item_variants(model: TwoTowerModel, items: np.ndarray) -> tuple[Tensor, list[str]]:
    """Mask the features of items.

    Args:
        model: The model.
        items: (items,) item rows.

    Returns:
        ((1 + features) * items, ...) what the interaction reads: all complete items, then all items without each
        feature; and the names of the features.
    """
    names = list(model.features_in("item", model.dataset.items))
    kept = _kept.setdefault(model, {})
    found = {row: kept[row] for row in items.tolist() if row in kept}
    missing = np.setdiff1d(items, list(found))
    if len(missing):
        columns = model.prepare("item", model.dataset.items.take(pa.array(missing)))
        inputs = _masked(columns, names, 1 + len(names), model.device, len(missing))
        computed = represent_rows(model.scorer, "item", inputs, (1 + len(names)) * len(missing))
        by_item = computed.view(1 + len(names), len(missing), *computed.shape[1:]).transpose(0, 1)
        found |= dict(zip(missing.tolist(), by_item.clone(), strict=True))
        _kept[model] = dict([*(kept | found).items()][-MAX_KEPT:])
    return torch.stack([found[row] for row in items.tolist()], 1).flatten(0, 1), names


def _user_record(model: TwoTowerModel, user: Records) -> tuple[pa.Table, pa.Array | None]:
    """Return the user's record and, if the model reads it, the history.

    The record is that of the request; if the request has only the id of a known user, the model's own.
    """
    history = model.history_of(user) if model.reads_history else None
    if user.table is None or (bool(user.bare[0]) and user.rows[0] >= 0):
        return model.dataset.users.take(pa.array(user.rows, mask=user.rows < 0)), history
    return user.table, history


def _masked(columns: Columns, names: list[str], count: int, device: torch.device, rows: int = 1) -> Columns:
    """Repeat the rows `count` times; in copy 1 + n the feature `names[n]` is absent."""
    places = torch.arange(rows, device=device).repeat(count)
    copies = torch.arange(count, device=device).repeat_interleave(rows)
    return {
        name: Prepared(
            select(columns[name].values, places), columns[name].present.index_select(0, places) & (copies != 1 + n)
        )
        for n, name in enumerate(names)
    }
