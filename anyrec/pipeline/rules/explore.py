"""Gives some places to items of which little is known, with the propensities that off-policy estimates need."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, model_validator

from anyrec.core.errors import DataError, Fault
from anyrec.core.outside import Outside
from anyrec.model.fitted import ModelData
from anyrec.pipeline.contracts import Lists, Logged, Request, Rule
from anyrec.pipeline.reranking.item_files import ItemFile, raise_faults

NODES = 128
"""Points of the quadrature of Thompson propensities: over pools of up to 20 items with up to 100,000 impressions they add up to 1 within
5e-4, and within 1e-5 in half of them."""


MOST_IMPRESSIONS = 10**12
"""Of one item; a Beta distribution of larger parameters has no spread that float64 resolves."""


class Explore(Rule):
    """Bandit slots: at given positions an item is drawn from the next candidates, by Thompson sampling or epsilon-greedily.

    A slot's pool is the candidate that holds the place and those after it. `epsilon_greedy` keeps the first with probability
    1 - epsilon and else draws evenly from the pool; `thompson` (Chapelle and Li 2011) draws each one's click rate from
    Beta(prior_clicks + clicks, prior_misses + impressions - clicks) and takes the greatest. The probability with which the
    drawn item was to be drawn, given the slots before, is logged as `propensity`; the seed is the request's.
    """

    type = "explore"

    class Params(Rule.Params):
        method: Literal["thompson", "epsilon_greedy"] = Field(
            "epsilon_greedy", description="How a slot's item is drawn."
        )
        positions: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
            min_length=1, max_length=100, description="The slots' positions, from 1."
        )
        pool: int = Field(20, ge=2, le=1000, description="Candidates that a slot is drawn from.")
        epsilon: float = Field(0.1, ge=0, le=1, description="Probability of an even draw, for epsilon_greedy.")
        state: Annotated[str | None, Outside("a file")] = Field(
            None, description="File with item_id, impressions and clicks, for thompson; read again when it changes."
        )
        prior_clicks: float = Field(1.0, ge=1e-6, le=1e9, description="Clicks that each item is given beforehand.")
        prior_misses: float = Field(
            1.0, ge=1e-6, le=1e9, description="Impressions without a click that each item is given beforehand."
        )

        @model_validator(mode="after")
        def _positions_are_distinct(self):
            if len(set(self.positions)) < len(self.positions):
                raise ValueError("positions are distinct numbers from 1")
            if self.state is not None and self.method != "thompson":
                raise ValueError("state is read by thompson alone")
            return self

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        self.state = ItemFile(self.params.state) if self.params.state else None

    def check(self, model: ModelData) -> None:
        if self.state is None:
            return
        faults = self.state.check("/state")
        try:
            if not faults:
                read_state(self.state, model.dataset.ids("item"))
        except DataError as error:
            faults = [Fault("/state", fault.what, fault.hint, fault.kind) for fault in error.faults]
        raise_faults(faults)

    def apply(self, request: Request, lists: Lists, k: int) -> Lists:
        items, scores = lists.items.copy(), lists.scores.copy()
        users = np.arange(len(items))
        rates = self._rates(request) if self.params.method == "thompson" else None
        for position in sorted(self.params.positions):
            start = position - 1
            pool = items[:, start : start + self.params.pool]
            has = pool >= 0
            if position > k or not has.any():
                break
            drawn, chance = self._draw(request, pool, has, rates)
            here = has[:, 0]
            request.logged.append(Logged("propensity", users[here], pool[here, drawn[here]], chance[here]))
            # The drawn one goes to the front of its pool, those before it move back by one.
            places = np.arange(pool.shape[1])
            order = np.where(places == 0, drawn[:, None], np.where(places <= drawn[:, None], places - 1, places))
            for array in (items, scores):
                array[:, start : start + pool.shape[1]] = np.take_along_axis(
                    array[:, start : start + pool.shape[1]], order, 1
                )
        return Lists(items, scores)

    def _draw(
        self, request: Request, pool: np.ndarray, has: np.ndarray, rates: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(users,) place in the pool of the item drawn, and the probability with which it was to be drawn."""
        if rates is None:
            count, epsilon = np.maximum(has.sum(1), 1), self.params.epsilon
            even = request.rng.random(len(pool)) < epsilon
            drawn = np.where(even, (request.rng.random(len(pool)) * count).astype(np.int64), 0)
            return drawn, epsilon / count + (1 - epsilon) * (drawn == 0)
        a, b = (np.where(has, rate[pool], 1.0) for rate in rates)
        drawn = np.where(has, request.rng.beta(a, b), -1.0).argmax(1)
        return drawn, chance_of_most(a, b, has, drawn)

    def _rates(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """(items,) the parameters of each item's Beta distribution."""
        params, count = self.params, len(request.items)
        clicks, misses = np.zeros(count), np.zeros(count)
        if self.state is not None:
            clicks, misses = read_state(self.state, request.model.dataset.ids("item"))
        return clicks + params.prior_clicks, misses + params.prior_misses


def read_state(file: ItemFile, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(items,) clicks and impressions without one; items that the file does not name have none. Raises DataError."""
    table, where = file.table(), str(file.path)
    columns = {}
    for name in ("impressions", "clicks"):
        if table.column_names.count(name) != 1:
            raise DataError(
                Fault(where, f"has no '{name}', or several.", "Give item_id, impressions and clicks.", "shape")
            )
        try:
            columns[name] = pc.fill_null(table.column(name).cast(pa.float64()), 0.0).to_numpy()
        except pa.ArrowException:
            raise DataError(Fault(where, f"'{name}' are not all numbers.", kind="bad value")) from None
    clicks, seen = columns["clicks"], columns["impressions"]
    bad = np.flatnonzero(~((clicks >= 0) & (seen >= clicks) & (seen <= MOST_IMPRESSIONS)))
    if len(bad):
        what = f"clicks are from 0 to the impressions, and these at most {MOST_IMPRESSIONS:,}; found otherwise in {len(bad)} rows, the first being row {bad[0]}."
        raise DataError(Fault(where, what, kind="bad value"))
    rows = file.rows(ids)
    known = rows >= 0
    clicks = np.bincount(rows[known], columns["clicks"][known], minlength=len(ids))
    return clicks, np.bincount(rows[known], columns["impressions"][known], minlength=len(ids)) - clicks


def chance_of_most(a: np.ndarray, b: np.ndarray, has: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(users,) the probability that the chosen one's draw from Beta(a, b) is the greatest of the pool.

    a, b: (users, pool); has: (users, pool) bool, which are there; chosen: (users,) places. It is the mean, over the chosen one's own
    distribution, of the probability that all others are below: Gauss-Legendre over its quantiles, never 0.
    """
    from scipy.special import betainc, betaincinv

    rows = np.arange(len(a))
    points, weights = np.polynomial.legendre.leggauss(NODES)
    at = betaincinv(a[rows, chosen][:, None], b[rows, chosen][:, None], (points + 1) / 2)  # (users, nodes)
    below = np.ones_like(at)
    for place in range(a.shape[1]):
        other = betainc(a[:, place, None], b[:, place, None], at)
        below *= np.where((has[:, place] & (place != chosen))[:, None], other, 1.0)
    return np.maximum((below * weights / 2).sum(1), np.finfo(np.float64).tiny)
