"""The version of a model that serves now, the events that it receives, and their changes."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from anyrec.core.config import ServingConfig
from anyrec.core.errors import AnyrecError, DataError, Fault, InputError
from anyrec.core.runtime import giving_way
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.ids import SIDES, Side
from anyrec.recommender import Recommender
from anyrec.serving.experiments.assignment import Assignment, assign
from anyrec.serving.live.drawn_lists import DrawnLists
from anyrec.serving.live.event_log import EventLog
from anyrec.serving.live.events import Events, Received
from anyrec.serving.live.files import NOTE, FileRules, root_of_names
from anyrec.serving.live.lookups import known as are_known
from anyrec.serving.live.lookups import record_of
from anyrec.serving.live.query import Id, Listing, Query
from anyrec.serving.live.record_map import RecordMap, has_values
from anyrec.serving.live.replay import Merged, in_parts
from anyrec.serving.live.served import Served
from anyrec.serving.live.variants import EXPOSURES, Variants
from anyrec.serving.live.warm_up import load_encoders, warm_up

LOGGED = (
    *("event_id", "user_id", "item_id", "interaction_type", "rating", "label", "weight", "context"),
    *("recommendation_id", "value"),
)
"""Keys of events that are logged as they came."""
CHANGES = "records"
"""Folder of the log of changed records, in the folder of the log of events."""
RECENT = 8
"""Requests that another version answers before it serves."""


class Service:
    """A model that serves, with everything that changes while it does. Its methods can be called from any thread.

    Readers take `served` once and work with that version; a change makes another version and exchanges it, so no
    request sees half of a change. Vectors of items and whole models are computed before the exchange, one change at a
    time (`_computing`, which is taken first), while lists are made, events arrive and other records change
    (`_changing`, which is held shortly).

    Args:
        recommender: The fitted model.
        config: Limits and the log of events.
        folder: Folder of the log of events and of the log of changed records, which count from the start; None to
            keep both in memory only.
        load: Loads another version of the model from its folder, for `reload`.

    Attributes:
        served: The version that serves now.
        previous: The version before the last reload, for `rollback`; None before the first.
        failed_reload: When the last reload failed, in seconds since 1970; None if it did not.
        histories: The events of each user.
        popularity: How many people had each item by the events.
        folder: As above.
    """

    def __init__(
        self,
        recommender: Recommender,
        config: ServingConfig,
        folder: Path | None = None,
        load: Callable[[Path], Recommender] = Recommender.load,
    ):
        self.config, self.folder, self._load = config, folder, load
        self.served = Served.of(recommender)
        self.previous: Served | None = None
        self.failed_reload: float | None = None
        self.variants = Variants(config.experiments, None if folder is None else folder / EXPOSURES)
        self._drawn = DrawnLists(folder)
        self._recent: deque[Query] = deque(maxlen=RECENT)
        self._computing, self._changing = threading.RLock(), threading.RLock()
        options = config.events.flush, config.events.segment_bytes
        self._events = Events(config.events.history, None if folder is None else EventLog(folder, *options))
        self.histories, self.popularity = self._events.histories, self._events.popularity
        self._changes: EventLog | None = None
        if folder is not None:
            with ExitStack() as opened:  # logs that cannot be read are closed again, for another server
                opened.callback(self.close)
                changes = opened.enter_context(closing(EventLog(folder / CHANGES, *options)))
                self._replay(Merged.of(changes.read()))
                opened.pop_all()
            self._changes = changes

    def _replay(self, merged: Merged) -> None:
        """Apply what was received before the server was started, without logging it again."""
        for change in merged.blocks():
            if change.get("items"):
                in_parts(change, partial(self._change, live=False))
            else:  # records of users were checked when they came, and have no vectors
                self._apply(change, None, {})
        self._events.clock.latest = max(merged.forgotten.values(), default=-math.inf)
        self._events.replay(merged.counts)

    @property
    def logs(self) -> dict[str, EventLog]:
        """The logs by what they have; none without a folder."""
        shown = {"shown lists": self.variants.log, "drawn lists": self._drawn.log}
        found = {"events": self._events.log, "changed records": self._changes, **shown}
        return {name: log for name, log in found.items() if log is not None}

    def close(self) -> None:
        """Close the logs."""
        self.variants.close()
        for log in self.logs.values():
            log.close()

    # Lists

    def lists(self, queries: Sequence[Query]) -> list[Listing | AnyrecError]:
        """Return the list, or the error, of each query, all by the same version or variants of it."""
        places: dict[Assignment | None, list[int]] = {}
        started, served = time.time(), self.served
        queries, named = self._without_files(served, queries)
        for n, query in enumerate(queries):
            places.setdefault(assign(self.config.experiments, query.user_id), []).append(n)
        found: dict[int, Listing | AnyrecError] = {}
        for assignment, own in places.items():
            listings = self.variants.of(assignment, served).lists([queries[n] for n in own], self.histories)
            found |= {n: _named(one, assignment, n in named) for n, one in zip(own, listings, strict=True)}
            if assignment is not None:
                self.variants.shown(assignment, [(queries[n], found[n]) for n in own], served, self.histories)
        shown = [(query, one) for n, query in enumerate(queries) if isinstance(one := found[n], Listing)]
        self._drawn.add(shown, started)
        answered = [query for query, _ in shown[-RECENT:] if not query.pictures]  # pictures can be large
        self._recent.extend(answered)
        return [found[n] for n in range(len(queries))]

    def readable(
        self, version: Served, side: Side, records: Sequence[tuple[object, JsonObject]]
    ) -> tuple[list[JsonObject], list[str]]:
        """Return records of a request without the files that may not be opened, and a note if there were any.

        Args:
            version: The version that reads the records; those of variants are taken into account as well.
            side: Whose records.
            records: Each with its id, or None.
        """
        rules = self._files(version)
        kept = [rules.readable(one, partial(record_of, version, side, key)) for key, one in records]
        return kept, [NOTE] if any(a is not b for a, (_, b) in zip(kept, records, strict=True)) else []

    def _files(self, version: Served) -> FileRules:
        """Return which files records that a version reads can name."""
        features = version.file_features.union(*(one.file_features for one in self.variants.others.values()))
        roots = (root_of_names(version.recommender, allowed) for allowed in (self.config.image_names, True))
        return FileRules(features, *roots)

    def _without_files(self, version: Served, queries: Sequence[Query]) -> tuple[list[Query], set[int]]:
        """Return queries whose records are `readable`, and the places of those that named files."""
        found, named = list(queries), set()
        for n, query in enumerate(queries):
            if query.user is None:  # most requests bring no record
                continue
            (kept,), notes = self.readable(version, "user", [(query.user_id, query.user)])
            if notes:
                found[n] = replace(query, user=kept)
                named.add(n)
        return found, named

    def popular(self, served: Served, k: int) -> list[tuple[Id, int]]:
        """Return the items of a version that the most people had, in training or by the events since; ties by id."""
        model = served.recommender.model
        ids = model.dataset.ids("item")
        counts = model.item_users.copy()
        recent = list(self.popularity.since(served).items())
        rows = served.rows("item", [item for item, _ in recent])
        np.add.at(counts, rows[rows >= 0], np.array([count for _, count in recent], np.int64)[rows >= 0])
        counts[served.removed_rows()] = -1
        best = np.argsort(-counts, kind="stable")[:k]
        return [(ids[int(row)].as_py(), int(counts[row])) for row in best if counts[row] >= 0]

    # Events

    def receive(self, events: Sequence[JsonObject]) -> Received:
        """Log events, and let them change the next lists. An event whose id was received before counts once.

        Args:
            events: event_id, user_id, item_id, and optionally timestamp (seconds since 1970) and others of `LOGGED`;
                `user` and `item` are records of a user or an item that is new.

        Raises:
            DataError: For an unknown user or item without a record, with every fault; no event is then accepted.
            OutputError: If the log cannot be written; no event is then accepted.
        """
        fresh = self._events.fresh(list({event["event_id"]: event for event in events}.values()))
        self._check(fresh)
        warnings = self._add_records_of(fresh)
        with self._changing:
            now = self._events.clock.now()
            stamped = [
                {
                    **{name: event[name] for name in LOGGED if name in event},
                    **_variant(assign(self.config.experiments, event["user_id"])),
                    "timestamp": event.get("timestamp", now),
                    "received": now,
                }
                for event in self._events.fresh(fresh)  # one can have come a second time meanwhile
            ]
            self._events.add(stamped)
        return Received(len(stamped), len(events) - len(stamped), warnings)

    def _add_records_of(self, events: Collection[JsonObject]) -> list[str]:
        """Add the users and the unknown items whose records events bring."""
        items = {event["item_id"]: event["item"] for event in events if event.get("item") is not None}
        users = {event["user_id"]: event["user"] for event in events if event.get("user") is not None}
        with self._computing if self.served.without_record("item", items) else nullcontext():
            unknown = self.served.without_record("item", items)  # another change can have added some meanwhile
            return self._change({"items": [*unknown.items()], "users": self._replacing(users)})

    def _replacing(self, users: Mapping[Id, JsonObject]) -> list[tuple[Id, JsonObject]]:
        """Return records of users without those that have no value although the user is known: they replace none."""
        known = are_known(self.served, "user", [*users])
        return [pair for pair, there in zip(users.items(), known, strict=True) if not there or has_values(pair[1])]

    def _check(self, events: Sequence[JsonObject]) -> None:
        """Raise DataError for events of users or items that neither the model nor a record of theirs knows."""
        faults = []
        for side in SIDES:
            ids = [event[f"{side}_id"] for event in events]
            known = self.served.knows(side, ids)
            for n, (one, is_known) in enumerate(zip(ids, known, strict=True)):
                there = is_known or events[n].get(side) is not None
                if not there and not (side == "user" and (one in self.served.users or one in self.histories)):
                    what, hint = f"no {side} has the id {show(one)}.", f"Give its record as '{side}'."
                    faults.append(Fault(f"/events/{n}/{side}_id", what, hint, "unknown id"))
        if faults:
            raise DataError(faults)

    # Records

    def put_items(self, records: dict[Id, JsonObject]) -> list[str]:
        """Add or change items. Their vectors are computed, and the next list can contain them.

        Returns:
            What the model cannot read of them.

        Raises:
            DataError: For invalid records.
            InputError: If the model can score only the items that it was fitted on.
        """
        return self._change({"items": [*records.items()]})

    def put_users(self, records: dict[Id, JsonObject]) -> list[str]:
        """Add or change users.

        Returns:
            What the model cannot read of them.

        Raises:
            DataError: For invalid records.
        """
        return self._change({"users": self._replacing(records)})

    def remove_items(self, ids: Sequence[Id]) -> None:
        """Leave items out of all lists.

        Raises:
            DataError: For unknown ids.
        """
        with self._changing:
            self.served.recommender.model.rows_of("item", ids)
            self._change({"removed_items": list(ids)})

    def remove_user(self, user_id: Id) -> bool:
        """Forget the record and the events of a user that came since the model was loaded. Whether there were any."""
        with self._changing:
            found = user_id in self.served.users or user_id in self.histories
            if found:
                self._change({"removed_users": [user_id], "time": self._events.clock.now()})
                self.histories.forget(user_id)
        return found

    def _change(self, change: JsonObject, *, live: bool = True) -> list[str]:
        """Log a change of records, and let the changed version serve. An error leaves everything as it is.

        Args:
            change: As for `Served.with_change`. With `removed_users` also `time`: earlier events are forgotten.
            live: Whether requests are answered meanwhile: this then gives way to them, and computes what the first list
                of changed items would otherwise wait for.

        Returns:
            What the model cannot read of the records.
        """
        if not any(change.values()):
            return []
        with self._computing if change.get("items") else nullcontext():
            with giving_way() if live else nullcontext():
                change, notes = self._readable(self.served, change)
                wider, warnings = self.served.prepare(change)
                others = self.variants.prepare(change)
                if wider is not None and live:
                    warm_up(self.served.with_change(change, wider))
            self._apply(change, wider, others)
        return [*notes, *warnings]

    def _apply(self, change: JsonObject, wider: Recommender | None, others: dict[str, Recommender | None]) -> None:
        """Log a change, and let the changed version serve. wider, others: with the items of the change."""
        with self._changing:
            change, _ = self._readable(self.served, change)  # a version that opens other files can serve by now
            if self._changes is not None:
                self._changes.append([{"time": time.time(), **change}])
            self.served = self.served.with_change(change, wider)
            self.variants.change(change, others)

    def _readable(self, version: Served, change: JsonObject) -> tuple[JsonObject, list[str]]:
        """Return a change whose records are readable by a version, and the note."""
        kept, notes = dict(change), []
        for side in SIDES:
            pairs = change.get(f"{side}s", ())
            records, own = self.readable(version, side, pairs)
            if own:
                kept[f"{side}s"], notes = list(zip((key for key, _ in pairs), records, strict=True)), own
        return kept, notes

    # Versions

    def versions(self) -> tuple[Served, Served | None]:
        """Return the version that serves and the one before the last reload."""
        with self._changing:
            return self.served, self.previous

    def reload(self, folder: Path) -> Served:
        """Load another version of the model, warm it up, and let it serve. What users did since stays.

        Raises:
            ModelError: If the folder has no whole model; the present version then keeps serving.
            InputError: If its ids are of another type.
        """
        try:
            with giving_way():
                loaded = Served.of(self._load(folder))
                for side in SIDES:
                    if loaded.has_whole_ids(side) != self.served.has_whole_ids(side):
                        what = f"the ids of its {side}s are of another type than those of the model that serves."
                        raise InputError(Fault(str(folder), what, "Start a server of its own for it."))
            return self._exchange(loaded)
        except Exception:
            self.failed_reload = time.time()
            raise

    def rollback(self) -> Served:
        """Let the version before the last reload serve again. Raises InputError if there is none."""
        with self._computing:
            if self.previous is None:
                raise InputError(Fault("rollback", "no other version was loaded before.", kind="no version"))
            return self._exchange(self.previous)

    def _exchange(self, version: Served) -> Served:
        """Let another version serve, with the records that were put: they count, whatever it was trained on."""
        with self._computing:
            with giving_way():
                items = sorted(self.served.items.items())
                change, _ = self._readable(version, {"items": items, "users": [*self.served.users.items()]})
                wider, _ = version.prepare(change)
                changed = version.with_change({"items": change["items"]}, wider)
                warm_up(changed)
                load_encoders(changed)
                for query in list(self._recent):  # one by one: a batch would keep the processors from other requests
                    changed.lists([query], self.histories)  # errors are the clients': an item can be gone
            with self._changing:  # users and removed items can have changed meanwhile
                now = self.served
                users = now.users if self._files(now) == self._files(version) else self._users_for(version)
                self.previous, self.served = now, replace(changed, users=users, removed=now.removed)
                self.failed_reload = None
                return self.served

    def _users_for(self, version: Served) -> RecordMap:
        """Return the records of the present users as another version reads them."""
        change, _ = self._readable(version, {"users": [*self.served.users.items()]})
        return RecordMap().changed(dict(change["users"]))


def _named(listing: Listing | AnyrecError, assignment: Assignment | None, named: bool) -> Listing | AnyrecError:
    """Return a list with an id, the experiment and variant that it is of, and a note on pictures that were `named`."""
    if isinstance(listing, AnyrecError):
        return listing
    warnings = [*listing.warnings, NOTE] if named else listing.warnings
    return replace(listing, recommendation_id=uuid.uuid4().hex, warnings=warnings, **_variant(assignment))


def _variant(assignment: Assignment | None) -> dict[str, str]:
    """Return what lists and events say of the experiment that their user takes part in."""
    return {} if assignment is None else {"experiment": assignment.experiment, "variant": assignment.variant}
