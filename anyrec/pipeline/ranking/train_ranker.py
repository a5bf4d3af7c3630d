"""Train a ranker on the candidates that the first stage returns, for positives that the model was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import itemgetter

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
from anyrec.pipeline.ranking.ranker import MAX_CELLS, Ranker
from anyrec.pipeline.requests import requests_before

MASK_VALUE = torch.finfo(torch.float32).min
MAX_CROSS_VALIDATED = 2_000
"""With at most this many lists the ranker is cross-validated: one fold has too few users for a reliable comparison."""
CUT = 10
"""Rank up to which NDCG counts."""
LBFGS_STEPS = 50
"""Maximum number of L-BFGS iterations."""
RIDGE = 1e-3
"""Weight of the L2 penalty of the linear map, relative to the mean loss of a positive."""


@dataclass(frozen=True)
class RankingDataset:
    """Candidate lists to train on, one for each user, on the model's device.

    Attributes:
        users: (lists, features, dim) what the interaction reads of each user.
        items: (lists, n) int64 item rows, -1 past the end.
        scores: (lists, n) float32 the model's scores, 0 past the end.
        signals: (lists, n, signals) float32, not standardised.
        positive: (lists, n) bool, the held-out positives; each list has at least one.
    """

    users: Tensor
    items: Tensor
    scores: Tensor
    signals: Tensor
    positive: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Tensor) -> RankingDataset:
        """Return some of the lists. rows: int64 indices or a bool mask, (lists,)."""
        return RankingDataset(
            self.users[rows], self.items[rows], self.scores[rows], self.signals[rows], self.positive[rows]
        )

    @staticmethod
    def concatenate(parts: list[RankingDataset], device: torch.device) -> RankingDataset:
        """Join lists of different lengths, padded to the longest."""
        width = max(part.items.shape[1] for part in parts)
        joined = (
            torch.cat([part.users for part in parts]),
            torch.cat([_padded(part.items, width, -1) for part in parts]),
            torch.cat([_padded(part.scores, width, 0) for part in parts]),
            torch.cat([_padded(part.signals, width, 0) for part in parts]),
            torch.cat([_padded(part.positive, width, 0) for part in parts]),
        )
        return RankingDataset(*(part.to(device).clone() for part in joined))


def train_ranker(pipeline: Pipeline, ranker: Ranker, model: FittedModel, rows: np.ndarray, progress: bool) -> list[str]:
    """Train a ranker in place, and set `pipeline.measured`.

    A fraction of the users (`validation_fraction`) decides when the training stops. If the ranker's NDCG on them is not
    higher than that of the model's order, the ranker is reset to the model's order. With few users this is repeated for
    each fold of users, and the ranker is then trained on all of them for the mean number of the best epochs.

    Args:
        pipeline: The pipeline with its fitted sources.
        ranker: The untrained ranker.
        model: The model with its data.
        rows: (interactions,) rows of the split's validation part that the model was not trained on.
        progress: Show progress bars.

    Returns:
        Notes for the user.
    """
    if pipeline.config.rank is None:
        raise ValueError("the pipeline's config has no ranker")
    options, seed = pipeline.config.rank.training, model.config.seed
    lists = gather_lists(pipeline, ranker, model, rows, options, progress)
    if lists is None or len(lists) < 2:
        return [
            "The ranker learned nothing because no held-out positive is among the candidates: "
            "the model's order is kept."
        ]
    _standardise(ranker, lists)
    trainer = RankerTrainer(ranker, lists, _item_inputs(ranker, model), options, seed)
    untrained = _weights(ranker)
    order = torch.randperm(len(lists), generator=torch.Generator().manual_seed(seed)).to(lists.users.device)
    folds = [part for part in order.tensor_split(max(2, round(1 / options.validation_fraction))) if len(part)]
    tested = folds if len(order) <= MAX_CROSS_VALIDATED else folds[:1]
    before, after, epochs = [], [], []
    with progress_bar("ranker", len(tested) * options.epochs, progress) as bar:
        for fold in tested:
            ranker.load_state_dict(untrained)
            before.append(trainer.evaluate(fold)[1])
            epochs.append(trainer.train(order[~torch.isin(order, fold)], fold, options.epochs, bar))
            after.append(trainer.evaluate(fold)[1])
    old, new, count = float(torch.cat(before).mean()), float(torch.cat(after).mean()), sum(map(len, tested))
    pipeline.measured = {"users": count, "model": old, "ranker": new}
    result = (
        f"ndcg@{CUT} {new:.4f}, where the model's own order gives {old:.4f} "
        f"(among the candidates, on {count:,} validation users)"
    )
    if new <= old:
        ranker.load_state_dict(untrained)
        return [f"The ranker is not better than the model's own order, which is kept: {result}."]
    if len(tested) > 1:
        ranker.load_state_dict(untrained)
        mean_epochs = round(sum(epochs) / len(epochs))
        with progress_bar("ranker, on all", mean_epochs, progress) as bar:
            trainer.train(order, None, mean_epochs, bar)
    return [f"The ranker: {result}."]


def gather_lists(
    pipeline: Pipeline,
    ranker: Ranker,
    model: FittedModel,
    rows: np.ndarray,
    options: RankTrainingConfig,
    progress: bool,
) -> RankingDataset | None:
    """Return the first candidates of the users who have a held-out positive among them, as the users were before it.

    Args:
        pipeline: The pipeline with its fitted sources.
        ranker: The ranker.
        model: The model with its data.
        rows: (interactions,) rows of the held-out interactions.
        options: `users` is the maximum number of users, `candidates` that of candidates of each.
        progress: Show a progress bar.

    Returns:
        The lists; None if there are none.
    """
    held = _held_out(model, rows, options.users)
    parts = []
    with progress_bar("candidates to learn from", len(np.flatnonzero(held.targets.counts())), progress) as bar:
        for users, request in requests_before(model, "validation", held, tokens=True):
            found = pipeline.candidates(request, held.rankable).head(options.candidates)
            items = found.lists.items
            positive = np.zeros((len(users), len(held.rankable) + 1), bool)  # the last column is that of no item
            positive[held.targets.take(users)] = True
            positive[:, -1] = False
            positive = np.take_along_axis(positive, items, 1)
            useful = torch.from_numpy(positive.any(1) & (items.shape[1] > 1))
            with torch.inference_mode():
                tokens = ranker.user_inputs(request)
            scores = np.where(items >= 0, found.lists.scores, 0)
            columns = map(torch.from_numpy, (items, scores, ranker.signals(request, found), positive))
            parts.append(RankingDataset(tokens.cpu(), *columns).take(useful))
            bar.advance(len(users))
    if not sum(map(len, parts)):
        return None
    return RankingDataset.concatenate(parts, model.device)


def _held_out(model: FittedModel, rows: np.ndarray, max_users: int) -> HeldOut:
    """Return the positives among `rows` as held-out items, of at most `max_users` users, drawn by the model's seed."""
    dataset = model.dataset
    users = np.unique(dataset.user_rows[rows])
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(model.config.seed).choice(users, max_users, replace=False))
    held = held_out(model, "validation", users)
    rows = model.required_learning().positives(rows)
    rows = rows[np.isin(dataset.user_rows[rows], users)]
    targets = Pairs.of(dataset.user_rows[rows], dataset.item_rows[rows], len(dataset.users))
    held = replace(held, targets=targets)
    return replace(held, targets=targets.where(held.listable))


def _padded(part: Tensor, width: int, value: int) -> Tensor:
    """Extend the second dimension to `width`."""
    more = part.new_full((len(part), width - part.shape[1], *part.shape[2:]), value)
    return torch.cat([part, more], 1)


def _standardise(ranker: Ranker, lists: RankingDataset) -> None:
    """Set the mean and the standard deviation of each signal over all candidates."""
    signals = lists.signals[lists.items >= 0]
    ranker.mean.copy_(signals.mean(0))
    ranker.deviation.copy_(signals.std(0, correction=0).clamp(min=1e-6))


def _item_inputs(ranker: Ranker, model: FittedModel) -> Tensor:
    """Return (items, features, dim) what the interaction reads of all items, usable in training."""
    with torch.inference_mode():
        inputs = ranker.item_inputs(model)
    return inputs.clone()


class RankerTrainer:
    """Trains and evaluates a ranker on candidate lists.

    Args:
        ranker: The ranker, which is changed in place.
        lists: The candidate lists.
        items: (items, features, dim) what the interaction reads of all items.
        options: Options of the training.
        seed: Seed of the order of the lists.
    """

    def __init__(self, ranker: Ranker, lists: RankingDataset, items: Tensor, options: RankTrainingConfig, seed: int):
        self.ranker, self.lists, self.items, self.options, self.seed = ranker, lists, items, options, seed

    def train(self, rows: Tensor, validation: Tensor | None, epochs: int, bar: Bar) -> int:
        """Train the linear part alone, then all weights with AdamW and a cosine schedule that ends at 0.

        Args:
            rows: (lists,) the lists to train on.
            validation: (lists,) the lists whose loss selects the weights and stops the training; None to keep the
                weights of the last epoch.
            epochs: The maximum number of epochs.
            bar: Is advanced by `epochs` in total.

        Returns:
            The number of the epoch whose weights are kept, from 1; 0 if they are those of the linear part alone.
        """
        ranker, options = self.ranker, self.options
        generator, best_epoch = torch.Generator().manual_seed(self.seed), 0
        best = None if validation is None else (self.evaluate(validation)[0], _weights(ranker))
        _train_linear(ranker, self.lists.take(rows))
        if validation is not None and best is not None:
            best = min(best, (self.evaluate(validation)[0], _weights(ranker)), key=itemgetter(0))
            ranker.load_state_dict(best[1])
        optimizer = torch.optim.AdamW(ranker.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        steps = max(1, -(-len(rows) // options.batch_size) * epochs)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for epoch in range(1, epochs + 1):
            ranker.train()
            shuffled = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
            for batch in shuffled.split(options.batch_size):
                optimizer.zero_grad()
                part = self.lists.take(batch)
                listwise(self._scores(part), part.items >= 0, part.positive).backward()
                optimizer.step()
                schedule.step()
            bar.advance()
            if validation is None or best is None:
                continue
            loss = self.evaluate(validation)[0]
            if loss < best[0]:
                best, best_epoch = (loss, _weights(ranker)), epoch
            if epoch - best_epoch >= options.patience:
                bar.advance(epochs - epoch)
                break
        if best is not None:
            ranker.load_state_dict(best[1])
        ranker.eval()
        return best_epoch

    @torch.no_grad()
    def evaluate(self, rows: Tensor) -> tuple[float, Tensor]:
        """Evaluate the ranker on some lists.

        Args:
            rows: (lists,) the lists.

        Returns:
            The mean loss of a positive, and (positives,) the NDCG@10 of each positive when the user's other positives
            are left out. An equal score counts as half a rank.
        """
        self.ranker.eval()
        losses, gains = [], []
        size = max(1, MAX_CELLS // (self.lists.items.shape[1] * self.items.shape[1] * self.items.shape[2]))
        for part in rows.split(size):
            lists = self.lists.take(part)
            filled = lists.items >= 0
            scores = self._scores(lists)  # (lists, n)
            losses.append(listwise(scores, filled, lists.positive) * lists.positive.sum())
            owners, columns = lists.positive.nonzero(as_tuple=True)  # (positives,) each
            own = scores[owners, columns].unsqueeze(1)
            others = filled[owners] & ~lists.positive[owners]  # (positives, n)
            ranks = 1 + ((scores[owners] > own) & others).sum(1) + 0.5 * ((scores[owners] == own) & others).sum(1)
            gains.append(torch.where(ranks <= CUT, 1 / torch.log2(ranks + 1), 0.0))
        total = sum(len(part) for part in gains)
        return float(sum(losses)) / total, torch.cat(gains)

    def _scores(self, lists: RankingDataset) -> Tensor:
        """Return (lists, n) the ranker's scores."""
        ranker = self.ranker
        terms = () if ranker.idle else ranker.item_terms(self.items[lists.items.clamp(min=0)])
        return ranker(lists.users, terms, lists.scores, lists.signals)


def _train_linear(ranker: Ranker, lists: RankingDataset) -> None:
    """Fit the scale and the linear map alone: a convex problem with few parameters, solved by L-BFGS on all lists.

    On few lists it reaches in one step what the interaction needs many epochs for, and does not overfit (ML-100K,
    benchmarks/pipeline.py).
    """
    filled, signals = lists.items >= 0, ranker.standardised(lists.signals)
    solver = torch.optim.LBFGS([ranker.scale, ranker.linear], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        solver.zero_grad()
        scores = ranker.scale.exp() * lists.scores + signals @ ranker.linear
        value = listwise(scores, filled, lists.positive) + RIDGE * ranker.linear.square().sum()
        value.backward()
        return value.item()

    solver.step(loss)


def listwise(scores: Tensor, filled: Tensor, positive: Tensor) -> Tensor:
    """Return the mean softmax cross-entropy of the positives.

    For each positive the softmax is over itself and the list's negatives; the user's other positives are left out:
    -log(exp(s) / (exp(s) + sum of exp(negatives))) = softplus(logsumexp(negatives) - s).

    Args:
        scores: (lists, n).
        filled: (lists, n) bool, False past the end of a list.
        positive: (lists, n) bool, at least one in each list.
    """
    negatives = scores.masked_fill(~filled | positive, MASK_VALUE).logsumexp(1, keepdim=True)
    return functional.softplus(negatives - scores)[positive].mean()


def _weights(ranker: Ranker) -> dict[str, Tensor]:
    """Return a copy of the ranker's weights."""
    return {name: value.detach().clone() for name, value in ranker.state_dict().items()}
