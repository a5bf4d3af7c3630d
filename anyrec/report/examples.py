"""What the model shows to real people: their histories beside their lists, with titles, pictures and hits."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np

from anyrec.data.dataset import Dataset
from anyrec.data.item_facts import indicators, title_of
from anyrec.data.order import time_order
from anyrec.data.split import PARTS, Part
from anyrec.evaluation.measure import EvaluationResult
from anyrec.model.fitted import FittedModel

PEOPLE, HISTORY, SHOWN = 6, 6, 6
PICTURE = 96
"""Width and height of a picture, in pixels."""


class Item(NamedTuple):
    """about: its category; picture: a data URL, or nothing; hit: whether the person took it (held out)."""

    title: str
    about: str
    picture: str
    hit: bool


class Example(NamedTuple):
    """likeness: the share of the list that shares a category with the history, or None."""

    person: str
    history: list[Item]
    shown: list[Item]
    held_out: list[str]
    likeness: float | None


def examples(model: FittedModel, part: Part, whole: EvaluationResult, category: str | None) -> list[Example]:
    """A few tested users: half of them drawn from those with a hit among what is shown, half from all; the seed decides."""
    dataset, ranking = model.dataset, whole.ranking
    if not len(ranking.users):
        return []
    rng = np.random.default_rng(model.config.seed)
    lucky = np.unique(ranking.targets[ranking.ranks <= SHOWN])
    chosen = list(rng.permutation(lucky)[: PEOPLE // 2])
    chosen += [user for user in rng.permutation(ranking.users) if user not in chosen][: PEOPLE - len(chosen)]
    latest = _latest(model, part, np.array(chosen))
    traits = None if category is None else indicators(dataset, "item", category)[0]
    found = []
    for user in chosen:
        held_out = ranking.items[ranking.targets == user]
        shown = ranking.lists[np.searchsorted(ranking.users, user)][:SHOWN]
        shown = shown[shown >= 0]
        history = latest[user]
        likeness = None
        if traits is not None and len(history) and len(shown):
            had = np.asarray(traits[history].sum(0)).ravel() > 0
            likeness = float((np.asarray(traits[shown][:, had].sum(1)).ravel() > 0).mean())
        found.append(
            Example(
                _person(dataset, int(user)),
                [_item(model, int(row), category, False) for row in history[:HISTORY]],
                [_item(model, int(row), category, bool(np.isin(row, held_out))) for row in shown],
                [title_of(dataset, int(row)) for row in held_out[:HISTORY]],
                likeness,
            )
        )
    return found


def _latest(model: FittedModel, part: Part, users: np.ndarray) -> dict[int, np.ndarray]:
    """The items that each user had before `part`, the latest first."""
    learning = model.required_learning()
    dataset = learning.dataset
    known = learning.labels.positive & (learning.parts < PARTS.index(part))
    order = time_order(dataset)
    order = order[(known & np.isin(dataset.user_rows, users))[order]][::-1]
    found = {}
    for user in users:
        mine = dataset.item_rows[order[dataset.user_rows[order] == user]]
        found[user] = mine[np.sort(np.unique(mine, return_index=True)[1])]
    return found


def _person(dataset: Dataset, row: int) -> str:
    """An id, with the person's categories and numbers."""
    told = []
    for name in dataset.features("user"):
        value = dataset.users.column(name)[row].as_py()
        if name.split(".")[0] in ("categorical", "continuous") and value is not None and len(told) < 4:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            shown = f"{shown:g}" if isinstance(shown, float) else shown
            told.append(f"{name.split('.', 1)[1]} {shown}")
    return f"{dataset.ids('user')[row].as_py()}" + (f" ({'; '.join(told)})" if told else "")


def _item(model: FittedModel, row: int, category: str | None, hit: bool) -> Item:
    dataset = model.dataset
    value = None if category is None else dataset.items.column(category)[row].as_py()
    about = ", ".join(value) if isinstance(value, list) else str(value or "")
    return Item(title_of(dataset, row), about, _picture(model, row), hit)


def _picture(model: FittedModel, row: int) -> str:
    """The item's first picture as a data URL; nothing where it has none that can be read."""
    from anyrec.data.images import ImageFault, open_image

    for name in model.dataset.features("item"):
        if not name.startswith("image."):
            continue
        value = model.dataset.items.column(name)[row].as_py()
        file = value[0] if isinstance(value, list) and value else value
        if not isinstance(file, str):
            continue
        context, side = model.context, PICTURE * 2
        try:
            small = open_image(file, context.root, allow_outside_root=context.allow_outside_root, side=side)
        except ImageFault:
            continue
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return ""
