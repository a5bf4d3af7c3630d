"""Reading what a saved model consists of, as if a stranger had written it: each fault is a ModelError, and memory is bounded.

Hashes say that a file is the one of the manifest, not that it is well-formed: a stranger writes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import AnyrecError, Fault, InputError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "Copy the whole directory again, or train again."
SPARE_BYTES = 64 << 20
"""Memory that layers may take beyond what their saved weights take."""


@contextmanager
def damaged(where: Path | str, what: str = "this cannot be read", hint: str = AGAIN) -> Iterator[None]:
    """Any exception within the block as a ModelError at `where`; what is missing on this machine (MissingDependency) stays."""
    try:
        yield
    except ModelError:
        raise
    except InputError as error:
        raise ModelError(error.faults, error.counts) from None
    except AnyrecError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        raise ModelError(Fault(str(where), f"{what} ({reason}).", hint, "damaged")) from error


def read_table(path: Path) -> pa.Table:
    """An Arrow file, its offsets, texts and dictionaries checked. Raises ModelError."""
    with damaged(path):
        # From memory: a declared size beyond the end of the file is then an error before anything is allocated.
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all().combine_chunks()
        table.validate(full=True)
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError("a column is there twice")
        return table


def read_tensors(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """A safetensors file. finite: refuse NaN and infinite numbers. Raises ModelError."""
    from safetensors.torch import load_file

    with damaged(path):
        tensors = load_file(path)
        if finite:
            require_finite(tensors)
        return tensors


def read_arrays(path: Path, *, finite: bool = True) -> dict[str, np.ndarray]:
    """A safetensors file as numpy arrays. finite: refuse NaN and infinite numbers. Raises ModelError."""
    from safetensors.numpy import load_file

    with damaged(path):
        arrays = load_file(path)
        for name, values in arrays.items() if finite else ():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"'{name}' holds NaN or infinite numbers")
        return arrays


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError if a tensor holds NaN or infinite numbers."""
    import torch

    for name, values in tensors.items():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise ValueError(f"'{name}' holds NaN or infinite numbers")


@contextmanager
def bounded_by(path: Path) -> Iterator[None]:
    """Layers made within the block may take as much memory as the weights in `path`, twice, and `SPARE_BYTES`.

    Raises ModelError before a config that does not fit its weights (a dimension of 2**40) allocates more.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    size = path.stat().st_size if path.is_file() else 0

    class Bound(TorchDispatchMode):
        left = 2 * size + SPARE_BYTES

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            shape = args[0] if args else None
            if isinstance(shape, int) and "arange" in str(func):
                shape = args[:2]
            if isinstance(shape, (list, tuple)) and all(isinstance(one, (int, float)) for one in shape):
                self.left -= 4 * np.prod(np.abs(np.asarray(shape, float)))
            if self.left < 0:
                what = "the config asks for more memory than the saved weights take."
                raise ModelError(Fault(str(path), what, AGAIN, "damaged"))
            return func(*args, **(kwargs or {}))

    with Bound():
        yield


def check_records(table: pa.Table, side: str, path: Path) -> None:
    """Raises ModelError if the records of one side have no distinct ids, or a feature is not of its group's type."""
    key = f"{side}_id"
    if key not in table.column_names:
        raise ModelError(Fault(str(path), f"there is no column {key}.", AGAIN, "damaged"))
    ids = table.column(key)
    if not (pa.types.is_integer(ids.type) or _is_text(ids.type)):
        raise ModelError(Fault(str(path), f"{key} is {ids.type}; text or integers were expected.", AGAIN, "damaged"))
    if ids.null_count or pc.count_distinct(ids).as_py() < len(ids):
        raise ModelError(Fault(str(path), f"{key} has nulls or repeated values.", AGAIN, "damaged"))
    wrong = [
        name for name in table.column_names if name != key and not _fits_group(name, table.schema.field(name).type)
    ]
    if wrong:
        raise ModelError(
            [Fault(str(path), f"{name} is {table.schema.field(name).type}.", AGAIN, "damaged") for name in wrong]
        )


def check_pairs(seen: pa.Table, users: int, items: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """User and item rows of the pairs, `(pairs,)` int64 each. Raises ModelError for rows out of range or not in order."""
    with damaged(path, "this is not a table of user and item rows"):
        columns = [seen.column(name) for name in ("user", "item")]
        if any(not pa.types.is_integer(column.type) or column.null_count for column in columns):
            raise ValueError("integers without nulls were expected")
        owners, found = (column.to_numpy().astype(np.int64) for column in columns)
        for rows, count in ((owners, users), (found, items)):
            if len(rows) and not 0 <= rows.min() <= rows.max() < count:
                raise ValueError(f"a row is not within 0 and {count - 1}")
        if (np.diff(owners) < 0).any():
            raise ValueError("the users are not in order")
        return owners, found


def check_parts(parts: np.ndarray, count: int) -> np.ndarray:
    """`parts: (count,)` uint8, the parts of the split that pairs are in. Raises ValueError for anything else."""
    if parts.dtype.kind not in "iu" or parts.shape != (count,):
        raise ValueError(f"parts of {count} pairs were expected, not {parts.dtype} {parts.shape}")
    return parts


def _fits_group(name: str, kind: pa.DataType) -> bool:
    group, dot, _ = name.partition(".")
    value = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if pa.types.is_null(value):
        return True
    if group in ("text", "image"):
        return _is_text(value)
    if group == "continuous":
        return pa.types.is_integer(value) or pa.types.is_floating(value)
    if group == "temporal":
        return value is not kind
    return bool(dot)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
