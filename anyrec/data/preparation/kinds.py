"""Preparations by name, each made of the options and the state of a saved encoder: the form that an export has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from anyrec.core.columns import Arrays, FlatLists, PreparedColumn
from anyrec.core.context import Context
from anyrec.core.types import JsonObject
from anyrec.data.preparation.aggregates import ItemAggregates
from anyrec.data.preparation.categories import categories_of
from anyrec.data.preparation.events import events_of_users, items_of_users, last_events
from anyrec.data.preparation.ids import places_of_ids, places_of_listed_ids
from anyrec.data.preparation.image_arrays import image_lists, middle_square, resized_middle
from anyrec.data.preparation.numbers import scaling_of, standardised
from anyrec.data.preparation.sequences import last_numbers, sequence_statistics, summarised_times
from anyrec.data.preparation.text_statistics import statistics_of
from anyrec.data.preparation.tokens import joined_tokens, tokenizer_of, tokens_of_each
from anyrec.data.preparation.visual import descriptors
from anyrec.data.preparation.words import known_terms

Preparation: TypeAlias = Callable[[pa.Array, Context], Arrays | PreparedColumn]
"""Prepares a column (rows,), with the settings of its request."""


def _identity(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, _: places_of_ids(column, state["vocabulary"])


def _item_ids(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, _: places_of_listed_ids(column, state["vocabulary"])


def _categorical(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, _: categories_of(column, state["vocabulary"], params["hash_buckets"])


def _continuous(params: JsonObject, state: JsonObject) -> Preparation:
    mean, deviation = scaling_of(state, int(state["width"]))
    return lambda column, _: standardised(column, mean, deviation, params["clip"])


def _text_statistics(params: JsonObject, state: JsonObject) -> Preparation:
    numbers = _continuous(params, state)
    return lambda column, context: numbers(statistics_of(column), context)


def _sequence(params: JsonObject, state: JsonObject) -> Preparation:
    (mean,), (deviation,) = scaling_of({name: [state[name]] for name in ("mean", "deviation")}, 1)
    if params["pooling"] == "statistics":
        return lambda column, _: sequence_statistics(column, mean, deviation, params["clip"])
    return lambda column, _: last_numbers(column, mean, deviation, params["clip"], params["max_length"])


def _timestamps(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, _: summarised_times(column, int(state["newest"]))


def _hashed(params: JsonObject, state: JsonObject) -> Preparation:
    known = np.asarray(state["terms"])
    return lambda column, _: known_terms(column, known, params["buckets"], params["ngrams"], params["max_words"])


def _sentence(params: JsonObject, state: JsonObject) -> Preparation:
    tokenizer = tokenizer_of(state["tokenizer"], int(state["most"]))
    prepare: Callable[..., FlatLists | PreparedColumn] = tokens_of_each if params["frozen"] else joined_tokens
    return lambda column, _: prepare(column, tokenizer)


def _images(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, context: image_lists(column, context, params["size"])


def _clip_images(params: JsonObject, state: JsonObject) -> Preparation:
    fit = resized_middle if params["frozen"] else middle_square
    return lambda column, context: image_lists(column, context, int(state["size"]), fit)


def _visual_descriptor(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, context: descriptors(column, context, **params)


def _history(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, _: last_events(events_of_users(column, state["kinds"]), params["window"])


def _set(params: JsonObject, state: JsonObject) -> Preparation:
    return lambda column, _: items_of_users(column)


def _aggregates(params: JsonObject, state: JsonObject) -> Preparation:
    numbers = {name: scaling_of(one, int(one["width"])) for name, one in sorted(state["numbers"].items())}
    categories = {name: pa.array(values, pa.string()) for name, values in sorted(state["categories"].items())}
    aggregates = ItemAggregates(numbers, categories, params["half_life"])
    mean, deviation = scaling_of(state, len(state["mean"]))

    def prepare(column: pa.Array, context: Context) -> PreparedColumn:
        assert context.items is not None
        return aggregates.latest(column, context.items, mean, deviation)

    return prepare


KINDS: dict[str, Callable[[JsonObject, JsonObject], Preparation]] = {
    "aggregates": _aggregates,
    "categorical": _categorical,
    "clip_images": _clip_images,
    "continuous": _continuous,
    "hashed": _hashed,
    "history": _history,
    "identity": _identity,
    "images": _images,
    "item_ids": _item_ids,
    "sentence": _sentence,
    "sequence": _sequence,
    "set": _set,
    "text_statistics": _text_statistics,
    "timestamps": _timestamps,
    "visual_descriptor": _visual_descriptor,
}
"""What makes a preparation of `Encoder.saved_params()` and `Encoder.exported_state()`, by `Encoder.preparation`."""
