"""What a form for a new person or item asks: the features of a model with their known values."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import DataError, Fault, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.data.ids import Side
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.summary import is_present
from anyrec.model.fitted import FittedModel
from anyrec.recommender import Recommender

MOST_VALUES = 500
"""Known values of a category that are listed, the most frequent ones."""
EXAMPLES = 3
EXAMPLE_LENGTH = 200
"""Texts that are given as examples, and their most characters."""


def form_of(recommender: Recommender, side: Side) -> list[JsonObject]:
    """Return the features that a person or an item can have.

    Args:
        recommender: A fitted recommender.
        side: Whose features.

    Returns:
        For each feature its `name` (`categorical.job`), `kind` (`choice`, `number`, `text`, `picture`, `numbers`,
        `times`, `items` or `other`), `many` if it takes a list, the fraction of records that have it (`present`), and
        by kind: the known `values`, most frequent first, with their total number `known`; `min`, `max` and `median`;
        `examples`.
    """
    dataset = recommender.dataset
    return [
        {"name": name, **_field(name.split(".")[0], dataset.table(side).column(name).combine_chunks())}
        for name in dataset.features(side)
    ]


def values_with(model: FittedModel, side: Side, feature: str, words: str, k: int) -> JsonObject:
    """Return the known values of a category that contain some letters, for a field with more values than a form lists.

    Args:
        model: A model.
        side: Whose feature it is.
        feature: A categorical feature (`categorical.job`).
        words: Letters that the values contain, in upper or lower case.
        k: Maximum number of values.

    Returns:
        `values`: those that begin with the letters first, then the most frequent ones; `total`: how many there are.

    Raises:
        DataError: If there is no such feature.
    """
    features = [name for name in model.dataset.features(side) if name.startswith("categorical.")]
    if feature not in features:
        hint = did_you_mean(feature, features)
        raise DataError([Fault("/feature", f"a {side} has no categorical feature '{feature}'.", hint, "feature")])
    values = _frequent(model, side, feature)
    found = values.filter(pc.match_substring(values, words, ignore_case=True))
    begins = pc.starts_with(found, words, ignore_case=True)
    best = pa.concat_arrays([found.filter(begins), found.filter(pc.invert(begins))])
    return {"values": best.slice(0, k).to_pylist(), "total": len(found)}


@lru_cache(16)
def _frequent(model: FittedModel, side: Side, feature: str) -> pa.Array:
    """Return the values of a category as texts, the most frequent first."""
    values, _ = flat_with_nulls(model.dataset.table(side).column(feature).combine_chunks())
    counted = pc.value_counts(values.drop_null().cast(pa.string()))
    order = np.argsort(-counted.field("counts").to_numpy(), kind="stable")
    return counted.field("values").take(pa.array(order))


def _field(group: str, column: pa.Array) -> JsonObject:
    listed = pa.types.is_list(column.type)
    there = is_present(column)
    values, _ = flat_with_nulls(column)
    values = values.filter(pa.array(is_present(values)))
    about: JsonObject = {"many": listed, "present": float(there.mean()) if len(there) else 0.0}
    if group == "categorical":
        return {**about, "kind": "choice", **_choices(values)}
    if group == "text":
        examples = [one[:EXAMPLE_LENGTH] for one in values.slice(0, EXAMPLES).to_pylist()]
        return {**about, "kind": "text", "examples": examples}
    if group == "image":
        return {**about, "kind": "picture"}
    if group == "continuous":
        return {**about, "kind": "numbers" if listed else "number", **_span(values)}
    if group == "temporal" and pa.types.is_timestamp(values.type):
        return {**about, "kind": "times"}
    if group == "temporal" and pa.types.is_floating(values.type):
        return {**about, "kind": "numbers", **_span(values)}
    return {**about, "kind": "items" if group == "temporal" else "other"}


def _choices(values: pa.Array) -> JsonObject:
    counted = pc.value_counts(values.cast(pa.string()))
    order = np.argsort(-counted.field("counts").to_numpy(), kind="stable")[:MOST_VALUES]
    return {"values": counted.field("values").take(pa.array(order)).to_pylist(), "known": len(counted)}


def _span(values: pa.Array) -> JsonObject:
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return {"min": None, "max": None, "median": None}
    return {"min": float(numbers.min()), "max": float(numbers.max()), "median": float(np.median(numbers))}
