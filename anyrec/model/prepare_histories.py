"""The histories of all users as tensors, prepared in blocks if they do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.contracts import Encoder, HistoryEncoder
from anyrec.core.ragged import Prepared, Ragged
from anyrec.core.scratch import Scratch
from anyrec.data.list_columns import blocks_of_lists, one_chunk

BLOCK = 1 << 20
"""About this many events are prepared at once: their temporaries take 100 MB."""


def prepare_column(encoder: Encoder, column: pa.ChunkedArray | pa.Array, scratch: Scratch | None) -> Prepared:
    """Prepare a column; histories in blocks of users if there is a scratch, where their events are then kept.

    An encoder prepares each row independently, so blocks give the same values.

    Args:
        encoder: The encoder.
        column: (rows,) its column.
        scratch: Where arrays of all interactions are kept; None if they fit into memory.
    """
    column = one_chunk(column) if isinstance(column, pa.ChunkedArray) else column
    if scratch is None or not isinstance(encoder, HistoryEncoder) or not len(column):
        return encoder.encode_column(column)
    present: list[torch.Tensor] = []
    lengths: dict[str, list[np.ndarray]] = {}

    def parts() -> Iterator[dict[str, np.ndarray]]:
        for block in blocks_of_lists(column, BLOCK):
            values, there = encoder.encode_column(column[block.start : block.stop])
            present.append(there)
            for name, ragged in cast(Mapping[str, Ragged], values).items():
                lengths.setdefault(name, []).append(ragged.lengths.numpy())
            yield {name: ragged.values.numpy() for name, ragged in cast(Mapping[str, Ragged], values).items()}

    made = scratch.keep_parts(parts())
    ends = {name: np.cumsum(np.concatenate([[0], *each])) for name, each in lengths.items()}
    values = {name: Ragged(torch.from_numpy(made[name]), torch.from_numpy(ends[name])) for name in made}
    return Prepared(values, torch.cat(present))
