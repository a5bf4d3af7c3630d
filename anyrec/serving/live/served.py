"""One version of a model with the records that were added to it, and its lists."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pyarrow as pa

from anyrec.core.errors import AnyrecError, DataError, Fault
from anyrec.core.once import Once
from anyrec.core.time_limit import check_time
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.ids import Side, rows_of
from anyrec.model.file_features import file_features
from anyrec.model.records import Records, changed_items
from anyrec.pipeline.answer import Answer
from anyrec.pipeline.chances import draws_last
from anyrec.pipeline.trace import events_as_json
from anyrec.recommender import Recommender
from anyrec.serving.explain import explain, explanation_as_json
from anyrec.serving.live.fallback import fallback_reasons
from anyrec.serving.live.files import names_files
from anyrec.serving.live.grouping import grouped
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.pages import runs
from anyrec.serving.live.query import Draws, Id, Listed, Listing, Query, page_of
from anyrec.serving.live.record_map import RecordMap

CONDITIONS, CONDITION_LENGTH, NAMED = 64, 10_000, 3
"""Conditions whose filters are kept ready, their most characters (a filter of 16 MB takes 60 MB), and ids in a note."""


@dataclass(frozen=True)
class Served:
    """One version of a model as it serves. A change of its records makes another one.

    Attributes:
        recommender: The model, with the items that were added.
        name: Its name.
        digest: Its id.
        loaded: When it was loaded, in seconds since 1970.
        users: The records of users that were added or changed, by id.
        items: The records of items that were added or changed, by id.
        removed: Ids of items that are not listed any more.
        file_features: Groups and features whose values name files, as `file_features` returns them.
    """

    recommender: Recommender
    name: str
    digest: str
    loaded: float = field(default_factory=time.time)
    users: RecordMap = field(default_factory=RecordMap)
    items: RecordMap = field(default_factory=RecordMap)
    removed: frozenset[Id] = frozenset()
    file_features: frozenset[str] = field(init=False, compare=False, repr=False)
    _filters: Callable[[str], Recommender] = field(init=False, compare=False, repr=False)
    _variants: Once[Served] = field(default_factory=lambda: Once[Served](), init=False, compare=False, repr=False)

    @staticmethod
    def of(recommender: Recommender) -> Served:
        """Return a model as it serves before any change of its records."""
        return Served(recommender, recommender.config.name, recommender.model.model_id)

    def __post_init__(self) -> None:
        # Nothing that a version keeps refers to the version, so that its memory is free when it is exchanged.
        object.__setattr__(self, "file_features", file_features(self.recommender.model))
        object.__setattr__(self, "_filters", lru_cache(CONDITIONS)(partial(_filtered, self.recommender)))

    def filtered_by(self, where: JsonObject) -> Recommender:
        """Return the recommender whose lists meet a condition."""
        text = _text(where)
        return self._filters(text) if len(text) <= CONDITION_LENGTH else _filtered(self.recommender, text)

    def changed_by(self, config: JsonObject) -> Served:
        """Return this version with changes of its config, as a variant of an experiment has them."""

        def changed() -> Served:
            return replace(self, recommender=self.recommender.with_config(config, progress=False))

        return self._variants.get(_text(config), changed)

    @property
    def draws(self) -> bool:
        """Whether lists have items that were drawn at random, whose probabilities are known."""
        pipeline = self.recommender.pipeline
        return pipeline is not None and draws_last(pipeline)

    def has_whole_ids(self, side: Side) -> bool:
        """Whether the ids of users or items are whole numbers; otherwise they are texts."""
        return pa.types.is_integer(self.recommender.dataset.ids(side).type)

    def rows(self, side: Side, ids: Iterable[Id]) -> np.ndarray:
        """Return (ids,) the rows of users or items in the model; -1 for those that it does not have."""
        known, whole = self.recommender.dataset.ids(side), self.has_whole_ids(side)
        same = [one if isinstance(one, int) == whole else None for one in ids]
        return rows_of(pa.array(same, known.type), known)

    def typed(self, side: Side, text: str) -> Id:
        """Return an id that a path names in the type of the model's ids."""
        digits = text.removeprefix("-")
        is_number = self.has_whole_ids(side) and digits.isascii() and digits.isdecimal() and len(digits) < 20
        return int(text) if is_number and -(2**63) <= int(text) < 2**63 else text

    def knows(self, side: Side, ids: Iterable[Id]) -> np.ndarray:
        """Return (ids,) bool, which users or items the model has a record of."""
        return self.rows(side, ids) >= 0

    def records(self, side: Side, ids: Sequence[Id], names: Sequence[str] | None = None) -> list[JsonObject]:
        """Return the features of known users or items: {group: {name: value}}, without absent values.

        Args:
            side: Which side's records.
            ids: Ids that the model knows.
            names: Names of features (`text.title`); None for all.
        """
        table = self.recommender.dataset.table(side)
        wanted = [name for name in self.feature_names(side) if names is None or name in names]
        if not wanted:
            return [{} for _ in ids]
        found: list[JsonObject] = []
        for row in table.select(wanted).take(pa.array(self.rows(side, ids))).to_pylist():
            record: JsonObject = {}
            for name, value in row.items():
                group, _, feature = name.partition(".")
                if value is not None:
                    record.setdefault(group, {})[feature] = _plain(value)
            found.append(record)
        return found

    def feature_names(self, side: Side) -> list[str]:
        """Return the names of the features that `records` has."""
        return [name for name in self.recommender.dataset.table(side).column_names if "." in name]

    def history_of(self, user_id: Id, most: int) -> list[Id]:
        """Return the latest items that a user had in training, oldest first; by id if the model keeps no order."""
        model, row = self.recommender.model, int(self.rows("user", [user_id])[0])
        if row < 0:
            return []
        if model.history is not None:
            items = [event["item"] for event in model.history[row].as_py() or ()]
        else:
            items = model.seen.take(np.array([row]))[1].tolist()
        return model.dataset.ids("item").take(pa.array(items[-most:], pa.int64())).to_pylist()

    def prepare(self, change: JsonObject) -> tuple[Recommender | None, list[str]]:
        """Read the records of a change, and compute the vectors of items with other records, which can take minutes.

        Args:
            change: As for `with_change`.

        Returns:
            The recommender with the items of the change, None if it has them all; and what the model cannot read.

        Raises:
            DataError: For invalid records.
            InputError: If the model can score only the items that it was fitted on.
        """
        items, users = dict(change.get("items", ())), dict(change.get("users", ()))
        wider, warnings = None, []
        if items:
            read = self.recommender.read_records("item", [{"item_id": item, **one} for item, one in items.items()])
            other = changed_items(self.recommender.dataset, read, self.file_features)
            wider = self.recommender.add_items(other, replace_known=True) if len(other.ids) else None
            warnings += read.context.warnings  # also on files, which only the encoders open
        if users:
            reader = wider or self.recommender  # users can have lists of the items that come with them
            read = _users(reader, [{"user_id": user, **one} for user, one in users.items()])
            if any(names_files(one, self.file_features) for one in users.values()):
                reader.model.represent(read)
            warnings += read.context.warnings
        return wider, warnings

    def with_change(self, change: JsonObject, wider: Recommender | None) -> Served:
        """Return this version with a change of records.

        Args:
            change: Any of `items` and `users`, pairs of an id and a record; `removed_items` and `removed_users`, ids.
            wider: The recommender with the items of the change, as `prepare` returns it.
        """
        items, users = dict(change.get("items", ())), dict(change.get("users", ()))
        return replace(
            self,
            recommender=wider or self.recommender,
            items=self.items.changed(items),
            users=self.users.changed(users, change.get("removed_users", ())),
            removed=(self.removed - items.keys()) | set(change.get("removed_items", ())),
        )

    def without_record(self, side: Side, records: Mapping[Id, JsonObject]) -> dict[Id, JsonObject]:
        """Return those of some records, by id, of which the model has none."""
        known = self.knows(side, records)
        return {key: record for (key, record), has in zip(records.items(), known, strict=True) if not has}

    def removed_rows(self) -> np.ndarray:
        """Return the rows of the items that are not listed any more."""
        rows = self.rows("item", self.removed)
        return rows[rows >= 0]

    def lists(self, queries: Sequence[Query], histories: Histories) -> list[Listing | AnyrecError]:
        """Return the list, or the error, of each query. Queries that have enough in common are scored together."""
        answers: dict[int, Listing | AnyrecError] = {}
        rows = iter(self.knows("user", [query.user_id for query in queries if query.user_id is not None]).tolist())
        is_known = [query.user_id is not None and next(rows) for query in queries]
        groups, first = grouped(queries, is_known, self.users, self.draws, self.recommender.stages().steady)
        for places in groups:
            check_time()
            group = [queries[n] for n in places]
            found = self._answers(group, histories, [is_known[n] for n in places])
            answers |= dict(zip(places, found, strict=True))
        return [answers[one] for one in first]

    def _answers(self, queries: list[Query], histories: Histories, known: list[bool]) -> list[Listing | AnyrecError]:
        """Return the lists of queries that are scored together. If one has an error, each is scored alone.

        Likewise if the model cannot read all of their records, since its notes do not say of which.
        """
        try:
            found = self._answer(queries, histories, known)
            if found is not None:
                return [*found]
        except AnyrecError as error:
            if len(queries) == 1:
                return [error]
        return [self._answers([query], histories, [one])[0] for query, one in zip(queries, known, strict=True)]

    def _answer(self, queries: list[Query], histories: Histories, known: list[bool]) -> list[Listing] | None:
        """Return the lists of queries that are scored together; None if there are notes on one of their records."""
        if not queries[0].pictures:
            records = self.people(queries, histories, known)
            if len(queries) > 1 and records.table is not None and records.context.warnings:
                return None
            return self._lists(queries, records)
        with TemporaryDirectory() as folder:  # such a query is alone
            for n, (_, picture) in enumerate(queries[0].pictures):
                (Path(folder) / str(n)).write_bytes(picture)
            records = self.people(queries, histories, known)
            records.context = replace(records.context, root=Path(folder), allow_outside_root=False, open_files=True)
            return self._lists(queries, records)

    def _lists(self, queries: list[Query], records: Records) -> list[Listing]:
        """Return the lists of queries whose persons were read."""
        first, recommender = queries[0], self.recommender
        if first.where is not None:
            recommender = self.filtered_by(first.where)
        *before, last = runs(first, recommender.stages().steady)
        shown: list[Id] = []  # on the pages before, if each is a list of its own: then there is one query
        for run in before:
            table = self._answered(recommender, records, run, {*shown, *first.exclude} - {*run.exclude}).table
            shown += [one for one in table["item_id"].to_pylist() if one not in run.exclude][: run.k]
        answer = self._answered(recommender, records, last, {*shown, *first.exclude} - {*last.exclude})
        reasons = self._reasons(recommender, records, answer) if first.explain else [None] * len(answer.table)
        lists: dict[Id, list[Listed]] = {user: [] for user in records.ids.to_pylist()}
        for row, reason in zip(answer.table.to_pylist(), reasons, strict=True):
            lists[row["user_id"]].append(Listed(row["item_id"], row["score"], row["rank"], reason))
        # The notes on how records were read can be of another query.
        warnings = [one for one in answer.warnings if len(queries) == 1 or one not in records.context.warnings]
        warnings += self._left_out(first)
        latency = {stage: round(value, 3) for stage, value in answer.latency.items()}
        trace = None if answer.trace is None else events_as_json(answer.trace)
        asked = queries if last == first else [last]
        draws = _draws(answer) if self.draws and not before else {}
        listed = zip(asked, lists.items(), fallback_reasons(recommender.model, records), strict=True)
        return [
            Listing(page_of(items, query, len(shown)), self, fallback, latency, warnings, trace, draws=draws.get(user))
            for query, (user, items), fallback in listed
        ]

    def _answered(self, recommender: Recommender, records: Records, query: Query, left_out: Collection[Id]) -> Answer:
        """Return what the pipeline answers to a query whose persons were read. left_out: items not to list."""
        mask = self.listable(query)
        if left_out:
            rows = self.rows("item", left_out)
            mask = np.ones(len(recommender.dataset.items), bool) if mask is None else mask
            mask[rows[rows >= 0]] = False
        return recommender.stages().answer(
            recommender.model,
            records,
            min(query.wanted, len(recommender.dataset.items)),
            candidates=mask,
            exclude_seen=not query.include_seen,
            context=query.context,
            now=query.now,
            trace=query.trace,
        )

    def _reasons(self, recommender: Recommender, records: Records, answer: Answer) -> list[JsonObject]:
        """Return the reasons for each item of an answer."""
        rows = recommender.model.rows_of("item", answer.table.column("item_id")).tolist()
        found = explain(recommender, records, answer.table)
        return [explanation_as_json(recommender.dataset, row, one) for row, one in zip(rows, found, strict=True)]

    def people(self, queries: list[Query], histories: Histories, known: list[bool]) -> Records:
        """Return the users of queries as the model reads them, with their records and events since the training.

        Args:
            queries: The people who get lists. A user with a record is not together with trained ones who have none.
            histories: The events of users.
            known: (queries,) whether the model was trained on the user.
        """
        ids, records, interactions = [], [], []
        names = iter(self.anonymous(sum(query.user_id is None for query in queries), fresh=queries[0].now is None))
        for query, is_known in zip(queries, known, strict=True):
            user = next(names) if query.user_id is None else query.user_id
            own = self.users.get(user) if query.user is None else query.user
            if query.pictures:
                if own is None:
                    own = self.records("user", [user])[0] if is_known else {}
                own = {**own, "image": {name: [str(n)] for n, (name, _) in enumerate(query.pictures)}}
            ids.append(user)
            if own is not None or not is_known:  # then the others that are scored together have records as well
                records.append({"user_id": user, **(own or {})})
            interactions += histories.of(query.user_id)
            interactions += [{"user_id": user, "item_id": item} for item in query.history]
        return _users(self.recommender, records or ids, interactions or None)

    def anonymous(self, count: int, *, fresh: bool = False) -> list[Id]:
        """Return ids that no user of the model has, of the type of their ids.

        Args:
            count: How many.
            fresh: Not those of other requests, so that random draws differ; otherwise the same for each request.
        """
        first = time.time_ns() if fresh else 0
        names: Iterator[Id] = map("anonymous{}".format, itertools.count(first))
        if self.has_whole_ids("user"):
            names = itertools.count(-1 - first, -1)
        found: list[Id] = []
        while len(found) < count:
            some = list(itertools.islice(names, count - len(found)))
            found += [name for name, known in zip(some, self.knows("user", some), strict=True) if not known]
        return found

    def listable(self, query: Query) -> np.ndarray | None:
        """Return (items,) bool, the items that a query's list can contain; None for all."""
        candidates = query.candidates
        if candidates is not None and (known := self.knows("item", candidates)).any():  # else the error names them
            candidates = [one for one, there in zip(candidates, known, strict=True) if there]
        mask = self.recommender.model.mask_of(candidates)
        gone = self.rows("item", self.removed.union(query.exclude if self.draws else ()))
        if len(gone):
            mask = np.ones(len(self.recommender.dataset.items), bool) if mask is None else mask
            mask[gone[gone >= 0]] = False
        return mask

    def _left_out(self, query: Query) -> list[str]:
        """Return a note on the candidates of a query that are unknown or removed; none if there are none."""
        candidates = query.candidates or ()
        known = self.knows("item", candidates)
        gone = [one for one, there in zip(candidates, known, strict=True) if not there or one in self.removed]
        if not gone:
            return []
        named = ", ".join(show(one) for one in gone[:NAMED]) + (", ..." if len(gone) > NAMED else "")
        return [f"/candidates: {len(gone):,} unknown or removed items were left out: {named}."]


def _users(reader: Recommender, source: Sequence[Id | JsonObject], interactions: object = None) -> Records:
    """Read users, who may be unknown: `fallback_reason` of a list says it, and an event can come."""
    faults: list[Fault] = []
    read = reader.read_records("user", source, interactions=interactions, faults=faults)
    faults = [one for one in faults if one.kind != "unknown user"]
    if faults and read.context.strict:
        raise DataError(faults)
    read.context.warnings += [str(one) for one in faults]
    return read


def _filtered(recommender: Recommender, where: str) -> Recommender:
    return recommender.filtered(msgspec.json.decode(where))


def _text(value: JsonObject) -> str:
    """Return an object as JSON, the same for equal objects."""
    return msgspec.json.encode(value, order="sorted").decode()


def _draws(answer: Answer) -> dict[Id, Draws]:
    """Return the draws of each user's list."""
    found: dict[Id, Draws] = {}
    for row in () if answer.drawn is None else answer.drawn.to_pylist():
        own = found.setdefault(row["user_id"], Draws(row["user_id"], row["seed"], []))
        own.slots.append((row["rank"], row["item_id"], row["propensity"]))
    return found


def _plain(value: object) -> object:
    """Return a value as JSON has it: times as ISO 8601."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, dt.datetime) else value
