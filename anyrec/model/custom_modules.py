"""A plain nn.Module as an encoder, and its structure written down so that it can be rebuilt without pickle.

A module is described by the import path of its class, its plain attributes, the shapes of its tensors, and its
children, recursively. Rebuilding imports those classes, so it is done only for models the user trusts.
"""

from __future__ import annotations

import copy
import importlib
import types
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from anyrec.core.contracts import Encoder
from anyrec.core.errors import ConfigError, Fault, ModelError
from anyrec.core.ragged import Prepared

INTERNAL = set(vars(nn.Module()))
"""What every module has, hooks among it."""
RECURRENT = {"_flat_weights", "_flat_weight_refs"}
"""What a recurrent module rebuilds from its weights."""


def encoder_of(name: str, module: nn.Module) -> type[Encoder]:
    """An encoder class of type and group `name` whose every instance holds a copy of `module`."""

    class ModuleEncoder(Encoder):
        """A module given to `add_encoder`."""

        type = name
        group = name
        description = describe(module, name)

        def fit(self, column: pa.Array) -> None:
            self.width = _width(column)

        def prepare(self, column: pa.Array) -> Prepared:
            return numbers(column, self.width)

        def build(self) -> None:
            self.module = copy.deepcopy(module)
            with torch.no_grad():
                sample = self.module.eval()(torch.zeros(2, self.width))
            self.module.train()
            if sample.dim() != 2:
                raise ConfigError(
                    Fault(
                        f"add_encoder('{name}')",
                        f"the module gave shape {tuple(sample.shape)}, not (batch, width).",
                        kind="bad module",
                    )
                )
            self.project = (
                nn.Identity() if sample.shape[1] == self.output_dim else nn.Linear(sample.shape[1], self.output_dim)
            )

        def forward(self, values: Tensor) -> Tensor:
            return self.project(self.module(values))

        def state(self) -> dict[str, Any]:
            return {"width": self.width}

        def restore(self, state: dict[str, Any]) -> None:
            self.width = state["width"]

    return ModuleEncoder


def numbers(column: pa.Array, width: int) -> Prepared:
    """Numbers or lists of `width` numbers as (rows, width) float32; rows of another length are absent."""
    rows = len(column)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), column.cast(pa.float64()))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    whole = lengths == width
    flat = column.filter(pa.array(whole)).flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    values = np.zeros((rows, width), np.float32)
    values[whole] = flat.reshape(-1, width)
    present = whole & np.isfinite(values).all(1)
    return Prepared(torch.from_numpy(np.where(present[:, None], values, 0)), torch.from_numpy(present))


def describe(module: nn.Module, name: str) -> dict[str, Any]:
    """The module's structure as JSON. Raises ConfigError for an attribute that JSON or an import path cannot hold."""
    cls = type(module)
    attributes = {}
    for key, value in vars(module).items():
        if key in INTERNAL or (isinstance(module, nn.RNNBase) and key in RECURRENT):
            continue
        attributes[key] = _value(value, f"{name}.{cls.__name__}.{key}")
    return {
        "class": _path(cls, name),
        "attributes": attributes,
        "parameters": {
            key: None if p is None else [list(p.shape), _dtype(p), p.requires_grad]
            for key, p in module._parameters.items()
        },
        "buffers": {key: None if b is None else [list(b.shape), _dtype(b)] for key, b in module._buffers.items()},
        "children": {key: None if child is None else describe(child, name) for key, child in module._modules.items()},
    }


def rebuild(description: dict[str, Any]) -> nn.Module:
    """The module that `describe` described, its tensors empty until the weights are loaded."""
    cls = _imported(description["class"])
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ModelError(Fault(description["class"], "this is not a torch module.", kind="bad module"))
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    for key, value in description["attributes"].items():
        object.__setattr__(module, key, _restored(value))
    for key, saved in description["parameters"].items():
        tensor = (
            None if saved is None else nn.Parameter(torch.zeros(saved[0], dtype=getattr(torch, saved[1])), saved[2])
        )
        module.register_parameter(key, tensor)
    for key, saved in description["buffers"].items():
        module.register_buffer(key, None if saved is None else torch.zeros(saved[0], dtype=getattr(torch, saved[1])))
    for key, child in description["children"].items():
        module._modules[key] = None if child is None else rebuild(child)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()
    return module


def _value(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_value(part, where) for part in value]
    if isinstance(value, tuple):
        return {"$tuple": [_value(part, where) for part in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"$dict": {key: _value(part, where) for key, part in value.items()}}
    if isinstance(value, torch.dtype):
        return {"$import": str(value)}
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        return {"$import": _path(value, where)}
    raise ConfigError(
        Fault(
            where,
            f"a {type(value).__name__} cannot be saved with the model.",
            "Keep it as a number, text, list or submodule.",
            "bad module",
        )
    )


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        if kind == "$tuple":
            return tuple(_restored(part) for part in inner)
        if kind == "$dict":
            return {key: _restored(part) for key, part in inner.items()}
        return _imported(inner)
    return value


def _path(thing: Any, where: str) -> str:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not module or "<" in name:
        raise ConfigError(
            Fault(
                where,
                f"'{name or thing}' has no import path, so a saved model could not find it.",
                "Define it at a module's top level.",
                "bad module",
            )
        )
    return f"{module}:{name}"


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    if not name:
        module, _, name = path.rpartition(".")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            Fault(path, f"cannot be imported: {error}.", "Put its module on the import path.", "missing module")
        ) from None
    return found


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _width(column: pa.Array) -> int:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return 1
    lengths = pc.drop_null(pc.list_value_length(column))
    return int(pc.mode(lengths)[0]["mode"].as_py()) if len(lengths) else 1
