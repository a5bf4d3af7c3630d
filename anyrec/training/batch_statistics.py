"""Batch normalisation in trainings by several processes: each would see the statistics of its own rows only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from anyrec.core.errors import ConfigError, Fault
from anyrec.core.processes import Processes
from anyrec.model.two_tower_network import TwoTower

HINT = (
    "Use nn.LayerNorm, keep its statistics by `module.eval()` before each forward pass, or train with one process "
    "(docs/distributed.md)."
)


@contextmanager
def batch_statistics_refused(model: TwoTower, processes: Processes) -> Iterator[None]:
    """Refuse, within the block, layers that compute statistics of a batch, if several processes share each step.

    Layers in evaluation mode use the statistics that they have, as those of a pretrained backbone do.

    Raises:
        ConfigError: When such a layer is used.
    """
    layers = [] if processes.alone else model.named_modules()
    hooks = [
        layer.register_forward_pre_hook(partial(_check, model, path))
        for path, layer in layers
        if isinstance(layer, _NormBase)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check(model: TwoTower, path: str, layer: _NormBase, _: object) -> None:
    """Raise ConfigError if a layer computes statistics of the batch. path: Its name in the model."""
    if isinstance(layer, _BatchNorm):
        computes = layer.training or layer.running_mean is None
    else:  # instance normalisation: of each row, but with a running mean over the rows
        computes = layer.training and layer.track_running_stats
    if computes:
        what = f"{type(layer).__name__} computes the statistics of the rows of one process, not of the whole step."
        raise ConfigError(Fault(_place(model, path), what, HINT, "not divisible"))


def _place(model: TwoTower, path: str) -> str:
    """Return which feature's encoder has a module, and its name there; `path` if it is in no encoder."""
    side, *inner = path.split(".")
    if inner[:1] != ["encoders"]:
        return path
    tower = model.user if side == "user" else model.item
    return f"encoder of the {side} feature '{tower.features[int(inner[1])]}', module '{'.'.join(inner[2:])}'"
