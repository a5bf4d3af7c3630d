"""What each feature is worth: it is masked at inference, and the held-out part is ranked again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anyrec.data.dataset import Side
from anyrec.data.split import Part
from anyrec.evaluation.held_out import held_out, rank_pairs
from anyrec.evaluation.measure import Measured
from anyrec.evaluation.ranking import metrics_by_user
from anyrec.evaluation.statistics import Comparison, compare_paired
from anyrec.model.scoring import ROWS_AT_A_TIME, score_blocks, tower_vectors
from anyrec.model.towers import SIDES, Model, Tower

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

MOST_USERS = 20_000
"""Tested users past which a sample of them is measured."""


def feature_worth(recommender: Recommender, part: Part, whole: Measured, metric: str) -> dict[str, Comparison]:
    """`metric` with all features less `metric` without one, by "user text.bio": how much the model leans on it.

    Masking is what the model meets where the value is missing. Each feature is encoded once, whatever the number of passes.
    """
    model = recommender.model
    if not isinstance(model, Model):
        return {}
    users = whole.ranking.users
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(recommender.config.seed).choice(users, MOST_USERS, replace=False))
    rows = {"user": users, "item": np.arange(len(recommender.dataset.items))}
    k = int(metric.split("@")[1])
    full = whole.by_user[metric][np.searchsorted(whole.ranking.users, users)]
    held, state = held_out(recommender, part, users), recommender.before(part)
    without: dict[str, np.ndarray] = {}
    with recommender._inference():
        tokens = {side: _tokens(state, side, rows[side]) for side in SIDES}
        whole_vectors: dict[Side, Tensor] = {side: _vectors(model, side, tokens[side], None) for side in SIDES}
        for side in SIDES:
            for place, name in enumerate(model.tower(side).token_names):
                vectors: dict[Side, Tensor] = {**whole_vectors, side: _vectors(model, side, tokens[side], place)}
                ranking = rank_pairs(recommender, held, _score(model, users, vectors), length=1)
                without[f"{side} {name}"] = metrics_by_user(ranking, [k])[metric]
    return compare_paired(full, without, recommender.config.seed)


def _tokens(recommender: Recommender, side: Side, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Feature vectors (rows, features, dim) of the rows and their presence (rows, features)."""
    model, tower = recommender.model, recommender.model.tower(side)
    columns = recommender.columns[side]
    pieces = torch.from_numpy(rows).to(recommender.device).split(ROWS_AT_A_TIME)
    if side == "user" and model.has_history:
        vectors = tower_vectors(model, recommender.columns["item"], len(recommender.dataset.items))
        given = [model.read_histories(side, columns, piece, vectors) for piece in pieces]
    else:
        given = [None] * len(pieces)
    parts = [tower.tokens(columns, piece, made) for piece, made in zip(pieces, given, strict=True)]
    return torch.cat([vectors for vectors, _ in parts]), torch.cat([present for _, present in parts])


def _score(model: Model, users: np.ndarray, vectors: dict[Side, Tensor]) -> Callable[[np.ndarray], Tensor]:
    """users: (n,) the rows that vectors["user"] stands for, ascending."""
    return lambda rows: score_blocks(model, vectors["user"][np.searchsorted(users, rows)], vectors["item"])


def _vectors(model: Model, side: Side, tokens: tuple[Tensor, Tensor], masked: int | None) -> Tensor:
    """What the interaction reads of each row, with one feature taken for absent."""
    vectors, present = tokens
    if masked is not None:
        present = present.clone()
        present[:, masked] = False
    tower: Tower = model.tower(side)
    fuse = tower.fusion.fill if model.interaction.reads == "tokens" else tower.fusion
    pieces = zip(vectors.split(ROWS_AT_A_TIME), present.split(ROWS_AT_A_TIME), strict=True)
    return torch.cat([fuse(part, there) for part, there in pieces])
