"""Recommendations for a few users, with their history and held-out items."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from anyrec.data.dataset import Dataset
from anyrec.data.images import ImageFault, open_image
from anyrec.data.item_facts import indicators, title_of
from anyrec.data.order import time_order
from anyrec.data.split import PARTS, Part
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.ranking import Ranking
from anyrec.model.fitted import FittedModel
from anyrec.report.traits import history_before, shared

HISTORY, SHOWN = 6, 6
"""Number of items of a history, and of recommended items."""
PICTURE = 96
"""Width and height of a picture, in pixels."""
FACTS = 4
"""Most features of a user that are shown."""


@dataclass(frozen=True)
class Item:
    """An item. about: its traits. picture: a data URL or "". hit: whether it is a held-out item of the user."""

    title: str
    about: str
    picture: str
    hit: bool


@dataclass(frozen=True)
class Example:
    """One user.

    Attributes:
        user: Id of the user, with features.
        history: The user's latest items, the latest first.
        recommended: The best items, best first.
        held_out: Titles of held-out items.
        ratios: By trait, the fraction of the recommended items that share a value with an item of the whole history.
    """

    user: str
    history: list[Item]
    recommended: list[Item]
    held_out: list[str]
    ratios: dict[str, float]


def examples(model: FittedModel, part: Part, whole: EvaluationResult, traits: list[str]) -> list[Example]:
    """Choose users by the config's seed: half from the users with a hit among the shown items, half from all users.

    Args:
        model: A model with its data.
        part: The split part of `whole`.
        whole: Result of the model.
        traits: Categorical features of items.
    """
    dataset, ranking, number = model.dataset, whole.ranking, model.config.evaluation.diagnostics.examples
    if not len(ranking.users) or not number:
        return []
    rng = np.random.default_rng(model.config.seed)
    with_hit = np.unique(ranking.targets[ranking.ranks <= SHOWN])
    chosen = list(rng.permutation(with_hit)[: (number + 1) // 2])
    chosen += [user for user in rng.permutation(ranking.users) if user not in chosen][: number - len(chosen)]
    histories = _histories(model, part, np.array(chosen))
    ratios = _ratios(model, part, ranking, np.array(chosen), traits)
    found = []
    for place, user in enumerate(chosen):
        held_out = ranking.items[ranking.targets == user]
        shown = ranking.lists[np.searchsorted(ranking.users, user)][:SHOWN]
        shown = shown[shown >= 0]
        history = histories[user]
        found.append(
            Example(
                _user(dataset, int(user)),
                [_item(model, int(row), traits, False) for row in history[:HISTORY]],
                [_item(model, int(row), traits, bool(np.isin(row, held_out))) for row in shown],
                [title_of(dataset, int(row)) for row in held_out[:HISTORY]],
                {name: float(values[place]) for name, values in ratios.items() if not np.isnan(values[place])},
            )
        )
    return found


def _ratios(
    model: FittedModel, part: Part, ranking: Ranking, users: np.ndarray, traits: list[str]
) -> dict[str, np.ndarray]:
    """Return by trait the fraction of each user's recommended items that share a value with the history, (users,)."""
    history = history_before(model, part)
    lists = ranking.lists[np.searchsorted(ranking.users, users), :SHOWN]
    return {name: shared(users, lists, indicators(model.dataset, "item", name)[0], history) for name in traits}


def _histories(model: FittedModel, part: Part, users: np.ndarray) -> dict[int, np.ndarray]:
    """Return the distinct positives of each user before `part`, the latest first."""
    learning = model.required_learning()
    dataset = learning.dataset
    earlier = learning.labels.positive & (learning.parts < PARTS.index(part))
    order = time_order(dataset)
    order = order[(earlier & np.isin(dataset.user_rows, users))[order]][::-1]
    found = {}
    for user in users:
        mine = dataset.item_rows[order[dataset.user_rows[order] == user]]
        found[user] = mine[np.sort(np.unique(mine, return_index=True)[1])]
    return found


def _user(dataset: Dataset, row: int) -> str:
    """Return the id of a user, with categorical and numeric features."""
    facts: list[str] = []
    for name in dataset.features("user"):
        value = dataset.users.column(name)[row].as_py()
        if name.split(".")[0] in ("categorical", "continuous") and value is not None and len(facts) < FACTS:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            shown = f"{shown:g}" if isinstance(shown, float) else shown
            facts.append(f"{name.split('.', 1)[1]} {shown}")
    return f"{dataset.ids('user')[row].as_py()}" + (f" ({'; '.join(facts)})" if facts else "")


def _item(model: FittedModel, row: int, traits: list[str], hit: bool) -> Item:
    about = []
    for name in traits:
        value = model.dataset.items.column(name)[row].as_py()
        about += value if isinstance(value, list) else [] if value is None else [value]
    return Item(title_of(model.dataset, row), ", ".join(map(str, about)), picture_of(model, row), hit)


def picture_of(model: FittedModel, row: int) -> str:
    """Return the item's first readable picture as a data URL; "" if there is none."""
    for name in model.dataset.features("item"):
        if not name.startswith("image."):
            continue
        value = model.dataset.items.column(name)[row].as_py()
        file = value[0] if isinstance(value, list) and value else value
        if not isinstance(file, str):
            continue
        context, side = model.context, PICTURE * 2  # twice the size on the page, for displays of high density
        try:
            small = open_image(file, context.root, allow_outside_root=context.allow_outside_root, side=side)
        except ImageFault:
            continue
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return ""
