"""Classical models of an export, alone or blended with the towers, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.kinds import SCORINGS, Scoring, Vectors, part_of
from anyrec.model.choice import GROUPS, TOWERS
from anyrec.model.records import Records

FLAGS = ("personal", "ranks_new_users", "by_history", "folds_in")
"""Attributes of a classical model (`anyrec.core.contracts.Classical`) that an export keeps."""


@dataclass(frozen=True)
class UserStates:
    """What classical models read of some users.

    Attributes:
        rows: (users,) rows among the known users; -1 for a new user.
        replaces: (users,) bool, whether the request's items replace the known history instead of extending it.
        requested: The items that the request brings for each user.
    """

    rows: np.ndarray
    replaces: np.ndarray
    requested: Pairs

    @staticmethod
    def of(records: Records, reads_history: bool) -> UserStates:
        """Return the states of the users of a request; reads_history: whether a model reads what the request brings."""
        count, history = len(records.rows), records.history
        owners, items, replaces = np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(count, bool)
        if history is not None and reads_history:
            liked, replaces = history.positive, history.replaces
            owners, items = history.owners[liked], history.items[liked]
        return UserStates(records.rows, replaces, Pairs(items, np.searchsorted(owners, np.arange(count + 1))))

    def take(self, chosen: np.ndarray) -> UserStates:
        """Return the users at the positions `chosen`."""
        return UserStates(self.rows[chosen], self.replaces[chosen], part_of(self.requested, chosen))


@dataclass(frozen=True)
class Member:
    """A classical model.

    Attributes:
        scoring: Scores by the rows and histories of users.
        flags: Those of FLAGS.
        known: The histories of the known users.
        popularity: (items,) float32, the scores of users without own ones.
        fitted: (items,) bool, the items that it was fitted on.
        learned: (users,) bool, the known users whose row it knows as it is now.
    """

    scoring: Scoring
    flags: Mapping[str, bool]
    known: Pairs
    popularity: np.ndarray
    fitted: np.ndarray
    learned: np.ndarray

    @staticmethod
    def of(document: JsonObject, known: Pairs) -> Member:
        """Return the model of its entry in export.json, with the arrays."""
        arrays = document["popularity"], document["fitted"], document["learned"]
        return Member(SCORINGS[document["scoring"]](document["state"]), document["flags"], known, *arrays)

    @property
    def reads_history(self) -> bool:
        """Whether scores depend on the interactions of a request."""
        return self.flags["by_history"] or self.flags["folds_in"]

    def score(self, users: UserStates) -> np.ndarray:
        """Return (users, items) float32, the scores of the items that the model knows."""
        histories = self.histories(users)
        rows = self._rows(users, histories)
        scores = self.scoring.score(rows, histories)
        scores[self._unknown(rows, histories)] = self.popularity
        return scores

    def user_vectors(self, users: UserStates) -> np.ndarray:
        """Return (users, dim) float32, the vectors of users; zeros for those who get the popularity as scores."""
        assert isinstance(self.scoring, Vectors)
        histories = self.histories(users)
        rows = self._rows(users, histories)
        vectors = self.scoring.user_vectors(rows, histories)
        vectors[self._unknown(rows, histories)] = 0
        return vectors

    def standardised(self, users: UserStates, items: int, least: float) -> np.ndarray:
        """Return (users, items) float32, scores with mean 0 and deviation 1 over the items of the fit; 0 for others.

        Args:
            users: The users.
            items: Number of items; those after the items that the model knows were added later.
            least: Lower bound of the deviation.
        """
        scores = self.score(users)
        trained = scores[:, self.fitted]
        mean, spread = (one(1, np.float64, keepdims=True).astype(np.float32) for one in (trained.mean, trained.std))
        standard = np.where(self.fitted, (scores - mean) / np.maximum(spread, np.float32(least)), np.float32(0))
        return np.pad(standard, ((0, 0), (0, items - standard.shape[1])))

    def histories(self, users: UserStates) -> Pairs:
        """Return the distinct items of each user, known ones and those of the request, that the model knows."""
        inside = np.flatnonzero((users.rows >= 0) & ~users.replaces)
        places, items = self.known.take(users.rows[inside])
        more = users.requested.items < len(self.popularity)
        owners = np.concatenate([inside[places], users.requested.owners()[more]])
        return Pairs.of(owners, np.concatenate([items, users.requested.items[more]]), len(users.rows))

    def _rows(self, users: UserStates, histories: Pairs) -> np.ndarray:
        """Return (users,) the row of each user for the scoring; -1 for users that it does not know as they are now."""
        known = np.append(self.learned, False)[users.rows]
        if self.flags["folds_in"]:
            grown = histories.counts() > np.append(self.known.counts(), 0)[users.rows]
            known &= ~users.replaces & ~grown
        return np.where(known, users.rows, -1)

    def _unknown(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        """Return (users,) bool, who gets the popularity of the items as scores."""
        if not self.flags["personal"] or self.flags["ranks_new_users"]:
            return np.zeros(len(rows), bool)
        return (histories.counts() == 0) | ((rows < 0) & (not self.reads_history))


@dataclass(frozen=True)
class Blend:
    """The blend of the towers with classical models: `anyrec.model.blended.BlendScorer` in NumPy.

    Attributes:
        members: The classical models by name.
        weights: Weight of each member and of the towers, for each group of users.
        mean: (dim,) mean of the item vectors that the towers' scores are standardised over.
        covariance: (dim, dim) their covariance.
        least: Lower bound of a standard deviation.
    """

    members: Mapping[str, Member]
    weights: Mapping[str, Mapping[str, float]]
    mean: np.ndarray
    covariance: np.ndarray
    least: float

    @cached_property
    def reader(self) -> Member:
        """The member that reads most of a user: one that scores by the history, if there is one."""
        members = list(self.members.values())
        return next((one for one in members if one.reads_history), members[0])

    def score(self, users: UserStates, vectors: np.ndarray, of_towers: np.ndarray) -> np.ndarray:
        """Blend scores.

        Args:
            users: The users.
            vectors: (users, dim) their vectors.
            of_towers: (users, items) float32, the towers' scores of all items.

        Returns:
            (users, items) float32.
        """
        groups = (self.reader.histories(users).counts() > 0).astype(int)
        spread = np.sqrt(np.maximum(((vectors @ self.covariance) * vectors).sum(1, keepdims=True), 0))
        standard = (of_towers - (vectors @ self.mean)[:, None]) / np.maximum(spread, np.float32(self.least))
        total = self._weights(TOWERS, groups) * standard
        for name, member in self.members.items():
            total += self._weights(name, groups) * member.standardised(users, total.shape[1], self.least)
        return total

    def _weights(self, name: str, groups: np.ndarray) -> np.ndarray:
        """Return (users, 1) float32, the weight of a member. groups: (users,) places in GROUPS."""
        return np.array([self.weights[group].get(name, 0.0) for group in GROUPS], np.float32)[groups, None]
