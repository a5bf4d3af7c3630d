"""Learned popularity: present popularity, by weights that are learned at past moments of the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from anyrec.core.contracts import Classical, Params, TrainingMatrix
from anyrec.core.types import JsonObject, SparseMatrix
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.positions import Positions
from anyrec.interaction.conditional_logit import ChoiceSet, fit_conditional_logit
from anyrec.interaction.pair_log import PairLog
from anyrec.interaction.user_lifts import UserFeatures

PRIOR = 3
"""The feature of items that ranks alone if nothing can be learned: the count with a half-life of a sixteenth."""
CANDIDATES, RANKED_BY = 300, (3, 5, 8, 9)
"""Number of items with the highest values, for each of four counts, among which users choose. ML-100K, mean of five
time splits, ndcg@10 on validation and test: 0.360 and 0.385 with 300, 0.353 and 0.385 with 1,000, which takes three
times as long."""
FIRST, SNAPSHOTS, HORIZON = 0.3, 13, 0.1
"""The weights are learned after 30 to 90 % of the pairs, at 13 moments, from what users chose in the next 10 %."""
MOST_USERS = 250
"""Most users of each group and moment to learn from: thousands in all suffice for some 20 weights."""
USER_HALF_LIFE = 0.1
"""Half-life of the weight of a user in EASE by the time since the user's last pair, as a fraction of all pairs."""
AT_MOST = 10
"""A user with a history and n targets weighs n / min(n, 10); one without weighs 1."""


class Moment(NamedTuple):
    """The state at one moment.

    Attributes:
        pairs: (users, items) CSR, 1 for each pair before it.
        features: (items, features) float32, of the items (`PairLog.item_features`).
        candidates: (candidates,) rows of the items that users choose among, ascending.
        similarity: (candidates, candidates) float32, the weights of EASE.
        lifts: (values, candidates) float32, of the values of users' features.
    """

    pairs: SparseMatrix
    features: np.ndarray
    candidates: np.ndarray
    similarity: np.ndarray
    lifts: np.ndarray


class Trending(Classical):
    """Present popularity, by weights that are learned at past moments of the data.

    The score of an item is a weighted sum of

    - logarithms of its recent counts with nine half-lives, of its count of all pairs and of pairs at the beginning of
      histories, of its age and of the time since its last pair (`PairLog.item_features`). Time is measured in pairs, so
      bursts, pauses and the unit of time do not matter;
    - for each feature of users, how much more often users with the same value choose the item (`UserFeatures.lifts`);
    - for users with a history, EASE among the most popular items, in which users weigh by the recency of their last
      pair: once for the whole history and once for its end.

    Users without and with a history have separate weights. They are learned by a conditional logit at 13 moments, each
    from the pairs before it and what users chose in the tenth of all pairs after it. The penalty draws them to recent
    popularity, which is what remains with little data. Only items that are popular at one of several time scales are
    ranked by the weights (up to 1,200); all others follow in the order of recent popularity.
    """

    type = "trending"
    needs = ("timestamps",)
    by_history = True
    counts = True
    ranks_new_users = True
    backtested = True
    scoring = "trending"

    class Params(Params):
        penalty: float = Field(
            0.1, ge=1e-6, le=1e6, description="Penalty on the squared distance of the weights from recent popularity."
        )
        l2: float = Field(400.0, ge=1e-6, le=1e9, description="Ridge penalty of EASE.")
        history_half_life: float = Field(
            10.0, ge=0.1, le=1e6, description="Half-life of a pair in the end of a history, in later pairs of the user."
        )

    def fit(self, training: TrainingMatrix) -> None:
        log, users = PairLog.of(training), UserFeatures.of(training.user_table, training.matrix.shape[0])
        self.users, self.positions = users, log.positions()
        sets = self._past_choices(log, np.random.default_rng(training.seed))
        now = self._moment(log, len(log.users))
        shared = now.features.shape[1]
        weights = np.stack([_learn(group, shared, users.feature_count + 2, self.params.penalty) for group in sets])
        self.popular = (weights[:, :shared] @ now.features[now.candidates].T).astype(np.float32)
        self.lift_weights = weights[:, shared : shared + users.feature_count][:, users.features].astype(np.float32)
        self.history_weights = weights[1, shared + users.feature_count :].astype(np.float32)
        self.candidates, self.similarity, self.lifts = now.candidates, now.similarity, now.lifts
        self.recent = now.features[:, PRIOR] / (1 + now.features[:, PRIOR].max(initial=0.0))

    def _past_choices(self, log: PairLog, random: np.random.Generator) -> tuple[list[ChoiceSet], list[ChoiceSet]]:
        """Return what users without, and users with a history chose after past moments."""
        groups: tuple[list[ChoiceSet], list[ChoiceSet]] = [], []
        for fraction in np.linspace(FIRST, 1 - HORIZON, SNAPSHOTS):
            cut = log.boundary(fraction)
            end = log.boundary(fraction + HORIZON) if fraction < 1 - HORIZON else len(log.users)
            if not 0 < cut < end:  # all of these pairs have the same time
                continue
            moment, chosen = self._moment(log.between(0, cut), len(log.users)), log.between(cut, end).matrix()
            known = np.diff(moment.pairs.indptr) > 0
            for returning, sets in enumerate(groups):
                rows = np.flatnonzero((np.diff(chosen.indptr) > 0) & (known == bool(returning)))
                if len(rows) > MOST_USERS:
                    rows = np.sort(random.choice(rows, MOST_USERS, replace=False))
                if len(rows):
                    sets.append(self._choices(moment, rows, chosen[rows], bool(returning)))
        return groups

    def _moment(self, log: PairLog, total: int) -> Moment:
        """Return the state after the pairs of `log`. total: as in `PairLog.item_features`."""
        features, pairs = log.item_features(total), log.matrix()
        highest = [np.argsort(-features[:, count], kind="stable")[:CANDIDATES] for count in RANKED_BY]
        candidates = np.unique(np.concatenate(highest))
        recency = 0.5 ** ((len(log.users) - log.last_places()) / (USER_HALF_LIFE * max(total, 1)))
        similarity = _ease(pairs[:, candidates], recency.astype(np.float32), self.params.l2)
        return Moment(pairs, features, candidates, similarity, self.users.lifts(pairs, candidates))

    def _choices(self, moment: Moment, rows: np.ndarray, chosen: SparseMatrix, returning: bool) -> ChoiceSet:
        """Return what some users of one group chose after a moment.

        Args:
            moment: The state at the moment.
            rows: (users,) their rows.
            chosen: (users, items) CSR, 1 for each item that they chose.
            returning: Whether they have a history.
        """
        history, targets = moment.pairs[rows], np.diff(chosen.indptr)
        each = 1 / (np.minimum(targets, AT_MOST) if returning else targets)
        weights = chosen[:, moment.candidates].toarray() * each[:, None].astype(np.float32)
        ends = self._ends(rows, history)
        by_history = _by_history((history, ends), moment.candidates, moment.similarity)
        pairs = np.concatenate([self.users.of_each(rows, moment.lifts), by_history], 2)
        allowed = history[:, moment.candidates].toarray() == 0
        return ChoiceSet(moment.features[moment.candidates], pairs, weights, allowed)

    def _ends(self, rows: np.ndarray, history: SparseMatrix) -> SparseMatrix:
        """Return histories (users, items) whose pairs are weighted by their recency."""
        pairs = Pairs(history.indices, history.indptr)
        weights = self.positions.recency(rows, pairs, history.shape[1], self.params.history_half_life)
        return sparse.csr_matrix((weights, history.indices, history.indptr), history.shape)

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        returning = np.diff(matrix.indptr) > 0
        group = returning.astype(np.int64)
        values = (
            self.users.values[np.maximum(rows, 0)].multiply((rows >= 0)[:, None]).multiply(self.lift_weights[group])
        )
        chosen = self.popular[group] + values.tocsr() @ self.lifts
        if returning.any():
            history = matrix[returning]
            ends = self._ends(rows[returning], history)
            chosen[returning] += _by_history((history, ends), self.candidates, self.similarity) @ self.history_weights
        scores = np.tile(self.recent, (len(rows), 1))
        scores += chosen.min(1, keepdims=True) - 1  # below all candidates, as `recent` is less than 1
        scores[:, self.candidates] = chosen
        return scores.astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        values = self.users.values
        return {
            "popular": self.popular,
            "recent": self.recent,
            "candidates": self.candidates,
            "similarity": self.similarity,
            "history_weights": self.history_weights,
            "lifts": self.lifts,
            "lift_weights": self.lift_weights,
            "values": values.data,
            "value_columns": values.indices,
            "value_offsets": values.indptr,
            "value_features": self.users.features,
            "pair_keys": self.positions.keys,
            "pair_positions": self.positions.positions,
        }

    def exported_state(self, users: bool) -> JsonObject:
        state: JsonObject = {**self.state(), "half_life": self.params.history_half_life}
        if users:
            return state
        of_users = ("values", "value_columns", "pair_keys", "pair_positions")
        return state | {name: state[name][:0] for name in of_users} | {"value_offsets": state["value_offsets"][:1]}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take back what `state` returned. Raises ValueError if the arrays do not fit together."""
        self.popular, self.recent, self.history_weights = state["popular"], state["recent"], state["history_weights"]
        self.candidates, self.similarity = state["candidates"], state["similarity"]
        self.lifts, self.lift_weights = state["lifts"], state["lift_weights"]
        features, chosen = state["value_features"], len(self.candidates)
        csr = (state["values"], state["value_columns"], state["value_offsets"])
        values = sparse.csr_matrix(csr, (len(csr[2]) - 1, len(features)))
        values.check_format(full_check=True)  # scipy does not check indices when it multiplies
        self.users = UserFeatures(values, features)
        self.positions = Positions(state["pair_keys"], state["pair_positions"])
        learned = (self.popular, self.similarity, self.lifts, self.lift_weights, self.history_weights)
        expected = [(2, chosen), (chosen, chosen), (len(features), chosen), (2, len(features)), (2,)]
        if [part.shape for part in learned] != expected or len(state["pair_keys"]) != len(state["pair_positions"]):
            raise ValueError(f"weights of {chosen} items and {len(features)} values of features were expected")


def _ease(chosen: SparseMatrix, users: np.ndarray, l2: float) -> np.ndarray:
    """Return (items, items) float32, the weights of EASE. chosen: (users, items) CSR; users: (users,) weights."""
    gram = torch.from_numpy((chosen.T @ sparse.diags(users) @ chosen).toarray())
    gram.diagonal().add_(l2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    inverse /= -inverse.diagonal().clone()
    inverse.fill_diagonal_(0.0)
    return inverse.numpy()


def _by_history(
    histories: tuple[SparseMatrix, SparseMatrix], candidates: np.ndarray, similarity: np.ndarray
) -> np.ndarray:
    """Return (users, candidates, 2) float32, the scores of EASE for two weightings of histories.

    Each row has mean 0 and standard deviation 1, so histories of all lengths have one scale; 0 without a candidate in
    the history.

    Args:
        histories: Two (users, items) CSR.
        candidates: (candidates,) item rows.
        similarity: (candidates, candidates).
    """
    scores = np.stack([history[:, candidates] @ similarity for history in histories], 2)
    scores -= scores.mean(1, keepdims=True)
    spread = scores.std(1, keepdims=True)
    return np.divide(scores, spread, out=np.zeros_like(scores), where=spread > 1e-9)


def _learn(sets: list[ChoiceSet], shared: int, personal: int, penalty: float) -> np.ndarray:
    """Return the weights of the features for one group of users; those of recent popularity if there are no choices.

    Args:
        sets: What users of the group chose.
        shared: Number of features of items.
        personal: Number of features of user-item pairs.
        penalty: Penalty on the weights of the features after these are scaled to a standard deviation of 1.

    Returns:
        (shared + personal,) float64.
    """
    prior = np.zeros(shared + personal)
    prior[PRIOR] = 1.0
    if not sets:
        return prior
    items = np.concatenate([choices.items for choices in sets]).std(0)
    squares = sum(np.square(choices.pairs).sum((0, 1), dtype=np.float64) for choices in sets)
    pairs = np.sqrt(squares / sum(choices.allowed.size for choices in sets))
    scale = np.concatenate([items, pairs])
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-6)  # constant features have no effect
    scaled = [
        choices._replace(
            items=choices.items * inverse[:shared].astype(np.float32),
            pairs=choices.pairs * inverse[shared:].astype(np.float32),
        )
        for choices in sets
    ]
    return fit_conditional_logit(scaled, penalty, prior * scale) * inverse
