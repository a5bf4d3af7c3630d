"""The fitted blend: two towers and classical models, whose standardised scores are added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from anyrec.core.config import Component, Config
from anyrec.core.contracts import Head
from anyrec.core.errors import Fault, InputError
from anyrec.core.types import JsonObject
from anyrec.data.ids import Side
from anyrec.data.split import Part
from anyrec.model.added_users import AddedUsers
from anyrec.model.choice import GROUPS, TOWERS, Choice, Weights, shares_of
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import INDEX, SEARCH, SIMILAR, STATES, FittedModel
from anyrec.model.records import Records
from anyrec.model.request_reader import Reads
from anyrec.model.two_tower import TwoTowerModel

MOST_ROWS = 1 << 24
"""Rows are appended to the towers' vectors as float32, which represents integers exactly up to this number."""
LEAST_SPREAD = 1e-9
"""Lower bound of a standard deviation, so that equal scores of all items become zeros."""
SHARED = ("dataset", "context", "learning", "seen", "seen_parts", "history", "history_parts")
"""Fields of a blend that its members share."""
PAIRS_AT_A_TIME = 1024
"""Pairs scored at once; the classical models score the whole catalogue for each."""
Shared = TypeVar("Shared", TwoTowerModel, ClassicalModel)


class BlendScorer:
    """Adds the scores of towers and classical models, each standardised over the catalogue for each user.

    score = sum over members m of weight[group of the user, m] * (score_m - mean_m) / deviation_m, with the mean and the
    standard deviation of the user's scores of the items that the member was fitted on. An item that a classical model
    was not fitted on gets the mean of its scores, so the other members decide.

    A user is represented by the vector of the user tower, followed by what the classical models read
    (`ClassicalScorer.represent`); an item by the vector of the item tower, followed by its row.
    """

    def __init__(self, towers: TwoTowerModel, members: Mapping[str, ClassicalModel], weights: Weights):
        """
        Args:
            towers: The towers, in the state whose users are scored.
            members: The classical models in the same state, by name.
            weights: Weight of each member, for each group of users.
        """
        self.towers, self.members, self.weights = towers, members, weights

    @property
    def device(self) -> torch.device:
        """The device of the towers."""
        return self.towers.device

    @cached_property
    def known(self) -> Tensor:
        """(items,) bool, the items that the towers' scores are standardised over; items added later have no entry.

        These are the items that a member was fitted on. Members that count the past are left out if there are others:
        to serve they count what happened after the training, too.
        """
        scorers = [member.scorer for member in self.members.values()]
        learned = [one.fitted for one in scorers if not one.classical.counts] or [one.fitted for one in scorers]
        return torch.from_numpy(np.logical_or.reduce(learned))

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """(dim,) mean and (dim, dim) covariance of the vectors of the trained items."""
        vectors = self.towers.vectors("item", self.towers.representations("item"))[: len(self.known)].float()
        vectors = vectors[self.known.to(vectors.device)]
        centred = vectors - vectors.mean(0)
        return vectors.mean(0), centred.T @ centred / max(1, len(vectors))

    def pair_width(self, items: Tensor) -> int:
        """Return 1, the number that `score` holds for each pair."""
        return 1

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Score users against items.

        Args:
            users: (batch, dim + 1 or more) representations.
            items: (items, dim + 1) representations shared by all users, or (batch, items, dim + 1) each user's own.

        Returns:
            (batch, items) scores.
        """
        dim = items.shape[-1] - 1
        rows = users[:, dim:].long()
        groups = self.groups_of(rows)
        total = self.weight_of(TOWERS, groups) * self.towers_score(users[:, :dim], items[..., :dim])
        return self._add_members(total, rows, groups, items[..., dim].long())

    def towers_score(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the standardised scores (batch, items) of the towers; arguments are vectors as for `score`."""
        mean, covariance = self.moments
        vectors = self.towers.vectors("user", users).float()
        deviation = ((vectors @ covariance) * vectors).sum(1).clamp(min=0).sqrt().clamp(min=LEAST_SPREAD)
        return (self.towers.scorer.score(users, items).float() - (vectors @ mean)[:, None]) / deviation[:, None]

    def members_score(self, users: Tensor, groups: Tensor) -> Tensor:
        """Return the part of the score that the classical models add, for all items: (batch, items).

        Args:
            users: (batch, 1 or more) int64, as for `member_score`.
            groups: (batch,) their groups.
        """
        items = len(self.towers.dataset.items)
        return self._add_members(torch.zeros(len(users), items, device=self.device), users, groups, torch.arange(items))

    def _add_members(self, total: Tensor, users: Tensor, groups: Tensor, places: Tensor) -> Tensor:
        """Add the classical models' part to scores (batch, items); other arguments as for `members_score`."""
        for name, member in self.members.items():
            total += self.weight_of(name, groups) * self.member_score(member, users, places)
        return total

    def member_score(self, member: ClassicalModel, users: Tensor, places: Tensor) -> Tensor:
        """Return the standardised scores (batch, items) of a classical model.

        Args:
            member: The model.
            users: (batch, 1 or more) int64, what the classical models read of the users.
            places: (items,) or (batch, items) int64, item rows.
        """
        known = torch.from_numpy(member.scorer.fitted)
        of_all = member.scorer.score(users.cpu(), torch.arange(len(known))[:, None]).float()
        trained = of_all if bool(known.all()) else of_all[:, known]
        mean = trained.mean(1, keepdim=True)
        deviation = trained.std(1, keepdim=True, correction=0).clamp(min=LEAST_SPREAD)
        standard = ((of_all - mean) / deviation).masked_fill_(~known, 0.0)
        added = int(places.max()) + 1 - len(known) if places.numel() else 0
        if added > 0:
            standard = torch.nn.functional.pad(standard, (0, added))
        places = places.cpu()
        found = standard.gather(1, places) if places.dim() == 2 else standard.index_select(1, places)
        return found.to(self.device)

    def groups_of(self, users: Tensor) -> Tensor:
        """Return (batch,) the position of each user's group in GROUPS; `users` as for `member_score`."""
        return (self.history_lengths(users) > 0).long()

    def history_lengths(self, users: Tensor) -> Tensor:
        """Return (batch,) the number of items in each user's history; `users` as for `member_score`."""
        matrix = reader_of(self.members).scorer.history_of(users.cpu())
        return torch.from_numpy(np.diff(matrix.indptr)).to(self.device)

    def weight_of(self, name: str, groups: Tensor) -> Tensor:
        """Return (batch, 1), the weight of a member for users of the given groups."""
        by_group = torch.tensor([self.weights[group].get(name, 0.0) for group in GROUPS], device=self.device)
        return by_group[groups][:, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlendedModel(FittedModel):
    """Two towers and classical models whose scores are blended.

    Embeddings, searches by content and explanations are those of the towers.

    Attributes:
        scorer: Scores by all members.
        towers: The towers.
        members: The classical models by name.
    """

    scorer: BlendScorer
    towers: TwoTowerModel
    members: Mapping[str, ClassicalModel]
    has_vectors: bool = True

    def __post_init__(self) -> None:
        """Give the members the data of the blend, so that `dataclasses.replace` changes all of them."""
        shared = {name: getattr(self, name) for name in SHARED}
        towers = _sharing(self.towers, shared)
        members = {name: _sharing(member, shared) for name, member in self.members.items()}
        if towers is not self.towers or any(members[name] is not self.members[name] for name in members):
            object.__setattr__(self, "towers", towers)
            object.__setattr__(self, "members", members)
            object.__setattr__(self, "scorer", BlendScorer(towers, members, self.weights))

    @staticmethod
    def of(
        towers: TwoTowerModel,
        members: Mapping[str, ClassicalModel],
        choice: Choice,
    ) -> BlendedModel:
        """Return the blend of fitted towers and classical models of the same data, with the weights of a choice."""
        own = {one.name: getattr(towers, one.name) for one in fields(FittedModel) if one.name != "computed"}
        own |= {"choice": choice, "scorer": BlendScorer(towers, members, choice.weights)}
        return BlendedModel(**own, towers=towers, members=members)

    @property
    def weights(self) -> Weights:
        """Weight of each member for each group of users."""
        return self.scorer.weights

    @property
    def reads_history(self) -> bool:
        return self.towers.reads_history or any(member.reads_history for member in self.members.values())

    def reads(self) -> Reads:
        return replace(self.towers.reads(), history=self.reads_history or self.config.pipeline is not None)

    def describe(self) -> list[str]:
        known, new = (shares_of(self.weights[group]) for group in ("known", "new"))
        members = [line for member in self.members.values() for line in member.describe()]
        blend = f"blend: {known}" + ("" if known == new else f"; for users without a history: {new}")
        return [*self.towers.describe(), *members, blend]

    def about(self) -> JsonObject:
        return self.towers.about()

    def before(self, part: Part | np.ndarray) -> Self:
        if isinstance(part, str):
            return self.computed.get(("before", part), lambda: self._before(part))
        return self._before(part)

    def _before(self, part: Part | np.ndarray) -> Self:
        towers = self.towers.before(part)
        shared = {name: getattr(towers, name) for name in SHARED}
        members = {name: _sharing(member.before(part), shared) for name, member in self.members.items()}
        scorer = BlendScorer(towers, members, self.weights)
        computed = self.computed.without(*STATES, "user")
        state = {"towers": towers, "members": members, "scorer": scorer, "computed": computed}
        return replace(self, seen=towers.seen, history=towers.history, **state)

    # Representations

    def representations(self, side: Side) -> Tensor:
        rows = np.arange(len(self.dataset.table(side)))
        return self.computed.get(side, lambda: self.joined(self.towers.representations(side), rows))

    def user_representations(self, rows: np.ndarray) -> Tensor:
        return self.joined(self.towers.user_representations(rows), rows)

    def represent(self, records: Records) -> Tensor:
        if records.side == "item":
            return self.joined(self.towers.represent(records), records.rows)
        return _append(self.towers.represent(records), reader_of(self.members).represent(records))

    def joined(self, vectors: Tensor, rows: np.ndarray) -> Tensor:
        """Return representations of known users or items with other vectors of the towers.

        Args:
            vectors: (rows, dim) what the towers' interaction reads.
            rows: (rows,) rows of the users or items.
        """
        return _append(vectors, torch.from_numpy(rows)[:, None])

    def token_embeddings(self, side: Side) -> Tensor:
        return self.towers.token_embeddings(side)

    def user_tokens(self, rows: np.ndarray) -> Tensor:
        return self.towers.user_tokens(rows)

    def tokens(self, records: Records) -> Tensor:
        return self.towers.tokens(records)

    def vectors(self, side: Side, representations: Tensor) -> Tensor:
        """Return the vectors of the towers. Their dot products are the towers' scores, not those of the blend."""
        return self.towers.vectors(side, representations[..., : self.towers.representations(side).shape[-1]])

    # Scores

    @property
    def heads(self) -> dict[str, Head]:
        return self.towers.heads

    @torch.inference_mode()
    def predict(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        dim = items.shape[-1] - 1
        predictions = self.towers.predict(users[:, :dim], items[:, :dim])
        blocks = zip(users.split(PAIRS_AT_A_TIME), items.split(PAIRS_AT_A_TIME), strict=True)
        predictions["score"] = torch.cat([self.scorer.score(u, i[:, None]).squeeze(1) for u, i in blocks])
        return predictions

    def similar_items(self, rows: np.ndarray) -> None:
        return None

    # Other data, other configs

    def with_prepared_features(self) -> Self:
        return self.with_towers(self.towers.with_prepared_features())

    def with_config(self, config: Config) -> Self:
        return replace(super().with_config(config), towers=self.towers.with_config(config))

    def with_items(self, records: Records, *, replace_known: bool = False) -> Self:
        towers = self.towers.with_items(records, replace_known=replace_known)
        if towers is self.towers:
            return self
        _check_rows(len(towers.dataset.items))
        wider = replace(self.with_towers(towers), dataset=towers.dataset, base=None, extended=True)
        if not isinstance(towers.base, TwoTowerModel):
            return wider
        if towers.base is self.towers or towers.base is self.towers.base:
            return replace(wider, base=self.base or self)
        changed = replace(self.with_towers(towers.base), dataset=towers.base.dataset, base=None, extended=True)
        return replace(wider, base=changed)

    def with_added_users(self, added: AddedUsers, shared: JsonObject) -> Self:
        _check_rows(added.count)
        towers = self.towers.with_added_users(added, shared)
        members = {name: member.with_added_users(added, shared) for name, member in self.members.items()}
        scorer = BlendScorer(towers, members, self.weights)
        computed = self.computed.without(*STATES, "user")
        return replace(self, towers=towers, members=members, scorer=scorer, computed=computed, **shared)

    def with_towers(self, towers: TwoTowerModel) -> Self:
        """Return this model with other towers, without what was computed from the present ones."""
        scorer = BlendScorer(towers, self.members, self.weights)
        computed = self.computed.without(*STATES, "user", "item", INDEX, SIMILAR, SEARCH)
        return replace(self, towers=towers, scorer=scorer, computed=computed)


def towers_of(model: FittedModel) -> TwoTowerModel:
    """Return a two-tower model, or the towers of a blend.

    Raises:
        InputError: If the model is of another type.
    """
    if isinstance(model, BlendedModel):
        return model.towers
    if not isinstance(model, TwoTowerModel):
        raise model.unable("no towers")
    return model


def with_towers(model: FittedModel, towers: TwoTowerModel) -> FittedModel:
    """Return a model with other towers, such as `towers_of` it after further training."""
    return model.with_towers(towers) if isinstance(model, BlendedModel) else towers


def has_towers(model: FittedModel) -> bool:
    """Whether `towers_of` returns towers for a model."""
    return isinstance(model, (TwoTowerModel, BlendedModel))


def reader_of(members: Mapping[str, ClassicalModel]) -> ClassicalModel:
    """Return the member that reads most of a user: one that scores by the history, if there is one."""
    models = list(members.values())
    return next((one for one in models if one.reads_history), models[0])


def member_config(config: Config, name: str, options: JsonObject) -> Config:
    """Return the config of a classical member of a blend."""
    return config.model_copy(update={"model": Component(type=name, **options), "blend": None})


def _check_rows(count: int) -> None:
    """Raise InputError if a blend cannot represent that many users or items."""
    if count > MOST_ROWS:
        what = f"a blend has at most {MOST_ROWS:,} users and as many items; these would be {count:,}."
        raise InputError(Fault("model", what, "Train with `blend: null`.", "too many"))


def _append(vectors: Tensor, rows: Tensor) -> Tensor:
    """Append integers (rows, n) to vectors (rows, dim)."""
    return torch.cat([vectors.float(), rows.to(vectors.device, torch.float32)], 1)


def _sharing(model: Shared, shared: Mapping[str, object]) -> Shared:
    """Return a model whose fields `shared` have the given values."""
    differing = {name: value for name, value in shared.items() if getattr(model, name) is not value}
    return replace(model, **differing) if differing else model
