"""States of encoders and heads as JSON, with their arrays in files next to it: Arrow, NumPy and torch, of any rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from anyrec.core.errors import Fault, ModelError
from anyrec.core.manifest import is_inside
from anyrec.core.saved_files import AGAIN, read_arrays, read_table
from anyrec.core.types import JsonObject

ARROW, NUMPY, TORCH = "$arrow", "$numpy", "$torch"
"""Keys of an object that stands for an array: its only value is the name of the array's file."""
VALUES = "values"
"""Name of the column or tensor in the file of an array."""


def pack(state: JsonObject, folder: Path, stem: str) -> JsonObject:
    """Return a state as JSON. Each array, also one in an object or a list, is written to a file and referred to.

    Args:
        state: JSON values, Arrow arrays, NumPy arrays and tensors.
        folder: Folder of the files.
        stem: Begins the names of the files; the keys that lead to the array follow.
    """
    return {key: _packed(value, folder, f"{stem}-{key}") for key, value in state.items()}


def _packed(value: Any, folder: Path, stem: str) -> Any:
    if isinstance(value, dict):
        return pack(value, folder, stem)
    if isinstance(value, (list, tuple)):
        return [_packed(one, folder, f"{stem}-{number}") for number, one in enumerate(value)]
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    if isinstance(value, pa.Array):
        write_table(folder / f"{stem}.arrow", pa.table({VALUES: value}))
        return {ARROW: f"{stem}.arrow"}
    is_tensor = hasattr(value, "detach")  # recognised without importing torch, which an export is read without
    if is_tensor or isinstance(value, np.ndarray):
        array = value.detach().cpu().numpy() if is_tensor else value
        save_file({VALUES: np.asarray(array, order="C")}, folder / f"{stem}.safetensors")
        return {TORCH if is_tensor else NUMPY: f"{stem}.safetensors"}
    return value.item() if isinstance(value, np.generic) else value


def unpack(state: JsonObject, folder: Path) -> JsonObject:
    """Return the state that was packed, with its arrays.

    Args:
        state: What `pack` returned.
        folder: Folder of the arrays' files.

    Raises:
        ModelError: If a file is damaged, or its name is not that of a file within `folder`.
    """
    return {key: _unpacked(value, folder) for key, value in state.items()}


def _unpacked(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, folder) for one in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value)) if len(value) == 1 else None
    if kind not in (ARROW, NUMPY, TORCH):
        return unpack(value, folder)
    name = value[kind]
    if not is_inside(name):
        raise ModelError(Fault(str(folder), f"{name!r} is not a file of this folder.", AGAIN, "damaged"))
    if kind == ARROW:
        return read_table(folder / name).column(VALUES).combine_chunks()
    array = read_arrays(folder / name, finite=False)[VALUES]
    if kind == NUMPY:
        return array
    import torch

    return torch.from_numpy(array.copy())


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as an uncompressed Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
