"""Teaches a ranker on what the first stage really returns, for positives that the model did not learn from."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anyrec.core.config import RankTrainingConfig
from anyrec.core.progress import Bar, progress_bar
from anyrec.data.pairs import Pairs
from anyrec.evaluation.held_out import HeldOut, held_out
from anyrec.model.fitted import FittedModel
from anyrec.pipeline.pipeline import Pipeline
from anyrec.pipeline.ranking.ranker import CELLS, Ranker
from anyrec.pipeline.requests import requests_before

MASK_VALUE = torch.finfo(torch.float32).min
FEW = 2_000
"""Up to so many lists, every user is kept once and the rest taught anew: what few kept users say is chance."""
CUT = 10
STEPS = 50
"""Of L-BFGS at most."""
RIDGE = 1e-3
"""Weight of the linear map's squares beside the mean loss of a list."""


class Taught(NamedTuple):
    """Lists to learn from, a user each, on the device.

    users: (lists, features, dim); items: (lists, n) int64 rows, -1 past the end; scores: (lists, n) the model's, 0 there;
    signals: (lists, n, signals); positive: (lists, n) bool.
    """

    users: Tensor
    items: Tensor
    scores: Tensor
    signals: Tensor
    positive: Tensor

    def take(self, rows: Tensor) -> Taught:
        return Taught(*(part[rows] for part in self))


def train_ranker(pipeline: Pipeline, ranker: Ranker, model: FittedModel, rows: np.ndarray, progress: bool) -> list[str]:
    """Train `ranker` in place; what the user should know of it.

    rows: interactions of the split's validation part that the model did not learn from. A part of their users is kept: it stops the
    training, and where the ranker does not put their positives higher than the model does, it is left at the model's order. Where
    users are few, each part is kept in turn, and what is left in the end is taught on all, for as many epochs as were best on average.
    """
    assert pipeline.config.rank is not None
    options, seed = pipeline.config.rank.training, model.config.seed
    lists = gather_lists(pipeline, ranker, model, rows, options.candidates, options.users, progress)
    if lists is None or len(lists.users) < 2:
        return [
            "The ranker learned nothing, as no held-out positive is among the candidates: the model's order stands."
        ]
    _standardise(ranker, lists)
    first, catalogue = _copy(ranker), _catalogue(ranker, model)
    order = torch.randperm(len(lists.users), generator=torch.Generator().manual_seed(seed)).to(lists.users.device)
    folds = [part for part in order.tensor_split(max(2, round(1 / options.validation_fraction))) if len(part)]
    tested = folds if len(order) <= FEW else folds[:1]
    before, after, epochs = [], [], []
    with progress_bar("ranker", len(tested) * options.epochs, progress) as bar:
        for kept in tested:
            ranker.load_state_dict(first)
            before.append(_measure(ranker, lists, kept, catalogue)[1])
            taught = order[~torch.isin(order, kept)]
            epochs.append(_learn(ranker, lists, taught, kept, catalogue, options, seed, bar))
            after.append(_measure(ranker, lists, kept, catalogue)[1])
    old, new = float(torch.cat(before).mean()), float(torch.cat(after).mean())
    pipeline.measured = {"users": sum(map(len, tested)), "model": old, "ranker": new}
    told = f"ndcg@{CUT} {new:.4f} where the model's own order gives {old:.4f} (of the candidates, {sum(map(len, tested)):,} users kept from it)"
    if new <= old:
        ranker.load_state_dict(first)
        return [f"The ranker is not better than the model's own order: {told}. That order stands."]
    if len(tested) > 1:
        ranker.load_state_dict(first)
        sure = options.model_copy(update={"epochs": round(sum(epochs) / len(epochs))})
        with progress_bar("ranker, on all", sure.epochs, progress) as bar:
            _learn(ranker, lists, order, None, catalogue, sure, seed, bar)
    return [f"The ranker: {told}."]


def gather_lists(
    pipeline: Pipeline,
    ranker: Ranker,
    model: FittedModel,
    rows: np.ndarray,
    n: int,
    most: int,
    progress: bool,
) -> Taught | None:
    """The first n candidates of those users of `rows` who have a positive among them, as they were before it; None without any."""
    held = _held(model, rows, most)
    parts = []
    with progress_bar("candidates to learn from", len(np.flatnonzero(held.targets.counts())), progress) as bar:
        for users, request in requests_before(model, "validation", held, tokens=True):
            found = pipeline.candidates(request, held.rankable).head(n)
            items = found.lists.items
            positive = np.zeros((len(users), len(held.rankable) + 1), bool)
            positive[held.targets.take(users)] = True
            positive[:, -1] = False
            positive = np.take_along_axis(positive, items, 1)
            useful = torch.from_numpy(positive.any(1) & (items.shape[1] > 1))
            with torch.inference_mode():
                tokens = ranker.users_of(request)
            scores = np.where(items >= 0, found.lists.scores, 0)
            made = (tokens.cpu(), *map(torch.from_numpy, (items, scores, ranker.signals(request, found), positive)))
            parts.append(Taught(*(part[useful] for part in made)))
            bar.advance(len(users))
    if not sum(len(part.users) for part in parts):
        return None
    width = max(part.items.shape[1] for part in parts)
    whole = [
        torch.cat([_widened(column, width, name) for column in columns])
        for name, columns in zip(Taught._fields, zip(*parts, strict=True), strict=True)
    ]
    return Taught(*(part.to(model.device).clone() for part in whole))


def _held(model: FittedModel, rows: np.ndarray, most: int) -> HeldOut:
    """The validation part's rules, for the positives among `rows`, of so many users at most, drawn by the seed."""
    dataset = model.dataset
    users = np.unique(dataset.user_rows[rows])
    if len(users) > most:
        users = np.sort(np.random.default_rng(model.config.seed).choice(users, most, replace=False))
    held = held_out(model, "validation", users)
    rows = model.required_learning().positives(rows)
    rows = rows[np.isin(dataset.user_rows[rows], users)]
    targets = Pairs.of(dataset.user_rows[rows], dataset.item_rows[rows], len(dataset.users))
    held = replace(held, targets=targets)
    return replace(held, targets=targets.where(held.listable))


def _widened(part: Tensor, width: int, name: str) -> Tensor:
    if name == "users" or part.shape[1] == width:
        return part
    more = part.new_full((len(part), width - part.shape[1], *part.shape[2:]), -1 if name == "items" else 0)
    return torch.cat([part, more], 1)


def _standardise(ranker: Ranker, lists: Taught) -> None:
    """Mean and deviation of the signals over the candidates."""
    told = lists.signals[lists.items >= 0]
    ranker.mean.copy_(told.mean(0))
    ranker.deviation.copy_(told.std(0, correction=0).clamp(min=1e-6))


def _catalogue(ranker: Ranker, model: FittedModel) -> Tensor:
    with torch.inference_mode():
        found = ranker.catalogue(model)
    return found.clone()


def _learn(
    ranker: Ranker,
    lists: Taught,
    taught: Tensor,
    kept: Tensor | None,
    catalogue: Tensor,
    options: RankTrainingConfig,
    seed: int,
    bar: Bar,
) -> int:
    """First what is linear, then all by AdamW with a cosine to zero. The weights with the least loss on the kept lists stay, those of
    the last epoch where none are kept; the number of their epoch, 0 for what is linear alone."""
    generator, found = torch.Generator().manual_seed(seed), 0
    best = None if kept is None else (_measure(ranker, lists, kept, catalogue)[0], _copy(ranker))
    _learn_linear(ranker, lists.take(taught))
    if kept is not None and best is not None:
        best = min(best, (_measure(ranker, lists, kept, catalogue)[0], _copy(ranker)), key=itemgetter(0))
        ranker.load_state_dict(best[1])
    optimizer = torch.optim.AdamW(ranker.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    steps = max(1, -(-len(taught) // options.batch_size) * options.epochs)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(1, options.epochs + 1):
        ranker.train()
        shuffled = taught[torch.randperm(len(taught), generator=generator).to(taught.device)]
        for rows in shuffled.split(options.batch_size):
            optimizer.zero_grad()
            part = lists.take(rows)
            loss = listwise(_score(ranker, part, catalogue), part.items >= 0, part.positive)
            loss.backward()
            optimizer.step()
            schedule.step()
        bar.advance()
        if kept is None or best is None:
            continue
        loss = _measure(ranker, lists, kept, catalogue)[0]
        if loss < best[0]:
            best, found = (loss, _copy(ranker)), epoch
        if epoch - found >= options.patience:
            bar.advance(options.epochs - epoch)
            break
    if best is not None:
        ranker.load_state_dict(best[1])
    ranker.eval()
    return found


def _learn_linear(ranker: Ranker, lists: Taught) -> None:
    """The scale and the linear map alone: a convex problem of few numbers, solved by L-BFGS over all lists at once.

    On few lists it finds what the interaction takes many epochs for, and does not overfit (ML-100K: benchmarks/pipeline.py).
    """
    there, told = lists.items >= 0, ranker.standardised(lists.signals)
    solver = torch.optim.LBFGS([ranker.scale, ranker.linear], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        scores = ranker.scale.exp() * lists.scores + told @ ranker.linear
        value = listwise(scores, there, lists.positive) + RIDGE * ranker.linear.square().sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]


def listwise(scores: Tensor, there: Tensor, positive: Tensor) -> Tensor:
    """The mean over positives of -log softmax, each among the list's other items less the user's other positives.

    scores: (lists, n); there: (lists, n) bool; positive: (lists, n) bool, of which each list has one at least.
    """
    others = scores.masked_fill(~there | positive, MASK_VALUE).logsumexp(1, keepdim=True)
    return functional.softplus(others - scores)[positive].mean()


def _score(ranker: Ranker, lists: Taught, catalogue: Tensor) -> Tensor:
    terms = () if ranker.idle else ranker.item_terms(catalogue[lists.items.clamp(min=0)])
    return ranker(lists.users, terms, lists.scores, lists.signals)


@torch.no_grad()
def _measure(ranker: Ranker, lists: Taught, rows: Tensor, catalogue: Tensor) -> tuple[float, Tensor]:
    """The mean loss, and (positives,) the ndcg of each by itself, of the lists `rows`; a tie counts half a place."""
    ranker.eval()
    losses, gains = [], []
    size = max(1, CELLS // (lists.items.shape[1] * catalogue.shape[1] * catalogue.shape[2]))
    for part in rows.split(size):
        here = lists.take(part)
        there = here.items >= 0
        scores = _score(ranker, here, catalogue)
        losses.append(listwise(scores, there, here.positive) * here.positive.sum())
        owners, columns = here.positive.nonzero(as_tuple=True)
        own = scores[owners, columns].unsqueeze(1)
        others = there[owners] & ~here.positive[owners]
        ranks = 1 + ((scores[owners] > own) & others).sum(1) + 0.5 * ((scores[owners] == own) & others).sum(1)
        gains.append(torch.where(ranks <= CUT, 1 / torch.log2(ranks + 1), 0.0))
    total = sum(len(part) for part in gains)
    return float(sum(losses)) / total, torch.cat(gains)


def _copy(ranker: Ranker) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in ranker.state_dict().items()}
