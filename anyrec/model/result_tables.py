"""Lists, scores and embeddings of a fitted model as Arrow tables."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.core.contracts import Head
from anyrec.core.types import JsonObject
from anyrec.model.fitted import FittedModel
from anyrec.model.pair_tables import prediction_column
from anyrec.model.records import Records


def with_index(table: pa.Table, index: JsonObject | None) -> pa.Table:
    """Return a table of lists whose metadata name the index that the items were found by (`index_of`)."""
    return table if index is None else table.replace_schema_metadata({"index": json.dumps(index)})


def index_of(table: pa.Table) -> JsonObject | None:
    """Return the type and options of the index that the items of a table were found by; None if it names none."""
    named = (table.schema.metadata or {}).get(b"index")
    return None if named is None else json.loads(named)


@torch.inference_mode()
def pair_scores(
    model: FittedModel, records: Records, user_rows: np.ndarray, item_rows: np.ndarray
) -> dict[str, pa.Array]:
    """Score pairs of users and items.

    Args:
        model: The model.
        records: The users.
        user_rows: (pairs,) rows of `records`.
        item_rows: (pairs,) rows of the known items.

    Returns:
        `score` and the answer of each head by name, (pairs,) each. A head with classes has a struct: the probability of
        each class by its name.
    """
    users = model.represent(records)[torch.from_numpy(user_rows).to(model.device)]
    items = model.representations("item")[torch.from_numpy(item_rows).to(model.device)]
    predicted = model.predict(users, items)
    return {name: _as_column(values, model.heads.get(name)) for name, values in predicted.items()}


def _as_column(values: Tensor, head: Head | None) -> pa.Array:
    """Return what the model predicted, (rows,) or (rows, width), as a column. head: None for the score."""
    answers = values if head is None else head.answer(values.float())
    return prediction_column(answers.float().cpu().numpy(), [] if head is None else head.class_names())


@torch.inference_mode()
def embedding_table(model: FittedModel, records: Records) -> pa.Table:
    """Return the ids of records, and `embedding`: a fixed-size list of float32.

    Raises:
        InputError: If the model has no vectors.
    """
    vectors = model.vectors(records.side, model.represent(records)).float().cpu()
    flat = pa.array(vectors.reshape(-1).numpy())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table({f"{records.side}_id": records.ids, "embedding": embedding})
