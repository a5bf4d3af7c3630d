"""Hashes of values: equal for equal values, whatever type or file format holds them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Digest(Protocol):
    """A running hash, as `hashlib` makes them."""

    def update(self, data: bytes | memoryview, /) -> None: ...


class HashSink:
    """A file object that feeds everything written to it to a hash and stores nothing."""

    closed = False

    def __init__(self, digest: Digest):
        self.digest = digest

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        return len(memoryview(data))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def hash_stream(*tables: pa.Table) -> str:
    """Return the sha256 of the Arrow streams of tables. The order and the exact types of the columns count."""
    digest = hashlib.sha256()
    for table in tables:
        with pa.ipc.new_stream(pa.PythonFile(HashSink(digest), mode="w"), table.schema) as writer:
            writer.write_table(table.combine_chunks())
    return digest.hexdigest()


def hash_table(table: pa.Table) -> str:
    """Return the sha256 of a table's column names and values.

    The order of the columns, their chunks and the bytes under nulls do not count.
    """
    return hash_values({name: table.column(name) for name in table.column_names})


def hash_values(value: object) -> str:
    """Return the sha256 of Arrow arrays, numpy arrays, tensors and JSON values, nested in dicts, lists and tuples."""
    digest = hashlib.sha256()
    _feed(value, digest)
    return digest.hexdigest()


def _feed(value: object, digest: Digest) -> None:
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    if isinstance(value, pa.Array):
        _feed_array(value, digest)
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            digest.update(f"key {name!r} ".encode())
            _feed(value[name], digest)
    elif isinstance(value, (list, tuple)) and any(not isinstance(one, (str, int, float, type(None))) for one in value):
        digest.update(f"list {len(value)} ".encode())
        for one in value:
            _feed(one, digest)
    elif hasattr(value, "detach"):  # a tensor, which is recognised without importing torch
        cells = value.detach().cpu().contiguous()
        digest.update(f"tensor {cells.dtype} {tuple(cells.shape)} ".encode())
        if cells.numel():
            digest.update(memoryview(cells.flatten().view(_bytes_type()).numpy()))
    elif isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).data)
    else:
        digest.update(json.dumps(value, sort_keys=True, default=str).encode() + b" ")


def _bytes_type() -> Any:
    """Return `torch.uint8`. torch is heavy, and data without tensors do not need it."""
    import torch

    return torch.uint8


def _feed_array(array: pa.Array, digest: Digest) -> None:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _feed_array(array.dictionary_decode(), digest)
    if isinstance(array, pa.ExtensionArray):
        return _feed_array(array.storage, digest)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    digest.update(f"column {_family(kind)} {len(array)} ".encode() + np.packbits(valid).tobytes())
    if pa.types.is_struct(kind):
        for field, part in zip(kind, array.flatten(), strict=True):
            digest.update(field.name.encode() + b" ")
            _feed_array(part, digest)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
        digest.update(lengths.to_numpy(zero_copy_only=False).data)
        _feed_array(array.flatten(), digest)
    elif _family(kind) in ("text", "bytes"):
        present = array.drop_null().cast(pa.large_binary())
        digest.update(pc.binary_length(present).to_numpy(zero_copy_only=False).astype(np.int64).data)
        if len(present):
            offsets = np.frombuffer(present.buffers()[1], np.int64, len(present) + 1, present.offset * 8)
            digest.update(memoryview(present.buffers()[2] or b"")[offsets[0] : offsets[-1]])
    elif _family(kind) in ("int64", "float64", "bool"):
        present = array.drop_null().cast(_family(kind)).to_numpy(zero_copy_only=False)
        digest.update(np.ascontiguousarray(present).data)
    elif pa.types.is_timestamp(kind):
        present = array.drop_null().cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64())
        digest.update(np.ascontiguousarray(present.to_numpy(zero_copy_only=False)).data)
    else:
        with pa.ipc.new_stream(pa.PythonFile(HashSink(digest), mode="w"), pa.schema([("values", kind)])) as writer:
            writer.write_table(pa.table({"values": array.drop_null()}))


def _family(kind: pa.DataType) -> str:
    """Return one name for all types that hold the same values: a Parquet file's dictionary of texts is text."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes"
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "int64"
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return "float64"
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "list"
    if pa.types.is_timestamp(kind):
        return "time"
    return "struct" if pa.types.is_struct(kind) else str(kind)
