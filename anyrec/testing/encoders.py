"""Conformance checks of encoders and fusions. Our own tests run them on every built-in component.

Example:
    from anyrec.testing import check_encoder

    check_encoder(MyEncoder)
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel
from torch import Tensor

from anyrec.core.contracts import Context, Encoder, Fusion, HistoryEncoder
from anyrec.core.ragged import Prepared, Values, select
from anyrec.core.types import JsonObject
from anyrec.testing.errors import ConformanceError

ROWS, DIM = 40, 16
"""Rows of an example column, and dimension of the vectors."""
ITEMS, ITEM_DIM = 50, 16
"""Items that an example of histories refers to, and dimension of their vectors."""
TOLERANCE = 1e-6
"""Maximum difference between outputs that must agree."""
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
EXAMPLES: dict[str, Callable[[], pa.Array]] = {
    "identity": lambda: pa.array([f"id{n}" for n in range(ROWS)]),
    "categorical": lambda: pa.array([["red", "blue"], ["red"], None, []] * (ROWS // 4), pa.list_(pa.string())),
    "continuous": lambda: pa.array([None if n % 7 == 3 else float(n) ** 1.5 for n in range(ROWS)]),
    "text": lambda: pa.array(
        [None if n % 7 == 3 else f"a red {'boat' if n % 2 else 'house'} number {n % 5}" for n in range(ROWS)]
    ),
    "numbers": lambda: pa.array(
        [None if n % 7 == 3 else [float(k) for k in range(n % 5)] for n in range(ROWS)], pa.list_(pa.float64())
    ),
    "timestamps": lambda: pa.array(
        [None if n % 7 == 3 else [START + dt.timedelta(hours=5 * n * k) for k in range(n % 4)] for n in range(ROWS)],
        pa.list_(pa.timestamp("us", "UTC")),
    ),
    "items": lambda: pa.array(
        [None if n % 7 == 3 else [f"i{k}" for k in range(n % 4)] for n in range(ROWS)], pa.list_(pa.string())
    ),
}


def check_encoder(
    cls: type[Encoder],
    column: pa.Array | None = None,
    params: JsonObject | None = None,
    context: Context | None = None,
) -> None:
    """Check that an encoder keeps the contract of `anyrec.Encoder`.

    Args:
        cls: The encoder class.
        column: An example column with at least 8 rows and a null; by default that of the classmethod `example`, or one
            for the encoder's group.
        params: Options to create it with.
        context: Context to prepare with; by default one that knows 50 items.

    Raises:
        ConformanceError: With one sentence for each violation.
    """
    rows: pa.Array = _example(cls) if column is None else column
    options = cls.Params(**(params or {}))
    faults: list[str] = []

    def make(state: JsonObject | None = None, width: int | None = None) -> Encoder:
        torch.manual_seed(0)
        encoder = cls(options, DIM)
        encoder.context = context or Context(items=_items())
        if isinstance(encoder, HistoryEncoder):
            encoder.item_dim = ITEM_DIM
        if state is None:
            encoder.fit(rows)
        else:
            encoder.restore(state)
            encoder.input_dim = width
        return encoder

    encoder = make()
    prepared = encoder.encode_column(rows)
    encoder.build()
    names = {name for name, _ in encoder.named_parameters()}
    every = torch.arange(len(rows))
    output = _call(encoder.train(), select(prepared.values, every))
    if tuple(output.shape) != (len(rows), DIM):
        found, expected = tuple(output.shape), f"(batch, output_dim) = ({len(rows)}, {DIM})"
        raise ConformanceError(f"{cls.__name__}: forward returned shape {found}, not {expected}.")
    if {name for name, _ in encoder.named_parameters()} != names:
        faults.append("a parameter was created in forward, after the optimizer was built: create it in build().")
    _check_gradients(encoder, output, prepared.present, faults)
    encoder.eval()
    with torch.no_grad():
        whole = _call(encoder, select(prepared.values, every))
        _check_masks(prepared, rows, whole, faults)
        _check_rows(encoder, prepared.values, whole, faults)
        _check_independence(encoder, rows, whole, prepared, faults)
        _check_state(encoder, make, whole, rows, faults)
    if faults:
        raise ConformanceError(f"{cls.__name__}:\n" + "\n".join(f"- {fault}" for fault in faults))


def check_fusion(cls: type[Fusion], params: BaseModel | None = None, features: int = 3, dim: int = DIM) -> None:
    """Check that a fusion keeps the contract of `anyrec.Fusion`.

    Args:
        cls: The fusion class.
        params: Its options.
        features: Number of features to fuse.
        dim: Dimension of the feature vectors and of the result.

    Raises:
        ConformanceError: With one sentence for each violation.
    """
    torch.manual_seed(0)
    fusion = cls([f"f{n}" for n in range(features)], dim, dim, params).eval()
    values, present = torch.randn(9, features, dim), torch.rand(9, features) > 0.4
    present[0] = False
    faults = []
    with torch.no_grad():
        output = fusion(values, present)
        if tuple(output.shape) != (9, dim):
            raise ConformanceError(f"{cls.__name__}: returned shape {tuple(output.shape)}, not (9, {dim}).")
        for value in (float("nan"), float("inf"), 1e30):
            other = torch.where(present.unsqueeze(-1), values, value)
            if not torch.equal(fusion(other, present), output):
                faults.append(f"the value {value} in a masked feature changes the output: use the arguments of fuse().")
        if not output.isfinite().all():
            faults.append("the output is not finite, although all features were absent or finite.")
        if not torch.allclose(fusion(values[4:5], present[4:5]), output[4:5], atol=1e-5):
            faults.append("the output of a row alone differs from that in a batch.")
    if faults:
        raise ConformanceError(f"{cls.__name__}:\n" + "\n".join(f"- {fault}" for fault in faults))


def _example(cls: type[Encoder]) -> pa.Array:
    """The encoder's own example, or that of its group."""
    example = cls.example()
    if example is not None:
        return example
    kind = cls.role or cls.group or cls.type
    if kind not in EXAMPLES:
        raise ConformanceError(
            f"{cls.__name__}: pass a column to check_encoder, or override the classmethod example()."
        )
    return EXAMPLES[kind]()


def _items() -> pa.Table:
    """The records of the items that an example of histories refers to."""
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "continuous.price": [None if n % 5 == 4 else n**1.5 for n in range(ITEMS)],
            "categorical.kind": pa.array(
                [None if n % 6 == 5 else ["red", f"k{n % 3}"][: n % 2 + 1] for n in range(ITEMS)], pa.list_(pa.string())
            ),
        }
    )


def _call(encoder: Encoder, values: Values) -> Tensor:
    """Call `forward`; an encoder of histories also gets vectors of the items."""
    if not isinstance(encoder, HistoryEncoder):
        return encoder(values)
    return encoder(values, torch.randn(ITEMS, ITEM_DIM, generator=torch.Generator().manual_seed(0)))


def _check_gradients(encoder: Encoder, output: Tensor, present: Tensor, faults: list[str]) -> None:
    """Every parameter gets a finite gradient. output: (rows, dim) in training; present: (rows,)."""
    loss = (torch.where(present.unsqueeze(1), output, 0.0) * torch.randn_like(output)).sum()
    if not loss.requires_grad:
        faults.append("it has no parameter that can be trained.")
        return
    loss.backward()
    for name, parameter in encoder.named_parameters():
        gradient = parameter.grad
        if parameter.requires_grad and gradient is None:
            faults.append(f"the parameter '{name}' receives no gradient.")
        elif (
            gradient is not None
            and not (gradient.coalesce().values() if gradient.is_sparse else gradient).isfinite().all()
        ):
            faults.append(f"the gradient of '{name}' is not finite: the values of absent rows must be finite.")


def _check_masks(prepared: Prepared, column: pa.Array, whole: Tensor, faults: list[str]) -> None:
    """Nulls are absent, and the outputs `whole: (rows, dim)` are finite for them as well."""
    if tuple(prepared.present.shape) != (len(column),):
        faults.append(f"the presence mask has shape {tuple(prepared.present.shape)}, not (rows,).")
        return
    nulls = torch.from_numpy(column.is_null().to_numpy(zero_copy_only=False).copy())
    if (nulls & prepared.present).any():
        faults.append("a null counts as present.")
    if not whole.isfinite().all():
        faults.append("the output is not finite for all rows, absent ones included.")


def _check_rows(encoder: Encoder, values: Values, whole: Tensor, faults: list[str]) -> None:
    """The output of a row does not depend on the batch that it is in. whole: (rows, dim) outputs of all rows."""
    count = len(whole)
    for row in (0, count // 2, count - 1):
        alone = _call(encoder, select(values, torch.tensor([row])))
        if not torch.allclose(alone[0], whole[row], atol=TOLERANCE):
            faults.append("the output of a batch of one differs from that of a larger batch.")
            break
    many = torch.arange(1000) % count
    if not torch.allclose(_call(encoder, select(values, many)), whole[many], atol=TOLERANCE):
        faults.append("the output of a batch of 1,000 differs from that of a smaller batch.")
    backwards = torch.arange(count).flip(0)
    if not torch.allclose(_call(encoder, select(values, backwards)).flip(0), whole, atol=TOLERANCE):
        faults.append("the order of the rows changes their outputs.")


def _check_independence(
    encoder: Encoder, column: pa.Array, whole: Tensor, prepared: Prepared, faults: list[str]
) -> None:
    """What `prepare` returns for a row does not depend on the other rows."""
    for row in (0, len(column) // 2, len(column) - 1):
        alone = encoder.encode_column(column.slice(row, 1))
        same_mask = bool(alone.present[0] == prepared.present[row])
        if not same_mask or not torch.allclose(
            _call(encoder, select(alone.values, torch.tensor([0])))[0], whole[row], atol=TOLERANCE
        ):
            faults.append("prepare() of one record depends on the other records: learn in fit(), not in prepare().")
            return
    nothing = encoder.encode_column(pa.nulls(3, column.type))
    if nothing.present.any() or not _call(encoder, select(nothing.values, torch.arange(3))).isfinite().all():
        faults.append("in a column of nulls, a row counts as present or its output is not finite.")


def _as_saved(value: object) -> object:
    """Return a part of a state as it comes back from a saved model. Raises TypeError for what cannot be saved."""
    if isinstance(value, dict):
        return {key: _as_saved(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_saved(one) for one in value]
    if isinstance(value, (pa.Array, pa.ChunkedArray, np.ndarray, Tensor)):
        return value
    return json.loads(json.dumps(value.item() if isinstance(value, np.generic) else value))


def _check_state(
    encoder: Encoder, make: Callable[..., Encoder], whole: Tensor, column: pa.Array, faults: list[str]
) -> None:
    """An encoder that is restored from `state` and its weights returns the outputs `whole: (rows, dim)`."""
    state = {}
    for key, value in encoder.state().items():
        try:
            state[key] = _as_saved(value)
        except TypeError as error:
            faults.append(f"state()['{key}']: {error}: use JSON values, Arrow arrays, NumPy arrays and tensors.")
            return
    again = make(state, encoder.input_dim)
    again.build()
    try:
        again.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        faults.append(f"restored from state(), it has other layers: {error}.")
        return
    again.eval()
    if not torch.equal(_call(again, select(again.encode_column(column).values, torch.arange(len(column)))), whole):
        faults.append("restored from state() and its weights, it returns other outputs.")
