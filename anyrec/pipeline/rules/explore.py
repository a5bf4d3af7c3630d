"""A rule that draws the items of some positions at random, and logs the propensities for off-policy evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, model_validator
from scipy.special import betainc, betaincinv

from anyrec.core.contracts import only_with
from anyrec.core.errors import DataError, Fault, InputError
from anyrec.core.outside import Outside
from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.contracts import PROPENSITY, Lists, Logged, Request, Rule
from anyrec.pipeline.reranking.item_files import ItemFile, raise_faults

NODES = 128
"""Points of the quadrature of Thompson propensities. For pools of up to 20 items with up to 100,000 impressions the
propensities of a pool add up to 1 within 5e-4, and within 1e-5 for half of the pools."""
MAX_IMPRESSIONS = 10**12
"""Maximum for one item: the spread of a Beta distribution with larger parameters is below the resolution of float64."""
MOST_PATHS = 1000
"""Combinations of draws of other slots over which a probability is added up."""
Rates = tuple[np.ndarray, np.ndarray]
"""The two parameters, (items,) each, of each item's Beta distribution."""


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
    draws = True

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

    def notes(self, model: ModelData) -> list[str]:
        rules = [] if model.config.pipeline is None else model.config.pipeline.rerank.rules
        types = [one.type for one in rules if model.registry.get("rule", one.type).apply is not Rule.apply]
        if types and (types[-1] != self.type or types.count(self.type) > 1):
            return ["other rules can move what it draws: put it last, and once, to evaluate candidates by its lists."]
        return []

    def k_decides(self) -> Literal["nothing", "end", "start"]:
        return "end"

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
            request.logged.append(Logged(PROPENSITY, users[valid], pool[valid, drawn[valid]], chance[valid]))
            items, scores = (_moved(array, start, pool.shape[1], drawn) for array in (items, scores))
        return Lists(items, scores)

    def chances(self, request: Request, lists: Lists, positions: Sequence[int], items: np.ndarray) -> np.ndarray:
        """As `Rule.chances`. The draws of slots that are not in `positions` are added up over all their outcomes.

        Raises:
            InputError: If there are more than MOST_PATHS outcomes.
        """
        others = [one for one in self.params.positions if one < max(positions, default=0) and one not in positions]
        if self.params.pool ** len(others) > MOST_PATHS:
            what = f"it also draws at {', '.join(map(str, sorted(others)))}: too many combinations to add up."
            hint = f"Leave out slots before {max(positions)}, or use those at {', '.join(map(str, positions))}."
            raise InputError(Fault("positions", what, hint, "slots"))
        wanted = dict(zip(positions, items.T, strict=True))
        places = [(one, wanted.get(one)) for one in sorted({*others, *positions})]
        rates = self._rates(request) if self.params.method == "thompson" else None
        return self._chances(lists.items, places, rates)

    def _chances(
        self, items: np.ndarray, places: Sequence[tuple[int, np.ndarray | None]], rates: Rates | None
    ) -> np.ndarray:
        """Return the probabilities of the wanted items, as `chances` does.

        Args:
            items: (users, length) item rows after the draws at earlier positions.
            places: Positions that are left, ascending, each with (users,) wanted items; None for a slot of any outcome.
            rates: What `_rates` returns, for thompson.
        """
        if not places:
            return np.ones((len(items), 0))
        (position, wanted), *rest = places
        pool = items[:, position - 1 : position - 1 + self.params.pool]
        filled = pool >= 0
        if wanted is None:
            found = np.zeros((len(items), sum(one is not None for _, one in rest)))
            for place in range(pool.shape[1]):
                drawn = np.full(len(items), place)
                chance = np.where(filled[:, place], self._chance(pool, filled, drawn, rates), 0.0)
                found += chance[:, None] * self._chances(_moved(items, position - 1, pool.shape[1], drawn), rest, rates)
            return found
        same = filled & (pool == wanted[:, None])
        if position in self.params.positions and pool.shape[1]:
            drawn = same.argmax(1)
            chance = np.where(same.any(1), self._chance(pool, filled, drawn, rates), 0.0)
            items = _moved(items, position - 1, pool.shape[1], drawn)
        else:
            chance = same[:, :1].any(1).astype(np.float64)
        return chance[:, None] * np.hstack([np.ones((len(items), 1)), self._chances(items, rest, rates)])

    def _draw(
        self, random: np.ndarray, pool: np.ndarray, filled: np.ndarray, rates: Rates | None
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
            count = np.maximum(filled.sum(1), 1)
            drawn = np.where(random[:, 0] < self.params.epsilon, (random[:, 1] * count).astype(np.int64), 0)
        else:
            a, b = (np.where(filled, rate[pool], 1.0) for rate in rates)
            drawn = np.where(filled, betaincinv(a, b, random[:, : pool.shape[1]]), -1.0).argmax(1)
        return drawn, self._chance(pool, filled, drawn, rates)

    def _chance(self, pool: np.ndarray, filled: np.ndarray, drawn: np.ndarray, rates: Rates | None) -> np.ndarray:
        """Return (users,) the probability of drawing an item. drawn: (users,) its place; others as for `_draw`."""
        if rates is None:
            epsilon = self.params.epsilon
            return epsilon / np.maximum(filled.sum(1), 1) + (1 - epsilon) * (drawn == 0)
        a, b = (np.where(filled, rate[pool], 1.0) for rate in rates)
        return chance_of_highest(a, b, filled, drawn)

    def _rates(self, request: Request) -> Rates:
        params, count = self.params, len(request.items)
        clicks, misses = np.zeros(count), np.zeros(count)
        if self.state is not None:
            clicks, misses = read_state(self.state, request.model.dataset.ids("item"))
        return clicks + params.prior_clicks, misses + params.prior_misses


def _moved(array: np.ndarray, start: int, length: int, drawn: np.ndarray) -> np.ndarray:
    """Return lists in which one item of a pool is at its front, and those that were before it are one further back.

    Args:
        array: (users, length of the lists) items or scores.
        start: Place of the first item of the pool, from 0.
        length: Items of the pool.
        drawn: (users,) the item's place in the pool.
    """
    places = np.arange(length)
    order = np.where(places == 0, drawn[:, None], np.where(places <= drawn[:, None], places - 1, places))
    moved = array.copy()
    moved[:, start : start + length] = np.take_along_axis(array[:, start : start + length], order, 1)
    return moved


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
