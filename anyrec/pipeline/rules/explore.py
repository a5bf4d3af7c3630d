"""A rule that draws the items of some positions at random, and logs the propensities for off-policy evaluation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, model_validator
from scipy.special import betainc, betaincinv

from anyrec.core.contracts import only_with
from anyrec.core.errors import DataError, Fault
from anyrec.core.outside import Outside
from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.contracts import Lists, Logged, Request, Rule
from anyrec.pipeline.reranking.item_files import ItemFile, raise_faults

NODES = 128
"""Points of the quadrature of Thompson propensities. For pools of up to 20 items with up to 100,000 impressions the
propensities of a pool add up to 1 within 5e-4, and within 1e-5 for half of the pools."""
MAX_IMPRESSIONS = 10**12
"""Maximum for one item: the spread of a Beta distribution with larger parameters is below the resolution of float64."""


class Explore(Rule):
    """Bandit slots: at given positions an item is drawn from the next candidates.

    The pool of a slot is the candidate at its position and those after it. `epsilon_greedy` keeps the first with
    probability 1 - epsilon and otherwise draws uniformly from the pool. `thompson` (Thompson sampling) draws each
    item's click rate from Beta(prior_clicks + clicks, prior_misses + impressions - clicks) and takes the item with
    the highest. The probability of the drawn item, given the earlier slots, is logged as `propensity`. The draws
    are each user's own (`Request.draws`).

    References:
        Chapelle and Li, "An empirical evaluation of Thompson sampling", NIPS 2011.
    """

    type = "explore"

    class Params(Rule.Params):
        method: Literal["thompson", "epsilon_greedy"] = Field(
            "epsilon_greedy", description="How the item of a slot is drawn."
        )
        positions: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
            min_length=1, max_length=100, description="The slots' positions, from 1."
        )
        pool: int = Field(20, ge=2, le=1000, description="Number of candidates from which a slot is drawn.")
        epsilon: float = Field(
            0.1,
            ge=0,
            le=1,
            description="Probability of a uniform draw, for epsilon_greedy.",
            json_schema_extra=only_with(method=["epsilon_greedy"]),
        )
        state: Annotated[str | None, Outside("a file")] = Field(
            None, description="File with item_id, impressions and clicks, for thompson; read again when it changes."
        )
        prior_clicks: float = Field(
            1.0,
            ge=1e-6,
            le=1e9,
            description="Prior number of clicks of each item, for thompson.",
            json_schema_extra=only_with(method=["thompson"]),
        )
        prior_misses: float = Field(
            1.0,
            ge=1e-6,
            le=1e9,
            description="Prior number of impressions without a click of each item, for thompson.",
            json_schema_extra=only_with(method=["thompson"]),
        )

        @model_validator(mode="after")
        def _positions_are_distinct(self) -> Self:
            if len(set(self.positions)) < len(self.positions):
                raise ValueError("positions must be distinct")
            if self.state is not None and self.method != "thompson":
                raise ValueError("state is for thompson only")
            return self

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
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
            filled = pool >= 0
            if position > k or not filled.any():
                break
            drawn, chance = self._draw(request.draws(position, self.params.pool), pool, filled, rates)
            valid = filled[:, 0]
            request.logged.append(Logged("propensity", users[valid], pool[valid, drawn[valid]], chance[valid]))
            # The drawn item moves to the front of its pool, those before it move back by one.
            places = np.arange(pool.shape[1])
            order = np.where(places == 0, drawn[:, None], np.where(places <= drawn[:, None], places - 1, places))
            for array in (items, scores):
                array[:, start : start + pool.shape[1]] = np.take_along_axis(
                    array[:, start : start + pool.shape[1]], order, 1
                )
        return Lists(items, scores)

    def _draw(
        self, random: np.ndarray, pool: np.ndarray, filled: np.ndarray, rates: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw one item of each user's pool.

        Args:
            random: (users, pool or more) from 0 to 1, at least two numbers of each user.
            pool: (users, pool) item rows.
            filled: (users, pool) bool, False past the end of a list.
            rates: What `_rates` returns, for thompson.

        Returns:
            (users,) place of the drawn item in the pool, and (users,) the probability of drawing it.
        """
        if rates is None:
            count, epsilon = np.maximum(filled.sum(1), 1), self.params.epsilon
            drawn = np.where(random[:, 0] < epsilon, (random[:, 1] * count).astype(np.int64), 0)
            return drawn, epsilon / count + (1 - epsilon) * (drawn == 0)
        a, b = (np.where(filled, rate[pool], 1.0) for rate in rates)
        drawn = np.where(filled, betaincinv(a, b, random[:, : pool.shape[1]]), -1.0).argmax(1)
        return drawn, chance_of_highest(a, b, filled, drawn)

    def _rates(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """Return the two parameters, (items,) each, of each item's Beta distribution."""
        params, count = self.params, len(request.items)
        clicks, misses = np.zeros(count), np.zeros(count)
        if self.state is not None:
            clicks, misses = read_state(self.state, request.model.dataset.ids("item"))
        return clicks + params.prior_clicks, misses + params.prior_misses


def read_state(file: ItemFile, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Read the state of Thompson sampling.

    Args:
        file: A file with item_id, impressions and clicks.
        ids: (items,) ids of all items.

    Returns:
        (items,) clicks, and (items,) impressions without a click; 0 for items that the file does not contain.

    Raises:
        DataError: The file cannot be read, or a number is out of range.
    """
    table, where = file.table(), str(file.path)
    columns = {}
    for name in ("impressions", "clicks"):
        if table.column_names.count(name) != 1:
            raise DataError(
                Fault(
                    where, f"it has no column '{name}', or several.", "Give item_id, impressions and clicks.", "shape"
                )
            )
        try:
            columns[name] = pc.fill_null(table.column(name).cast(pa.float64()), 0.0).to_numpy()
        except pa.ArrowException:
            raise DataError(Fault(where, f"not all values of '{name}' are numbers.", kind="bad value")) from None
    clicks, seen = columns["clicks"], columns["impressions"]
    bad = np.flatnonzero(~((clicks >= 0) & (seen >= clicks) & (seen <= MAX_IMPRESSIONS)))
    if len(bad):
        what = (
            f"clicks must be from 0 to the impressions, and these at most {MAX_IMPRESSIONS:,}; "
            f"{len(bad)} rows differ, the first is row {bad[0]}."
        )
        raise DataError(Fault(where, what, kind="bad value"))
    rows = file.rows(ids)
    known = rows >= 0
    clicks = np.bincount(rows[known], columns["clicks"][known], minlength=len(ids))
    return clicks, np.bincount(rows[known], columns["impressions"][known], minlength=len(ids)) - clicks


def chance_of_highest(a: np.ndarray, b: np.ndarray, filled: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the probability that the chosen item's draw from its Beta distribution is the highest of the pool.

    With F_i the distribution function of item i it is the integral over u in [0, 1] of the product of F_j(F_c^-1(u))
    over the other items j: Gauss-Legendre quadrature over the quantiles of the chosen item c.

    Args:
        a: (users, pool) first parameters.
        b: (users, pool) second parameters.
        filled: (users, pool) bool, False past the end of a list.
        chosen: (users,) place of the chosen item.

    Returns:
        (users,) above 0, so that it can be inverted.
    """
    rows = np.arange(len(a))
    points, weights = np.polynomial.legendre.leggauss(NODES)
    rates = betaincinv(a[rows, chosen][:, None], b[rows, chosen][:, None], (points + 1) / 2)  # (users, nodes)
    below = np.ones_like(rates)
    for place in range(a.shape[1]):
        other = betainc(a[:, place, None], b[:, place, None], rates)
        below *= np.where((filled[:, place] & (place != chosen))[:, None], other, 1.0)
    return np.maximum((below * weights / 2).sum(1), np.finfo(np.float64).tiny)
