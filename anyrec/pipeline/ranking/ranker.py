"""The second stage: a model that reads feature vectors and the pipeline's signals, and corrects the model's order."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

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
from anyrec.data.ids import SIDES, Side
from anyrec.model.blended import towers_of
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.pipeline.candidate_lists import Candidates
from anyrec.pipeline.contracts import Request
from anyrec.pipeline.ranking.signals import item_facts, signal_names, signal_values

MAX_CELLS = 1 << 23
"""Maximum size of an array of candidates' vectors: 32 MB of float32."""
CACHE_BYTES = 256 << 20
"""Maximum memory for item terms that are cached between requests. Those of a larger catalogue are computed for the
candidates of each request."""
ALL = slice(None)
_COMPUTING = threading.Lock()
CLIP = 5.0
"""Bound on a standardised signal, in standard deviations."""
WEIGHTS, FACTS = "ranker.safetensors", "ranker.json"


class Ranker(nn.Module):
    """score = exp(scale) * the model's score + linear(signals) + gate * interaction(user, item).

    `scale`, `linear` and `gate` start at 0, so an untrained ranker keeps the model's order.

    The inputs of the interaction are computed by the towers, which are not trained here:

    - If it reads tokens: the feature vectors and the final vector of each side, each kind divided by its root mean
      square length, and a linear map of the signals as one more feature vector of the item.
    - If it reads vectors: the final vectors of both sides, with a linear map of the signals added to the item's.

    Args:
        interaction: The interaction.
        dims: Dimension of the feature vectors, and of the final vectors.
        shapes: The number of vectors of each side that the interaction reads.
        names: Names of the signals.
    """

    def __init__(self, interaction: Interaction, dims: tuple[int, int], shapes: dict[Side, int], names: list[str]):
        super().__init__()
        self.interaction, self.names, self.dims, self.shapes = interaction, names, dims, shapes
        feature_dim, vector_dim = dims
        self.reads = interaction.reads
        width = feature_dim if self.reads == "tokens" else vector_dim
        self.resize = nn.Identity() if vector_dim == width else nn.Linear(vector_dim, width, bias=False)
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
        """What `item_facts` returned for the items that were in training."""
        self._cached: tuple[Tensor, list[Tensor], int] | None = None
        """The known items' feature vectors, their terms, and the total width of the terms; None before the first
        request and in training."""

    def train(self, mode: bool = True) -> Ranker:
        """Switch training mode; training discards cached terms."""
        if mode:
            self._cached = None
        return super().train(mode)

    def forward(self, users: Tensor, terms: Sequence[Tensor], scores: Tensor, signals: Tensor) -> Tensor:
        """Score candidates.

        Args:
            users: (batch, features, dim).
            terms: `item_terms` of the candidates, (batch, n, width) each; not used if `idle`.
            scores: (batch, n) the model's scores.
            signals: (batch, n, signals), not standardised.

        Returns:
            (batch, n).
        """
        signals = self.standardised(signals)
        plain = self.scale.exp() * scores + signals @ self.linear
        if self.idle:
            return plain
        token = self.signal(signals)  # (batch, n, width)
        if self.reads == "tokens":
            made = self.interaction.score_terms(users, terms, token.unsqueeze(2))
        else:
            made = self.interaction.score(users[:, -1], terms[0] + token)
        return plain + self.gate * made

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        """Compute the part of the scores that depends on the items only.

        Args:
            items: (..., features, dim), as `item_inputs` returns them.

        Returns:
            Tensors (..., width).
        """
        return self.interaction.item_terms(items) if self.reads == "tokens" else (items[..., -1, :],)

    @property
    def idle(self) -> bool:
        """Whether the interaction is left out, because its gate is 0 (nothing was learned)."""
        return not self.training and not bool(self.gate.detach())

    def standardised(self, signals: Tensor) -> Tensor:
        """Standardise and clip signals, (..., signals)."""
        return ((signals - self.mean) / self.deviation).clamp(-CLIP, CLIP)

    def inputs(self, side: Side, tokens: Tensor, vectors: Tensor | None) -> Tensor:
        """Return what the interaction reads of one side.

        Args:
            side: The side.
            tokens: (rows, features, dim) feature vectors.
            vectors: (rows, dim) final vectors; None if the model has none apart from its feature vectors.

        Returns:
            (rows, features, dim).
        """
        if self.reads == "vectors":
            joined = (tokens.mean(1) if vectors is None else vectors).unsqueeze(1)
        else:
            own = [] if vectors is None else [self.resize(vectors).unsqueeze(1)]
            joined = torch.cat([tokens, *own], 1)
        return joined / self.get_buffer(f"{side}_length")

    def user_inputs(self, request: Request) -> Tensor:
        """Return (users, features, dim) what the interaction reads of a request's users."""
        if request.tokens is None:
            raise ValueError("the request was made without the users' feature vectors")
        final = request.represented if not request.model.reads_tokens else None
        return self.inputs("user", request.tokens, final)

    def item_inputs(self, model: FittedModel, rows: Tensor | slice = ALL) -> Tensor:
        """Return (rows, features, dim) what the interaction reads of items."""
        final = model.representations("item")[rows] if not model.reads_tokens else None
        return self.inputs("item", model.token_embeddings("item")[rows], final)

    def signals(self, request: Request, candidates: Candidates) -> np.ndarray:
        """Return (users, n, signals) float32, not standardised."""
        return signal_values(request, candidates, list(self.facts.values()))

    def scores(self, request: Request, candidates: Candidates) -> np.ndarray:
        """Return (users, n) float32, the scores of the candidates; -inf past the end of a list."""
        model, lists = request.model, candidates.lists
        if not lists.items.size:
            return np.empty(lists.items.shape, np.float32)
        with torch.inference_mode():
            users = self.user_inputs(request)
            signals = torch.from_numpy(self.signals(request, candidates)).to(users.device)
            items, scores = (torch.from_numpy(part).to(users.device) for part in (lists.items, lists.scores))
            cached, width = ([], 1) if self.idle else self._all_terms(model)
            size = max(1, MAX_CELLS // (items.shape[1] * width))
            parts = [
                self(u, self._terms_of(model, i.clamp(min=0), cached), s.clamp(min=torch.finfo(s.dtype).min), signal)
                for u, i, s, signal in zip(*(part.split(size) for part in (users, items, scores, signals)), strict=True)
            ]
        return np.where(lists.items >= 0, torch.cat(parts).float().cpu().numpy(), -np.inf)

    def _terms_of(self, model: FittedModel, rows: Tensor, cached: list[Tensor] | None) -> list[Tensor]:
        """Return `item_terms` of the items `rows: (batch, n)`, from `cached` terms of all items if there are any."""
        if cached is not None:
            return [embedding(rows, term) for term in cached]  # a third of the time of term[rows]
        distinct, places = rows.unique(return_inverse=True)
        return [embedding(places, term) for term in self.item_terms(self.item_inputs(model, distinct))]

    def _all_terms(self, model: FittedModel) -> tuple[list[Tensor] | None, int]:
        """Return `item_terms` of all items, computed at the first request, and their total width.

        The terms are None if they are larger than CACHE_BYTES, or if the model has the new items of one request.
        """
        tokens, cached = model.token_embeddings("item"), self._cached
        if cached is not None and cached[0] is tokens:
            return cached[1:]
        width = sum(term.shape[1] for term in self.item_terms(self.item_inputs(model, slice(0, 1))))
        if model.widened or len(tokens) * width * tokens.element_size() > CACHE_BYTES:
            return None, width
        with _COMPUTING:
            if self._cached is None or self._cached[0] is not tokens:
                size = max(1, MAX_CELLS // width)
                starts = range(0, len(tokens), size)
                blocks = [self.item_terms(self.item_inputs(model, slice(n, n + size))) for n in starts]
                self._cached = tokens, [torch.cat(parts) for parts in zip(*blocks, strict=True)], width
            return self._cached[1:]

    def save(self, folder: Path) -> None:
        """Write the ranker into a folder, as `WEIGHTS` and `FACTS`."""
        weights = {f"weights.{name}": value for name, value in self.state_dict().items()}
        facts = {f"facts.{name}": value for name, value in self.facts.items()}
        save_file({n: v.detach().cpu().contiguous() for n, v in {**weights, **facts}.items()}, folder / WEIGHTS)
        described = {"dims": self.dims, "shapes": self.shapes, "signals": self.names, "facts": list(self.facts)}
        (folder / FACTS).write_text(json.dumps(described, indent=1) + "\n")


def make_ranker(model: FittedModel, config: RankConfig, sources: list[str], registry: Registry) -> Ranker:
    """Create an untrained ranker for a model.

    Args:
        model: A two-tower model with its data.
        config: The `rank` section of the pipeline's config.
        sources: Names of the pipeline's sources.
        registry: The known components.
    """
    towers = towers_of(model)
    facts = item_facts(model)
    ranker = _build(config, registry, _dims(towers), _vector_names(towers), signal_names(sources, list(facts)))
    ranker.to(model.device)
    ranker.facts = facts
    _normalise_lengths(ranker, model)
    return ranker


def load_ranker(folder: Path, config: RankConfig, model: FittedModel, sources: list[str], registry: Registry) -> Ranker:
    """Load the ranker that `Ranker.save` wrote; arguments as of `make_ranker`.

    Raises:
        ModelError: A file is missing or damaged, or the ranker does not fit the model.
    """
    described, saved = read_object(folder / FACTS, AGAIN), read_tensors(folder / WEIGHTS)
    towers = towers_of(model)
    dims = _dims(towers)
    weights = {name.removeprefix("weights."): value for name, value in saved.items() if name.startswith("weights.")}
    hint = "Use the versions in manifest.json."
    with damaged(folder / FACTS, "the ranker does not fit the model"):
        if tuple(described["dims"]) != dims or described["signals"] != signal_names(sources, list(described["facts"])):
            raise ValueError(f"it was made for vectors of {described['dims']} and the signals {described['signals']}")
        with bounded_by(folder / WEIGHTS):
            ranker = _build(config, registry, dims, _vector_names(towers), described["signals"])
    with damaged(folder / WEIGHTS, "the ranker's weights do not fit the components installed here", hint):
        ranker.load_state_dict(weights)
        ranker.facts = {name: saved[f"facts.{name}"] for name in described["facts"]}
        for name, values in ranker.facts.items():
            if values.dtype != torch.float32 or values.ndim != 1 or len(values) > len(model.dataset.items):
                raise ValueError(f"'{name}' is {values.dtype} {tuple(values.shape)}")
    return ranker.to(model.device).eval()


def _dims(model: TwoTowerModel) -> tuple[int, int]:
    """Return the dimension of the feature vectors, and of the final vectors."""
    return model.scorer.user.dim, model.config.dim


def _vector_names(model: TwoTowerModel) -> dict[Side, list[str]]:
    """Return the names of the vectors that an interaction reads of each side, if it reads tokens."""
    last = ["vector"] if model.scorer.interaction.reads == "vectors" else []
    return {side: [*model.scorer.tower(side).token_names, *last] for side in SIDES}


def _build(
    config: RankConfig, registry: Registry, dims: tuple[int, int], names: dict[Side, list[str]], signals: list[str]
) -> Ranker:
    """Create a ranker with random weights."""
    cls = registry.get("interaction", config.type, "/pipeline/rank/type")
    params = registry.params("interaction", config.type, config.options(), "/pipeline/rank")
    width = dims[0] if cls.reads == "tokens" else dims[1]
    fields = (names["user"], [*names["item"], "signals"]) if cls.reads == "tokens" else ((), ())
    shapes: dict[Side, int] = {side: len(own) if cls.reads == "tokens" else 1 for side, own in names.items()}
    return Ranker(cls(width, params, fields), dims, shapes, signals)


def _normalise_lengths(ranker: Ranker, model: FittedModel) -> None:
    """Set the divisor of each kind of vector to its root mean square length over all known users or items."""
    with torch.inference_mode():
        for side in SIDES:
            final = model.representations(side) if not model.reads_tokens else None
            inputs = ranker.inputs(side, model.token_embeddings(side), final)  # (rows, features, dim)
            length = inputs.square().sum(-1).mean(0).sqrt().clamp(min=1e-6)
            ranker.get_buffer(f"{side}_length").copy_(length.unsqueeze(1))
