"""Reading the files of a saved model, which can come from anyone: every fault is a ModelError, and memory is bounded.

A hash shows that a file is the one of the manifest, not that it is well-formed: the author of the model writes both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import AnyrecError, Fault, InputError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "Copy the whole directory again, or train again."
SPARE_BYTES = 64 << 20
"""Bytes that layers can take in addition to twice the size of their saved weights."""


@contextmanager
def damaged(where: Path | str, what: str = "this cannot be read", hint: str = AGAIN) -> Iterator[None]:
    """Convert exceptions within the block to a ModelError. Other errors of anyrec, like MissingDependency, pass
    unchanged.

    Args:
        where: File or place of the fault.
        what: Start of the sentence that says what failed.
        hint: How to fix it.
    """
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
    """Read an Arrow file and check its offsets, texts and dictionaries.

    Raises:
        ModelError: The file is damaged or has two columns of one name.
    """
    with damaged(path):
        # From memory: a declared size beyond the end of the file is then an error before anything is allocated.
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all().combine_chunks()
        table.validate(full=True)
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError("a column is there twice")
        return table


def read_tensors(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file as torch tensors.

    Args:
        path: The file.
        finite: Refuse NaN and infinite numbers.

    Raises:
        ModelError: The file is damaged, or a number is not finite.
    """
    from safetensors.torch import load_file

    with damaged(path):
        tensors = load_file(path)
        if finite:
            require_finite(tensors)
        return tensors


def read_arrays(path: Path, *, finite: bool = True) -> dict[str, np.ndarray]:
    """Read a safetensors file as NumPy arrays; arguments and errors as for `read_tensors`."""
    from safetensors.numpy import load_file

    with damaged(path):
        arrays = load_file(path)
        for name, values in arrays.items() if finite else ():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"'{name}' holds NaN or infinite numbers")
        return arrays


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors hold no NaN or infinite numbers.

    Raises:
        ValueError: A tensor does; the message names it.
    """
    import torch

    for name, values in tensors.items():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise ValueError(f"'{name}' holds NaN or infinite numbers")


@contextmanager
def bounded_by(path: Path) -> Iterator[None]:
    """Limit the memory of layers that are created within the block to twice the size of `path`, and `SPARE_BYTES`.

    Args:
        path: File of the saved weights.

    Raises:
        ModelError: The limit is reached, for example by a dimension of 2**40. It is raised before the memory is
            allocated.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    size = path.stat().st_size if path.is_file() else 0

    class Bound(TorchDispatchMode):
        left = 2 * size + SPARE_BYTES

        def __torch_dispatch__(
            self, func: Callable[..., object], types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
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
    """Check that the records of one side have distinct ids, and features of their groups' types.

    Args:
        table: The records.
        side: "user" or "item".
        path: Their file, for the errors.

    Raises:
        ModelError: With all faults.
    """
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
    """Check a table of user-item pairs.

    Args:
        seen: Columns `user` and `item`.
        users: Number of users.
        items: Number of items.
        path: File of the table, for the errors.

    Returns:
        User rows, ascending, and item rows, (pairs,) int64 each.

    Raises:
        ModelError: A row is out of range, or the users are not in order.
    """
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
    """Check the parts of the split that pairs are in.

    Args:
        parts: The array.
        count: Number of pairs.

    Returns:
        The array, if it is (count,) of integers.

    Raises:
        ValueError: It is not.
    """
    if parts.dtype.kind not in "iu" or parts.shape != (count,):
        raise ValueError(f"parts of {count} pairs were expected, not {parts.dtype} {parts.shape}")
    return parts


def _fits_group(name: str, kind: pa.DataType) -> bool:
    """Return True if a feature column has a type of its group."""
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
