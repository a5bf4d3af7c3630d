"""Rules and filters applied to lists that were made elsewhere, without a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from anyrec.core.config import Config, DataConfig, PipelineConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError, Fault, InputError
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.dataset import Dataset
from anyrec.data.formats.frames import DataFrame, as_arrow, is_table
from anyrec.data.formats.parts import no_records
from anyrec.data.histories import events_of, history_column
from anyrec.data.ids import SIDES, rows_of
from anyrec.data.labels import label_interactions
from anyrec.data.pairs import Pairs
from anyrec.data.partial import (
    ids_of,
    of_other_type,
    request_of,
    request_of_document,
    request_of_tables,
    type_name,
)
from anyrec.model.arguments import checked_context, checked_k, checked_now, log
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.model.records import completed
from anyrec.pipeline.answer import as_table
from anyrec.pipeline.candidate_lists import lists_of_ranks
from anyrec.pipeline.contracts import Lists, Request, Rule
from anyrec.pipeline.draws import seed_of
from anyrec.pipeline.pipeline import RULES, Pipeline

EMPTY = Dataset(no_records("users"), no_records("items"), no_records("interactions"))
OPTIONS = DataConfig()


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadyData(ModelData):
    """What rules read of a model, for lists without one: the records, the histories and the vectors of the items.

    Attributes:
        vectors_of_items: (items, dim) float32; None without vectors.
    """

    vectors_of_items: Tensor | None = None

    def representations(self, side: Literal["item"]) -> Tensor:
        """Return the vectors of the items, (items, dim)."""
        if self.vectors_of_items is None:
            raise InputError(Fault("item_vectors", "a rule compares item vectors, and there are none.", "Give them."))
        return self.vectors_of_items

    def vectors(self, side: Literal["item"], representations: Tensor) -> Tensor:
        """Return `representations: (rows, dim)`."""
        return representations

    def with_histories(self) -> ReadyData:
        """Return this object, which has the histories already."""
        return self


def apply_rules(
    lists: DataFrame | Sequence[JsonObject],
    items: object,
    users: object = None,
    rules: Sequence[Rule | JsonObject] = (),
    *,
    k: int | None = None,
    interactions: object = None,
    item_vectors: np.ndarray | None = None,
    context: JsonObject | None = None,
    now: int | None = None,
    registry: Registry | None = None,
) -> pa.Table:
    """Apply filters, and then rules, to ready lists as the pipeline of a model does. A rule that fails raises.

    Args:
        lists: A table or dicts with user_id, item_id and, if there are, score and rank; by default best first.
        items: The records of all items of the lists: dicts, a table or a Dataset.
        users: The records of the users, for rules on user features.
        rules: Rules (`DiversityRule(...)`), or objects of `type` and options as in `pipeline.rerank.rules`.
        k: The number of items of each list; by default all that the filters allow.
        interactions: What users did, a table or dicts, for rules on histories. Those of others are not read.
        item_vectors: (items, dim) vectors in the order of `items`, for `mmr` and `dpp`.
        context: Values of the moment by name.
        now: The time in microseconds since 1970; by default the current time.
        registry: The rules to choose from; by default the built-in and the installed ones.

    Returns:
        user_id, item_id, score, rank (from 1), as `Recommender.recommend` returns.

    Raises:
        AnyrecError: With every option that does not fit the records, or every fault of these, or if a rule failed.

    Example:
        >>> items = [{"item_id": n, "categorical": {"genre": "jazz" if n < 3 else "folk"}} for n in range(5)]
        >>> lists = [{"user_id": "ann", "item_id": n, "score": 1 - n / 10} for n in range(5)]
        >>> rule = DiversityRule(method="max_per_category", feature="item.categorical.genre", max=2)
        >>> apply_rules(lists, items, rules=[rule], k=4).column("item_id").to_pylist()
        [0, 1, 3, 4]
        >>> never = {"type": "availability", "items": [0], "mode": "never"}
        >>> apply_rules(lists, items, rules=[never, rule], k=3).column("item_id").to_pylist()
        [1, 2, 3]
    """
    data = _records("item", items)
    ids, made = _read_lists(lists, data.ids("item"))
    model, seen = _model(ids, data, users, interactions, item_vectors, registry or discover())
    pipeline = _pipeline(model, rules)
    request = _request(model, ids, seen, checked_context(context), checked_now(now))
    result = pipeline.rerank(request, made, made.items.shape[1] if k is None else checked_k(k))
    log(None, request.warnings)
    return as_table(request, result)


def _request(
    model: ReadyData, ids: pa.Array, seen: tuple[np.ndarray, np.ndarray], context: JsonObject, now: int | None
) -> Request:
    """Return the request of all users of the lists."""
    moment = time.time_ns() // 1000 if now is None else now
    return Request(
        cast(FittedModel, model),  # rules read no more of a model than `ReadyData` has
        ids,
        model.dataset.users,
        np.arange(len(ids)),
        torch.empty(len(ids), 0),
        seen,
        context,
        moment,
        np.random.default_rng([0, moment % 2**64]),
        model.history,
        seed=seed_of(0, now, moment),
    )


def _model(
    ids: pa.Array, data: Dataset, users: object, interactions: object, vectors: np.ndarray | None, registry: Registry
) -> tuple[ReadyData, tuple[np.ndarray, np.ndarray]]:
    """Return what rules read of a model, and the pairs of user row and item row in the users' histories.

    Args:
        ids: (users,) the users of the lists.
        data: The items.
        users: As for `apply_rules`.
        interactions: As for `apply_rules`.
        vectors: (items, dim) vectors of the items, or None.
        registry: The components.

    Raises:
        DataError: If records have faults, or a user of the lists has none.
    """
    table = pa.table({"user_id": ids})
    if users is not None:
        known = _records("user", users, data)
        table = completed(known.users, table, _rows_of_all(ids, known.ids("user"), "user"))
    data = replace(data, users=table, interactions=no_records("interactions"))
    if interactions is not None:
        data = replace(data, interactions=_interactions(interactions, data))
    history, seen = _histories(data)
    found = None if vectors is None else _checked_vectors(vectors, len(data.items))
    model = ReadyData(
        config=Config(),
        registry=registry,
        dataset=data,
        has_vectors=found is not None,
        history=history,
        vectors_of_items=found,
    )
    return model, seen


def _records(side: Literal["user", "item"], source: object, known: Dataset = EMPTY) -> Dataset:
    """Return records given in Python as a Dataset. Raises DataError if they have faults, or are ids alone."""
    found = request_of(side, source, known, OPTIONS)
    if isinstance(found, Dataset):
        return found
    if not len(found):
        return EMPTY
    raise DataError(Fault(f"{side}s", "expected records; found ids.", f"Write [{{'{side}_id': ...}}].", "shape"))


def _interactions(source: object, data: Dataset) -> pa.Table:
    """Return interactions of any users with any items, a table or dicts. Raises DataError if they have faults."""
    if is_table(source):
        found = request_of_tables({"interactions": source}, data, OPTIONS, data.root)
    elif isinstance(source, Sequence) and not isinstance(source, str):
        found = request_of_document({"interactions": list(source)}, data, OPTIONS, data.root)
    else:
        what = f"expected a table or a list of dicts; found {show(source)}."
        raise DataError(Fault("interactions", what, "Write [{'user_id': 1, 'item_id': 2}].", "shape"))
    for side in SIDES:
        ids = found.interactions.column(f"{side}_id").combine_chunks()
        if of_other_type(ids, data.ids(side)):
            what = f"the ids of the interactions are {type_name(ids)}, those of {side}s {type_name(data.ids(side))}."
            raise DataError(Fault(f"interactions.{side}_id", what, "Write all ids of one type.", "id type"))
    return found.interactions


def _read_lists(lists: DataFrame | Sequence[JsonObject], item_ids: pa.Array) -> tuple[pa.Array, Lists]:
    """Return (users,) the ids of the users in their order, and their lists.

    Args:
        lists: As for `apply_rules`.
        item_ids: (items,) the ids of all items.

    Raises:
        DataError: If a column is missing or has another type, or for an item without a record or twice in a list.
    """
    table = _as_table(lists)
    owners_ids, wanted = ids_of("user", table.column("user_id")), ids_of("item", table.column("item_id"))
    users = owners_ids.unique()
    owners, items = rows_of(owners_ids, users), _rows_of_all(wanted, item_ids, "item")
    ranks = _numbers(table, "rank")
    order = np.lexsort((np.arange(len(items)) if ranks is None else ranks, owners))
    owners, items = owners[order], items[order]
    places = np.arange(len(items)) - np.searchsorted(owners, owners) + 1
    keys, counts = np.unique(owners * max(1, len(item_ids)) + items, return_counts=True)
    if (counts > 1).any():
        user, item = divmod(int(keys[counts > 1][0]), len(item_ids))
        what = f"the list of {show(users[user].as_py())} has the item {show(item_ids[item].as_py())} twice."
        raise DataError(Fault("lists", what, "Give each item of a list once.", "duplicate"))
    scores = _numbers(table, "score")
    scores = 1.0 - places if scores is None else scores[order]
    return users, lists_of_ranks(owners, items, scores.astype(np.float32), places, len(users))


def _as_table(lists: object) -> pa.Table:
    """Return the lists as a table with user_id and item_id. Raises DataError if they are something else."""
    hint = "Give a table or a list of dicts with user_id, item_id and score, as `recommend` returns."
    if is_table(lists):
        table = as_arrow(lists)
    elif isinstance(lists, Sequence) and all(isinstance(one, dict) for one in lists):
        names = list(dict.fromkeys(name for one in lists for name in one)) or ["user_id", "item_id"]
        columns = {name: [one.get(name) for one in lists] for name in names}
        for side in ("user", "item"):
            if f"{side}_id" in columns:
                columns[f"{side}_id"] = ids_of(side, columns[f"{side}_id"])
        try:
            table = pa.table(columns)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(Fault("lists", f"a column has values of several types: {error}.", hint, "shape")) from None
    else:
        raise DataError(Fault("lists", f"found {show(lists)}.", hint, "shape"))
    missing = [name for name in ("user_id", "item_id") if name not in table.column_names]
    if missing:
        what = f"the column {' and '.join(missing)} is missing; found {', '.join(table.column_names) or 'none'}."
        raise DataError(Fault("lists", what, hint, "shape"))
    return table


def _numbers(table: pa.Table, name: str) -> np.ndarray | None:
    """Return a column as (rows,) finite float64; None if there is none. Raises DataError for another value."""
    if name not in table.column_names:
        return None
    column = table.column(name)
    try:
        values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(Fault(f"lists.{name}", f"expected numbers; found {column.type}.", kind="shape")) from None
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError(Fault(f"lists.{name}", f"row {row}: found {show(column[row].as_py())}.", kind="bad value"))
    return values


def _rows_of_all(ids: pa.Array, known: pa.Array, side: str) -> np.ndarray:
    """Return (ids,) the row of each id. Raises DataError with ids that are not known."""
    if of_other_type(ids, known) and len(known):
        what = f"the ids of the lists are {type_name(ids)}, those of `{side}s` {type_name(known)}."
        raise DataError(Fault(f"lists.{side}_id", what, "Write all ids of one type.", "id type"))
    rows = rows_of(ids, known)
    unknown = ids.filter(pa.array(rows < 0)).unique().to_pylist()
    if unknown:
        what = "`{}s` has no record of {}".format(side, ", ".join(show(one) for one in unknown[:3]))
        what += "." if len(unknown) <= 3 else f" and {len(unknown) - 3:,} others."
        raise DataError(Fault(f"lists.{side}_id", what, f"Give a record of each {side}.", "unknown id"))
    return rows


def _histories(data: Dataset) -> tuple[pa.Array | None, tuple[np.ndarray, np.ndarray]]:
    """Return the histories of the users, None without interactions, and the pairs of user row and item row in them."""
    if not len(data.interactions):
        return None, (np.empty(0, np.int64), np.empty(0, np.int64))
    rows = np.flatnonzero((data.user_rows >= 0) & (data.item_rows >= 0))
    negative = label_interactions(data, OPTIONS, checked=False).negative
    history = history_column(data, events_of(data, rows, negative, None))
    pairs = Pairs.of(data.user_rows[rows], data.item_rows[rows], len(data.users))
    return history, pairs.take(np.arange(len(data.users)))


def _pipeline(model: ReadyData, rules: Sequence[Rule | JsonObject]) -> Pipeline:
    """Return a pipeline with the rules, created if they are objects. Raises ConfigError with all faults."""
    made: list[Rule] = []
    faults: list[Fault] = []
    for number, rule in enumerate(rules or ()):
        where = f"rules/{number}"
        if isinstance(rule, Rule):
            made.append(rule)
        elif not isinstance(rule, dict) or not isinstance(rule.get("type"), str):
            what = f"expected a rule or an object with a type; found {show(rule)}."
            faults.append(Fault(where, what, "Write {'type': 'where', ...}.", "shape"))
        else:
            options = {key: value for key, value in rule.items() if key != "type"}
            try:
                params = model.registry.params("rule", rule["type"], options, where)
                made.append(model.registry.get("rule", rule["type"], f"{where}/type")(params))
            except ConfigError as error:
                faults += error.faults
    if faults:
        raise ConfigError(faults)
    pipeline = Pipeline(PipelineConfig(strict=True), model.registry).with_rules(made)
    try:
        pipeline.check(model)
    except ConfigError as error:  # its places are those in a config
        raise ConfigError([replace(one, where=one.where.replace(RULES, "rules", 1)) for one in error.faults]) from None
    return pipeline


def _checked_vectors(vectors: np.ndarray, items: int) -> Tensor:
    """Return vectors (items, dim) as a float32 tensor. Raises DataError for another shape or a value not finite."""
    try:
        found = np.asarray(vectors, np.float32)
    except (TypeError, ValueError):
        found = np.empty(0, np.float32)
    if found.ndim != 2 or len(found) != items or not np.isfinite(found).all():
        what = f"expected ({items}, dim) finite numbers, one row for each of `items`; found {found.shape}."
        raise DataError(Fault("item_vectors", what, kind="shape"))
    return torch.from_numpy(found)
