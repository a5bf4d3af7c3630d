"""The conformance kit: tells a plugin's author what their component breaks. Our own tests run it on every built-in.

from anyrec.testing import check_encoder
check_encoder(MyEncoder)
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import torch
from pydantic import BaseModel
from torch import Tensor

from anyrec.core.contracts import Context, Encoder, Fusion, HistoryEncoder
from anyrec.core.ragged import Prepared, Values, select
from anyrec.testing.errors import ConformanceError

ITEM_DIM = 16
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
EXAMPLES: dict[str, Callable[[], pa.Array]] = {
    "identity": lambda: pa.array([f"id{n}" for n in range(40)]),
    "categorical": lambda: pa.array([["red", "blue"], ["red"], None, []] * 10, pa.list_(pa.string())),
    "continuous": lambda: pa.array([None if n % 7 == 3 else float(n) ** 1.5 for n in range(40)]),
    "text": lambda: pa.array(
        [None if n % 7 == 3 else f"a red {'boat' if n % 2 else 'house'} number {n % 5}" for n in range(40)]
    ),
    "numbers": lambda: pa.array(
        [None if n % 7 == 3 else [float(k) for k in range(n % 5)] for n in range(40)], pa.list_(pa.float64())
    ),
    "timestamps": lambda: pa.array(
        [None if n % 7 == 3 else [START + dt.timedelta(hours=5 * n * k) for k in range(n % 4)] for n in range(40)],
        pa.list_(pa.timestamp("us", "UTC")),
    ),
    "items": lambda: pa.array(
        [None if n % 7 == 3 else [f"i{k}" for k in range(n % 4)] for n in range(40)], pa.list_(pa.string())
    ),
}


def check_encoder(
    cls: type[Encoder],
    column: Any = None,
    params: dict[str, Any] | None = None,
    context: Context | None = None,
) -> None:
    """Raise ConformanceError with everything that `cls` breaks of the encoder's contract.

    column: an example with at least 8 rows and a null; by default one for the encoder's group, or what a classmethod
    `example()` gives. params: options to make it with.
    """
    column = _example(cls) if column is None else column
    options = cls.Params(**(params or {}))
    faults: list[str] = []

    def make(state: dict[str, Any] | None = None, width: int | None = None) -> Encoder:
        torch.manual_seed(0)
        encoder = cls(options, 16)
        encoder.context = context or Context(items=_items())
        if isinstance(encoder, HistoryEncoder):
            encoder.item_dim = ITEM_DIM
        if state is None:
            encoder.fit(column)
        else:
            encoder.restore(state)
            encoder.input_dim = width
        return encoder

    encoder = make()
    prepared = encoder.encode_column(column)
    encoder.build()
    names = {name for name, _ in encoder.named_parameters()}
    rows = torch.arange(len(column))
    output = _call(encoder.train(), select(prepared.values, rows))
    if tuple(output.shape) != (len(column), 16):
        raise ConformanceError(
            f"{cls.__name__}: forward gave shape {tuple(output.shape)}, not (batch, output_dim) = ({len(column)}, 16)."
        )
    if {name for name, _ in encoder.named_parameters()} != names:
        faults.append("a parameter was created in forward, after the optimizer was built: create it in build().")
    _check_gradients(encoder, output, prepared.present, faults)
    encoder.eval()
    with torch.no_grad():
        whole = _call(encoder, select(prepared.values, rows))
        _check_masks(prepared, column, whole, faults)
        _check_rows(encoder, prepared.values, whole, faults)
        _check_independence(encoder, column, whole, prepared, faults)
        _check_state(encoder, make, whole, column, faults)
    if faults:
        raise ConformanceError(f"{cls.__name__}:\n" + "\n".join(f"- {fault}" for fault in faults))


def check_fusion(cls: type[Fusion], params: BaseModel | None = None, features: int = 3, dim: int = 16) -> None:
    """Raise ConformanceError with everything that `cls` breaks of the fusion's contract."""
    torch.manual_seed(0)
    fusion = cls([f"f{n}" for n in range(features)], dim, dim, params).eval()
    values, present = torch.randn(9, features, dim), torch.rand(9, features) > 0.4
    present[0] = False
    faults = []
    with torch.no_grad():
        output = fusion(values, present)
        if tuple(output.shape) != (9, dim):
            raise ConformanceError(f"{cls.__name__}: gave shape {tuple(output.shape)}, not (9, {dim}).")
        for what in (float("nan"), float("inf"), 1e30):
            other = torch.where(present.unsqueeze(-1), values, what)
            if not torch.equal(fusion(other, present), output):
                faults.append(
                    f"what stands in a masked feature ({what}) changes the output: use the features that fuse() is given."
                )
        if not output.isfinite().all():
            faults.append("the output is not finite, though all features were absent or finite.")
        if not torch.allclose(fusion(values[4:5], present[4:5]), output[4:5], atol=1e-5):
            faults.append("a row alone gives another output than in a batch.")
    if faults:
        raise ConformanceError(f"{cls.__name__}:\n" + "\n".join(f"- {fault}" for fault in faults))


def _example(cls: type[Encoder]) -> pa.Array:
    example = cls.example()
    if example is not None:
        return example
    kind = cls.role or cls.group or cls.type
    if kind not in EXAMPLES:
        raise ConformanceError(f"{cls.__name__}: give check_encoder a column, or the class a classmethod example().")
    return EXAMPLES[kind]()


def _items() -> pa.Table:
    """The records of the 50 items that an example of histories names."""
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(50)],
            "continuous.price": [None if n % 5 == 4 else n**1.5 for n in range(50)],
            "categorical.kind": pa.array(
                [None if n % 6 == 5 else ["red", f"k{n % 3}"][: n % 2 + 1] for n in range(50)], pa.list_(pa.string())
            ),
        }
    )


def _call(encoder: Encoder, values: Values) -> Tensor:
    """forward, with vectors of 50 items for an encoder that is made of them."""
    if not isinstance(encoder, HistoryEncoder):
        return encoder(values)
    return encoder(values, torch.randn(50, ITEM_DIM, generator=torch.Generator().manual_seed(0)))


def _check_gradients(encoder: Encoder, output: Tensor, present: Tensor, faults: list[str]) -> None:
    loss = (torch.where(present.unsqueeze(1), output, 0.0) * torch.randn_like(output)).sum()
    if not loss.requires_grad:
        faults.append("nothing in it can be trained.")
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
            faults.append(f"the gradient of '{name}' is not finite: an absent row must hold finite stand-ins.")


def _check_masks(prepared: Prepared, column: pa.Array, whole: Tensor, faults: list[str]) -> None:
    if tuple(prepared.present.shape) != (len(column),):
        faults.append(f"the presence mask has shape {tuple(prepared.present.shape)}, not (rows,).")
        return
    nulls = torch.from_numpy(column.is_null().to_numpy(zero_copy_only=False).copy())
    if (nulls & prepared.present).any():
        faults.append("a null counts as present.")
    if not whole.isfinite().all():
        faults.append("the output is not finite for every row, the absent ones included.")


def _check_rows(encoder: Encoder, values: Values, whole: Tensor, faults: list[str]) -> None:
    count = len(whole)
    for row in (0, count // 2, count - 1):
        alone = _call(encoder, select(values, torch.tensor([row])))
        if not torch.allclose(alone[0], whole[row], atol=1e-6):
            faults.append("a batch of one gives another output than a batch of many.")
            break
    many = torch.arange(1000) % count
    if not torch.allclose(_call(encoder, select(values, many)), whole[many], atol=1e-6):
        faults.append("a batch of 1,000 gives another output than a smaller one.")
    backwards = torch.arange(count).flip(0)
    if not torch.allclose(_call(encoder, select(values, backwards)).flip(0), whole, atol=1e-6):
        faults.append("the order of the rows changes their outputs.")


def _check_independence(
    encoder: Encoder, column: pa.Array, whole: Tensor, prepared: Prepared, faults: list[str]
) -> None:
    """prepare() of one row alone must give what it gave among the others."""
    for row in (0, len(column) // 2, len(column) - 1):
        alone = encoder.encode_column(column.slice(row, 1))
        same_mask = bool(alone.present[0] == prepared.present[row])
        if not same_mask or not torch.allclose(
            _call(encoder, select(alone.values, torch.tensor([0])))[0], whole[row], atol=1e-6
        ):
            faults.append("prepare() of one record depends on the other records: learn in fit(), not in prepare().")
            return
    nothing = encoder.encode_column(pa.nulls(3, column.type))
    if nothing.present.any() or not _call(encoder, select(nothing.values, torch.arange(3))).isfinite().all():
        faults.append("a column of nulls is not handled.")


def _check_state(
    encoder: Encoder, make: Callable[..., Encoder], whole: Tensor, column: pa.Array, faults: list[str]
) -> None:
    state = {}
    for key, value in encoder.state().items():
        if isinstance(value, (pa.Array, pa.ChunkedArray)):
            state[key] = value
            continue
        try:
            state[key] = json.loads(json.dumps(value))
        except TypeError:
            faults.append(f"state()['{key}'] is a {type(value).__name__}: give JSON values and Arrow arrays.")
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
        faults.append("restored from state() and its weights, it gives other outputs.")
