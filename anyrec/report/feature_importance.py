"""Feature importance: the metric lost if a feature is masked at inference and the targets are ranked again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anyrec.data.ids import SIDES, Side
from anyrec.data.split import Part
from anyrec.evaluation.held_out import held_out, rank_pairs
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.ranking import metrics_by_user
from anyrec.evaluation.statistics import Comparison, compare_paired
from anyrec.model.blended import BlendedModel, has_towers, towers_of
from anyrec.model.fitted import FittedModel
from anyrec.model.represent import ROWS_AT_A_TIME, tower_vectors
from anyrec.model.scoring import score_blocks
from anyrec.model.towers import EntityTower
from anyrec.model.two_tower import TwoTowerModel
from anyrec.model.two_tower_network import TwoTower


def feature_importance(model: FittedModel, part: Part, whole: EvaluationResult, metric: str) -> dict[str, Comparison]:
    """Compute the metric with all features minus the metric with one feature masked, for each feature.

    A masked feature is treated as a missing value. Each feature is encoded once, whatever the number of passes.

    Args:
        model: A model with its data. Only models with towers have features to mask.
        part: The split part.
        whole: Result of the model with all features on that part.
        metric: As `ndcg@10`.

    Returns:
        By side and feature, as `user text.bio`; empty for a model without features.
    """
    if not has_towers(model):
        return {}
    users, most = whole.ranking.users, model.config.evaluation.diagnostics.masked_users
    if len(users) > most:
        users = np.sort(np.random.default_rng(model.config.seed).choice(users, most, replace=False))
    rows: dict[Side, np.ndarray] = {"user": users, "item": np.arange(len(model.dataset.items))}
    k = int(metric.split("@")[1])
    full = whole.by_user[metric][np.searchsorted(whole.ranking.users, users)]
    held, state = held_out(model, part, users), model.before(part)
    without: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        towers = towers_of(state)
        scorer = towers.scorer
        tokens = {side: _tokens(towers, side, rows[side]) for side in SIDES}
        unmasked: dict[Side, Tensor] = {side: _vectors(scorer, side, tokens[side], None) for side in SIDES}
        for side in SIDES:
            for place, name in enumerate(scorer.tower(side).token_names):
                vectors: dict[Side, Tensor] = {**unmasked, side: _vectors(scorer, side, tokens[side], place)}
                ranking = rank_pairs(model, held, _score(state, users, rows, vectors), length=1)
                without[f"{side} {name}"] = metrics_by_user(ranking, [k])[metric]
    return compare_paired(full, without, model.config.seed)


def _tokens(model: TwoTowerModel, side: Side, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the feature vectors (rows, features, dim) of the rows, and their presence (rows, features) bool."""
    scorer, tower = model.scorer, model.scorer.tower(side)
    columns = model.columns[side]
    pieces = torch.from_numpy(rows).to(model.device).split(ROWS_AT_A_TIME)
    if side == "user" and scorer.has_history:
        vectors = tower_vectors(scorer, model.columns["item"], len(model.dataset.items))
        histories = [scorer.read_histories(side, columns, piece, vectors) for piece in pieces]
    else:
        histories = [None] * len(pieces)
    parts = [tower.tokens(columns, piece, read) for piece, read in zip(pieces, histories, strict=True)]
    return torch.cat([vectors for vectors, _ in parts]), torch.cat([present for _, present in parts])


def _score(
    state: FittedModel, users: np.ndarray, rows: dict[Side, np.ndarray], vectors: dict[Side, Tensor]
) -> Callable[[np.ndarray], Tensor]:
    """Return the score function of `rank_targets`.

    Args:
        state: The model as it was before the part.
        users: (users,) user rows, ascending.
        rows: The rows of each side that were encoded.
        vectors: What the towers' interaction reads of these rows.
    """
    if isinstance(state, BlendedModel):
        vectors = {side: state.joined(vectors[side], rows[side]) for side in SIDES}
    return lambda wanted: score_blocks(state.scorer, vectors["user"][np.searchsorted(users, wanted)], vectors["item"])


def _vectors(scorer: TwoTower, side: Side, tokens: tuple[Tensor, Tensor], masked: int | None) -> Tensor:
    """Return the input of the interaction for each row, with the feature at place `masked` absent."""
    vectors, present = tokens
    if masked is not None:
        present = present.clone()
        present[:, masked] = False
    tower: EntityTower = scorer.tower(side)
    fuse = tower.fusion.fill if scorer.interaction.reads == "tokens" else tower.fusion
    pieces = zip(vectors.split(ROWS_AT_A_TIME), present.split(ROWS_AT_A_TIME), strict=True)
    return torch.cat([fuse(part, there) for part, there in pieces])
