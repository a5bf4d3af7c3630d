"""Plain torch modules as encoders, and descriptions from which they are rebuilt without pickle.

A module is described by the import path of its class, its plain attributes, the shapes of its tensors, and its
children, recursively. Rebuilding imports these classes, so it is done only for models that the user trusts.
"""

from __future__ import annotations

import copy
import importlib
import types
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from anyrec.core.contracts import Encoder
from anyrec.core.errors import ConfigError, Fault, ModelError
from anyrec.core.ragged import Prepared
from anyrec.core.types import Json, JsonObject

INTERNAL = set(vars(nn.Module()))
"""Attributes that every module has, such as its hooks."""
RECURRENT = {"_flat_weights", "_flat_weight_refs"}
"""Attributes that a recurrent module creates from its weights."""


def encoder_of(name: str, module: nn.Module) -> type[Encoder]:
    """Return an encoder class for a module.

    Args:
        name: The type of the encoder, and the group whose features it reads.
        module: Maps (batch, width) float to (batch, any width) float. Each encoder has a copy.

    Raises:
        ConfigError: If the module cannot be described.
    """

    class ModuleEncoder(Encoder):
        """A module given to `add_encoder`."""

        type = name
        group = name
        description = describe(module, name)

        def fit(self, column: pa.Array) -> None:
            """Learn the usual number of values."""
            self.width = _width(column)

        def prepare(self, column: pa.Array) -> Prepared:
            return numbers(column, self.width)

        def build(self) -> None:
            self.module = copy.deepcopy(module)
            with torch.no_grad():
                sample = self.module.eval()(torch.zeros(2, self.width))
            self.module.train()
            if sample.dim() != 2:
                what = f"the module gave shape {tuple(sample.shape)}, not (batch, width)."
                raise ConfigError(Fault(f"add_encoder('{name}')", what, kind="bad module"))
            width = sample.shape[1]
            self.project = nn.Identity() if width == self.output_dim else nn.Linear(width, self.output_dim)

        def forward(self, values: Tensor) -> Tensor:
            return self.project(self.module(values))

        def state(self) -> JsonObject:
            return {"width": self.width}

        def restore(self, state: JsonObject) -> None:
            self.width = state["width"]

    return ModuleEncoder


def numbers(column: pa.Array, width: int) -> Prepared:
    """Prepare numbers, or lists of numbers.

    Args:
        column: (rows,) the values.
        width: Length of a list; 1 for numbers.

    Returns:
        (rows, width) float32. A row of another length, or with a value that is not finite, is absent.
    """
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


def describe(module: nn.Module, name: str) -> JsonObject:
    """Describe the structure of a module as JSON.

    Args:
        module: The module.
        name: Its name, for the errors.

    Raises:
        ConfigError: If an attribute is neither a JSON value nor something with an import path.
    """
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


def rebuild(description: JsonObject) -> nn.Module:
    """Create a module from its description. Its tensors are 0 until the weights are loaded.

    Raises:
        ModelError: If a class cannot be imported or is not a module.
    """
    cls = _imported(description["class"])
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ModelError(Fault(description["class"], "this is not a torch module.", kind="bad module"))
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    for key, value in description["attributes"].items():
        object.__setattr__(module, key, _restored(value))
    for key, saved in description["parameters"].items():
        module.register_parameter(key, None if saved is None else nn.Parameter(_zeros(saved), saved[2]))
    for key, saved in description["buffers"].items():
        module.register_buffer(key, None if saved is None else _zeros(saved))
    for key, child in description["children"].items():
        module._modules[key] = None if child is None else rebuild(child)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()
    return module


def _zeros(saved: Sequence[Json]) -> Tensor:
    """Return zeros of a saved shape and dtype."""
    return torch.zeros(saved[0], dtype=getattr(torch, saved[1]))


def _value(value: object, where: str) -> Json:
    """Return an attribute as JSON. where: its place, for the error."""
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
    what = f"a {type(value).__name__} cannot be saved with the model."
    raise ConfigError(Fault(where, what, "Keep it as a number, text, list or submodule.", "bad module"))


def _restored(value: Json) -> object:
    """Return the attribute that `_value` described."""
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


def _path(thing: object, where: str) -> str:
    """Return the import path of a class or function, `module:name`. where: its place, for the error."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not module or "<" in name:
        what = f"'{name or thing}' has no import path, so a saved model could not find it."
        raise ConfigError(Fault(where, what, "Define it at a module's top level.", "bad module"))
    return f"{module}:{name}"


def _imported(path: str) -> object:
    """Import `module:name`, or a dtype `torch.name`."""
    module, _, name = path.partition(":")
    if not name:
        module, _, name = path.rpartition(".")
    try:
        thing: object = importlib.import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            Fault(path, f"cannot be imported: {error}.", "Put its module on the import path.", "missing module")
        ) from None
    return thing


def _dtype(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype within torch."""
    return str(tensor.dtype).removeprefix("torch.")


def _width(column: pa.Array) -> int:
    """Return the most frequent length of the lists of a column; 1 for numbers."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return 1
    lengths = pc.drop_null(pc.list_value_length(column))
    return int(pc.mode(lengths)[0]["mode"].as_py()) if len(lengths) else 1
