"""The log of lists with drawn items as rows of off-policy evaluation, with their rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from anyrec.core.errors import DataError, Fault, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.serving.live.drawn_lists import DRAWN
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.query import Draws, Id, Query

LEFT_OUT = {
    "repeated": "show the outcome of an earlier draw: reloads, further pages, and other lists of the same day",
    "not repeatable": "come from requests with pictures, or with too many ids to be logged",
    "early": "are older than the last interaction of the candidate's training data",
}
"""Why a list is not evaluated."""
Credits = dict[tuple[str, Id], int]
"""The row that an event with a recommendation_id and an item_id is a reward of."""


class Entry(msgspec.Struct):
    """What the log says of a list, as far as it is evaluated (`anyrec.serving.live.drawn_lists`)."""

    recommendation_id: str
    user_id: Id | None
    time: float
    draws: Draws
    request: JsonObject | None

    @property
    def shown(self) -> list[tuple[int, Id, float]]:
        """The slots on the list's page."""
        offset = (self.request or {}).get("offset", 0)
        return [slot for slot in self.draws.slots if slot[0] > offset]


@dataclass(frozen=True)
class DrawnList:
    """A list that is evaluated.

    Attributes:
        time: When it was begun, in seconds since 1970.
        query: The request, at that time.
        draws: What was drawn for its page and for earlier ones.
        rows: The rows of the slots of its page, which are the last ones of `draws`.
    """

    time: float
    query: Query
    draws: Draws
    rows: slice


@dataclass(frozen=True)
class DrawnRows:
    """The rows of a log: the drawn items of each list that is evaluated.

    Attributes:
        lists: The lists, by time.
        propensities: (rows,) probability by which the list's drawn items up to and including this one were drawn.
        positions: (rows,) position of the item, from 1.
        users: (rows,) number of the user. A person without an id is another user in each list.
        rewards: (rows,) 1 if an event names the item and the list, else 0.
        left_out: How many lists are not evaluated, by a key of LEFT_OUT.
    """

    lists: list[DrawnList]
    propensities: np.ndarray
    positions: np.ndarray
    users: np.ndarray
    rewards: np.ndarray
    left_out: dict[str, int]


def read_rows(folder: Path, types: Iterable[str] = (), since: float | None = None) -> DrawnRows:
    """Read the rows of a log.

    Random numbers belong to a user and a day, or a moment that the request named. Only the first list with them is
    evaluated: what the user did with it can change the next request, and the same numbers are then no independent draw
    for it. Events of an item that later lists show at the same position count for the first one.

    Args:
        folder: The folder of the log of events.
        types: Interaction types of events that count; by default all.
        since: Lists before this time, in seconds since 1970, are left out; None to leave out none.

    Raises:
        DataError: If there is no such log, no list can be evaluated, or no event is of these types or names a list.
    """
    lists: list[DrawnList] = []
    propensities: list[float] = []
    positions: list[int] = []
    users: list[int] = []
    numbers: dict[object, int] = {}
    rows_of: dict[object, dict[tuple[int, Id], int]] = {}  # by draw: the row of a position and an item
    credits: Credits = {}
    left_out: Counter[str] = Counter()
    for entry in _entries(folder):
        draw = entry.draws.user, entry.draws.seed
        reason = _reason(entry, draw in rows_of, since)
        own = rows_of.setdefault(draw, {})
        if reason is not None:
            left_out[reason] += 1
        else:
            start = len(propensities)
            chances = np.cumprod([chance for _, _, chance in entry.draws.slots])[-len(entry.shown) :]
            propensities += chances.tolist()
            positions += [position for position, _, _ in entry.shown]
            user = draw if entry.user_id is None else entry.user_id
            users += [numbers.setdefault(user, len(numbers))] * len(chances)
            own |= {slot[:2]: start + n for n, slot in enumerate(entry.shown)}
            lists.append(DrawnList(entry.time, _query(entry), entry.draws, slice(start, len(propensities))))
        for position, item, _ in entry.shown:
            if (position, item) in own:
                credits[entry.recommendation_id, item] = own[position, item]
    if not lists:
        reasons = "; ".join(f"{count:,} of them {LEFT_OUT[reason]}" for reason, count in left_out.items())
        hint = "Train the candidate on data that end before the lists." if left_out["early"] else ""
        raise DataError(Fault(str(folder), f"no list can be evaluated: {reasons}.", hint, "no lists"))
    rewards = _rewards(folder, credits, len(propensities), set(types))
    return DrawnRows(lists, np.array(propensities), np.array(positions), np.array(users), rewards, dict(left_out))


def _entries(folder: Path) -> list[Entry]:
    """Return the entries of the log, by time. Raises DataError if there are none, or they are no lists."""
    place = folder / DRAWN
    try:
        found = [msgspec.convert(one, Entry) for one in read_events(place)]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(Fault(str(place), f"a line is no logged list: {error}.", kind="shape")) from None
    if not found:
        what = "the log has no lists with items that were drawn at random."
        hint = (
            "Name the folder of the log of events (`anyrec serve --events`) of a pipeline whose last rule is `explore`."
        )
        raise DataError(Fault(str(folder), what, hint, "no lists"))
    return sorted(found, key=lambda entry: entry.time)


def _reason(entry: Entry, repeated: bool, since: float | None) -> str | None:
    """Return the key of LEFT_OUT of a list that is not evaluated; None if it is."""
    if repeated:
        return "repeated"
    if entry.request is None:
        return "not repeatable"
    return "early" if since is not None and entry.time <= since else None


def _query(entry: Entry) -> Query:
    """Return a logged request, at its time. Raises DataError if it is none."""
    try:
        query = msgspec.convert({"user_id": entry.user_id, **(entry.request or {})}, Query)
    except msgspec.ValidationError as error:
        raise DataError(Fault(f"the list {entry.recommendation_id}", f"{error}.", kind="shape")) from None
    return query if query.now is not None else replace(query, now=round(entry.time * 1e6))


def _rewards(folder: Path, credits: Credits, rows: int, wanted: set[str]) -> np.ndarray:
    """Return (rows,) 1 for each row with an event that counts, else 0; arguments as for `read_rows`."""
    rewards = np.zeros(rows)
    types: set[str] = set()
    named = False
    for event in read_events(folder):
        kind, shown = event.get("interaction_type"), event.get("recommendation_id")
        types.add(str(kind))
        named = named or shown is not None
        row = credits.get((shown, event["item_id"])) if shown is not None else None
        if row is not None and (not wanted or kind in wanted):
            rewards[row] = 1.0
    for kind in sorted(wanted - types):
        what = f"no event has the interaction type {kind!r}."
        raise DataError(Fault("--type", what, did_you_mean(kind, sorted(types)), "type"))
    if not named:
        what, hint = "no event names the list that it came from.", "Send `recommendation_id` of the answer with events."
        raise DataError(Fault(str(folder), what, hint, "no events"))
    return rewards
