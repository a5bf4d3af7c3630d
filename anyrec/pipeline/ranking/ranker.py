"""The second stage: an interaction that reads what the first one knows and what it brought, and corrects its order."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import embedding

from anyrec.core.config import RankConfig
from anyrec.core.contracts import Interaction
from anyrec.core.manifest import read_object
from anyrec.core.registry import Registry
from anyrec.core.saved_files import AGAIN, bounded_by, damaged, read_tensors
from anyrec.data.ids import NO_TIME
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import towers_of
from anyrec.pipeline.contracts import Lists, Request

CELLS = 1 << 23
"""Numbers of candidates' vectors held at once: 32 MB of float32."""
KEPT_BYTES = 256 << 20
"""Most memory for what depends on the items only, kept between requests; of a larger catalogue it is computed for the candidates."""
ALL = slice(None)
_COMPUTING = threading.Lock()
CLIP = 5.0
"""Bound on a signal, in standard deviations."""
MICROSECONDS_A_DAY = 86_400_000_000
WEIGHTS, FACTS = "ranker.safetensors", "ranker.json"


class Candidates(NamedTuple):
    """What the first stage brought, in the model's order.

    lists: (users, n). places: (sources, users, n) int32 the place of each in each source, from 0, -1 where not brought; scores: the
    same shape, float32, its score there, 0 where not brought.
    """

    lists: Lists
    places: np.ndarray
    scores: np.ndarray

    def head(self, n: int) -> Candidates:
        """The first n of each list."""
        lists = Lists(self.lists.items[:, :n], self.lists.scores[:, :n])
        return Candidates(lists, self.places[..., :n], self.scores[..., :n])


class Sides(NamedTuple):
    """What a ranker reads of a block of users. users: (users, features, dim); scores: (users, n) the model's; signals: (users, n, signals)."""

    users: Tensor
    items: Tensor
    scores: Tensor
    signals: Tensor


class Ranker(nn.Module):
    """score = scale * the model's score + a linear map of the stage's own signals + gate * interaction(user, item).

    With scale 1, and the map and the gate 0 to begin with: the model's order.

    The interaction reads the feature vectors of both towers and their final vectors, as the model made them and never trained here,
    each kind brought to about length 1; and as one more feature of the item a linear map of the stage's own signals. One that reads
    vectors is given the towers' final vectors, the signals' map added to the item's.
    """

    def __init__(self, interaction: Interaction, dims: tuple[int, int], shapes: dict[str, int], names: list[str]):
        """dims: of feature vectors, and of the final ones; shapes: feature vectors of `user` and `item`; names: of the signals."""
        super().__init__()
        self.interaction, self.names, self.dims, self.shapes = interaction, names, dims, shapes
        of_features, of_vectors = dims
        self.reads = interaction.reads
        width = of_features if self.reads == "tokens" else of_vectors
        self.resize = nn.Identity() if of_vectors == width else nn.Linear(of_vectors, width, bias=False)
        self.signal = nn.Linear(len(names), width)
        self.linear = nn.Parameter(torch.zeros(len(names)))
        self.scale = nn.Parameter(torch.zeros(()))
        self.gate = nn.Parameter(torch.zeros(()))
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("deviation", torch.ones(len(names)))
        for side, count in shapes.items():
            self.register_buffer(f"{side}_length", torch.ones(count, 1))
        self.facts: dict[str, Tensor] = {}
        """What the signals are made of: `popularity` (items,), `age` (items,)."""
        self._kept: tuple[Tensor, list[Tensor], int] | None = None
        """The known items' feature vectors, and what `_kept_terms` returns of them; None before the first request and in training."""

    def train(self, mode: bool = True) -> Ranker:
        if mode:
            self._kept = None
        return super().train(mode)

    def forward(self, users: Tensor, terms: Sequence[Tensor], scores: Tensor, signals: Tensor) -> Tensor:
        """Score candidates.

        Args:
            users: (batch, features, dim).
            terms: `item_terms` of the candidates, (batch, n, width) each; they are not read if `idle`.
            scores: (batch, n) the model's.
            signals: (batch, n, signals), as `signals` makes them.

        Returns:
            (batch, n).
        """
        told = self.standardised(signals)
        plain = self.scale.exp() * scores + told @ self.linear
        if self.idle:
            return plain
        token = self.signal(told)
        if self.reads == "tokens":
            made = self.interaction.score_terms(users, terms, token.unsqueeze(2))
        else:
            made = self.interaction.score(users[:, -1], terms[0] + token)
        return plain + self.gate * made

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        """Compute what the scores need of items and what depends on the items only.

        Args:
            items: (..., features, dim), as `catalogue` returns them.

        Returns:
            Tensors (..., width).
        """
        return self.interaction.item_terms(items) if self.reads == "tokens" else (items[..., -1, :],)

    @property
    def idle(self) -> bool:
        """Whether the interaction counts for nothing, as nothing was learned from it: it is then left out."""
        return not self.training and not bool(self.gate.detach())

    def standardised(self, signals: Tensor) -> Tensor:
        return ((signals - self.mean) / self.deviation).clamp(-CLIP, CLIP)

    def laid(self, side: str, tokens: Tensor, vectors: Tensor | None) -> Tensor:
        """(rows, features, dim) what the interaction reads of one side. tokens: (rows, features, dim); vectors: (rows, dim), final."""
        if self.reads == "vectors":
            joined = (tokens.mean(1) if vectors is None else vectors).unsqueeze(1)
        else:
            own = [] if vectors is None else [self.resize(vectors).unsqueeze(1)]
            joined = torch.cat([tokens, *own], 1)
        return joined / getattr(self, f"{side}_length")

    def scores(self, request: Request, candidates: Candidates) -> np.ndarray:
        """(users, n) float32 of the candidates, -inf where there is none."""
        model, lists = request.model, candidates.lists
        if not lists.items.size:
            return np.empty(lists.items.shape, np.float32)
        with torch.inference_mode():
            users = self.users_of(request)
            signals = torch.from_numpy(self.signals(request, candidates)).to(users.device)
            items, scores = (torch.from_numpy(part).to(users.device) for part in (lists.items, lists.scores))
            kept, width = ([], 1) if self.idle else self._kept_terms(model)
            size = max(1, CELLS // (items.shape[1] * width))
            parts = [
                self(u, self._terms_of(model, i.clamp(min=0), kept), s.clamp(min=torch.finfo(s.dtype).min), told)
                for u, i, s, told in zip(*(part.split(size) for part in (users, items, scores, signals)), strict=True)
            ]
        return np.where(lists.items >= 0, torch.cat(parts).float().cpu().numpy(), -np.inf)

    def _terms_of(self, model: FittedModel, rows: Tensor, kept: list[Tensor] | None) -> list[Tensor]:
        """`item_terms` of the items `rows: (batch, n)`, from those kept of all items if any are."""
        if kept is not None:
            return [embedding(rows, term) for term in kept]  # a third of the time of term[rows]
        distinct, places = rows.unique(return_inverse=True)
        return [embedding(places, term) for term in self.item_terms(self.catalogue(model, distinct))]

    def _kept_terms(self, model: FittedModel) -> tuple[list[Tensor] | None, int]:
        """`item_terms` of all items, computed at the first request, and how many numbers of one item they are.

        None instead of the terms if they are larger than KEPT_BYTES, or if the model knows further items, of one request.
        """
        tokens, kept = model.token_embeddings("item"), self._kept
        if kept is not None and kept[0] is tokens:
            return kept[1:]
        width = sum(term.shape[1] for term in self.item_terms(self.catalogue(model, slice(0, 1))))
        if model.widened or len(tokens) * width * tokens.element_size() > KEPT_BYTES:
            return None, width
        with _COMPUTING:
            if self._kept is None or self._kept[0] is not tokens:
                size = max(1, CELLS // width)
                starts = range(0, len(tokens), size)
                blocks = [self.item_terms(self.catalogue(model, slice(n, n + size))) for n in starts]
                self._kept = tokens, [torch.cat(parts) for parts in zip(*blocks, strict=True)], width
            return self._kept[1:]

    def users_of(self, request: Request) -> Tensor:
        assert request.tokens is not None
        final = request.represented if not request.model.reads_tokens else None
        return self.laid("user", request.tokens, final)

    def catalogue(self, model: FittedModel, rows: Tensor | slice = ALL) -> Tensor:
        """(rows, features, dim) what the interaction reads of the items `rows`."""
        final = model.representations("item")[rows] if not model.reads_tokens else None
        return self.laid("item", model.token_embeddings("item")[rows], final)

    def signals(self, request: Request, candidates: Candidates) -> np.ndarray:
        """(users, n, signals) float32, not yet standardised, in the order of `signal_names`."""
        items, scores = candidates.lists.items, candidates.lists.scores
        there = items >= 0
        best = scores[:, :1]
        found = [
            np.where(there, scores - np.where(np.isfinite(best), best, 0), 0),
            np.broadcast_to(np.log1p(np.arange(items.shape[1])), items.shape),
            np.broadcast_to(np.log1p(_events_each(request))[:, None], items.shape),
        ]
        for place, score in zip(candidates.places, candidates.scores, strict=True):
            found += [np.where(place >= 0, 1 / np.log2(np.maximum(place, 0) + 2), 0), score]
        for fact in self.facts.values():
            values = fact.numpy()
            known = np.clip(items, 0, len(values) - 1)
            found.append(np.where(there & (items < len(values)), values[known], 0))
        return np.stack([part.astype(np.float32) for part in found], -1)

    def save(self, folder: Path) -> None:
        weights = {f"weights.{name}": value for name, value in self.state_dict().items()}
        facts = {f"facts.{name}": value for name, value in self.facts.items()}
        save_file({n: v.detach().cpu().contiguous() for n, v in {**weights, **facts}.items()}, folder / WEIGHTS)
        described = {"dims": self.dims, "shapes": self.shapes, "signals": self.names, "facts": list(self.facts)}
        (folder / FACTS).write_text(json.dumps(described, indent=1) + "\n")


def make_ranker(model: FittedModel, config: RankConfig, sources: list[str], registry: Registry) -> Ranker:
    """An untrained ranker for the model's towers."""
    towers = towers_of(model).scorer
    names = {side: list(towers.tower(side).token_names) for side in ("user", "item")}
    if towers.interaction.reads == "vectors":
        names = {side: [*own, "vector"] for side, own in names.items()}
    facts = item_facts(model)
    signals = signal_names(sources, list(facts))
    dims = (towers.user.dim, model.config.dim)
    ranker = _built(config, registry, dims, names, signals).to(model.device)
    ranker.facts = facts
    _bring_to_length_one(ranker, model)
    return ranker


def load_ranker(folder: Path, config: RankConfig, model: FittedModel, sources: list[str], registry: Registry) -> Ranker:
    """The ranker that `Ranker.save` wrote. sources: names of the pipeline's sources. Raises ModelError."""
    described, saved = read_object(folder / FACTS, AGAIN), read_tensors(folder / WEIGHTS)
    towers = towers_of(model).scorer
    names = {side: list(towers.tower(side).token_names) for side in ("user", "item")}
    if towers.interaction.reads == "vectors":
        names = {side: [*own, "vector"] for side, own in names.items()}
    weights = {name.removeprefix("weights."): value for name, value in saved.items() if name.startswith("weights.")}
    hint = "Use the versions in manifest.json."
    with damaged(folder / FACTS, "the ranker does not fit the model"):
        dims = (towers.user.dim, model.config.dim)
        if tuple(described["dims"]) != dims or described["signals"] != signal_names(sources, list(described["facts"])):
            raise ValueError(f"it was made for vectors of {described['dims']} and the signals {described['signals']}")
        with bounded_by(folder / WEIGHTS):
            ranker = _built(config, registry, dims, names, described["signals"])
    with damaged(folder / WEIGHTS, "the ranker's weights do not fit the components installed here", hint):
        ranker.load_state_dict(weights)
        ranker.facts = {name: saved[f"facts.{name}"] for name in described["facts"]}
        for name, values in ranker.facts.items():
            if values.dtype != torch.float32 or values.ndim != 1 or len(values) > len(model.dataset.items):
                raise ValueError(f"'{name}' is {values.dtype} {tuple(values.shape)}")
    return ranker.to(model.device).eval()


def _built(
    config: RankConfig, registry: Registry, dims: Any, names: dict[str, list[str]], signals: list[str]
) -> Ranker:
    cls = registry.get("interaction", config.type, "/pipeline/rank/type")
    params = registry.params("interaction", config.type, config.options(), "/pipeline/rank")
    width = dims[0] if cls.reads == "tokens" else dims[1]
    fields = (names["user"], [*names["item"], "signals"]) if cls.reads == "tokens" else ((), ())
    shapes = {side: len(own) if cls.reads == "tokens" else 1 for side, own in names.items()}
    return Ranker(cls(width, params, fields), dims, shapes, signals)


def _bring_to_length_one(ranker: Ranker, model: FittedModel) -> None:
    """Divide each kind of feature vector by its root mean square length over all that are known."""
    with torch.inference_mode():
        for side in ("user", "item"):
            final = model.representations(side) if not model.reads_tokens else None
            laid = ranker.laid(side, model.token_embeddings(side), final)
            length = laid.square().sum(-1).mean(0).sqrt().clamp(min=1e-6)
            getattr(ranker, f"{side}_length").copy_(length.unsqueeze(1))


def signal_names(sources: list[str], facts: list[str]) -> list[str]:
    told = [f"{what} in {name}" for name in sources for what in ("place", "score")]
    return ["score below the best", "log rank", "log events of the user", *told, *facts]


def item_facts(model: FittedModel) -> dict[str, Tensor]:
    """(items,) float32 each: the log of the number of users who have the item among the training positives, and, with
    timestamps, the log of the days from the item's first training positive to the newest of all."""
    learning = model.required_learning()
    dataset = learning.dataset
    size = len(dataset.items)
    counts = np.bincount(dataset.item_rows[learning.positives_learned(model.config)], minlength=size)
    facts = {"log popularity": np.log1p(counts)}
    rows = learning.positives(learning.final_split(model.config).train)
    items, times = dataset.item_rows[rows], dataset.times[rows]
    known = times != NO_TIME
    if known.any():
        last = int(times[known].max())
        first = np.full(size, last)
        np.minimum.at(first, items[known], times[known])
        facts["log age in days"] = np.log1p((last - first) / MICROSECONDS_A_DAY)
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in facts.items()}


def _events_each(request: Request) -> np.ndarray:
    """(users,) how much each user of the request did."""
    owners, _, _ = request.events
    return np.bincount(owners, minlength=len(request.rows))
