"""A dense and a sparse optimizer behind one interface, and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from anyrec.core.config import OptimizerConfig, SchedulerConfig
from anyrec.core.errors import ConfigError, Fault

DENSE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
}


class Optimizer:
    """SparseAdam for embedding tables with sparse gradients, the configured optimizer for all other parameters.

    Args:
        model: The model. Large tables are switched to sparse gradients as the config says (`choose_sparse_tables`).
        config: The options of `training.optimizer`.

    Attributes:
        dense: The parameters with dense gradients.
        sparse: The tables with sparse gradients.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig):
        choose_sparse_tables(model, config)
        sparse: dict[int, Any] = {
            id(t.weight): t.weight for t in model.modules() if isinstance(t, nn.Embedding) and t.sparse
        }
        dense = [parameter for parameter in model.parameters() if id(parameter) not in sparse]
        rate = config.learning_rate
        self.dense, self.sparse = dense, list[nn.Parameter](sparse.values())
        self.parts: list[torch.optim.Optimizer] = []
        if dense:
            options = {"weight_decay": config.weight_decay, "fused": True}
            self.parts.append(DENSE[config.type](dense, lr=rate, **options))
        if sparse:
            self.parts.append(torch.optim.SparseAdam(self.sparse, lr=rate))

    def zero_grad(self) -> None:
        """Remove all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update all parameters."""
        for part in self.parts:
            part.step()

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of all parameters."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def place(self, parameter: torch.Tensor) -> str:
        """Return the beginning of the names of a parameter's state in `tensors`."""
        for index, part in enumerate(self.parts):
            for place, one in enumerate(part.param_groups[0]["params"]):
                if one is parameter:
                    return f"{index}.{place}"
        raise ValueError("the optimizer does not have this parameter")

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state as tensors, named by part, parameter and value: for a checkpoint without pickle."""
        found = {}
        for index, part in enumerate(self.parts):
            for place, state in part.state_dict()["state"].items():
                for name, value in state.items():
                    found[f"{index}.{place}.{name}"] = torch.as_tensor(value)
        return found

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned."""
        for index, part in enumerate(self.parts):
            state: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                which, place, name = key.split(".")
                if int(which) == index:
                    # SparseAdam counts its steps by an int; the dense optimizers, being fused, by a tensor.
                    is_count = isinstance(part, torch.optim.SparseAdam) and name == "step"
                    state.setdefault(int(place), {})[name] = int(value) if is_count else value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def choose_sparse_tables(model: nn.Module, config: OptimizerConfig) -> None:
    """Set the norm limit of all embedding tables, and give some of them sparse gradients.

    With `sparse: auto` these are tables of at least `sparse_rows` rows, unless weight decay or `max_norm` is set, which
    need dense gradients.

    Raises:
        ConfigError: If an encoder has made a table with sparse gradients and the optimizer needs dense ones. Options of
            built-in encoders are checked before (`anyrec.core.check_config`).
    """
    allowed = config.weight_decay == 0 and config.max_norm is None
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding):
            if table.sparse and not allowed:
                what = f"the table '{name}' has sparse gradients, which cannot go with weight_decay or max_norm."
                hint = "Leave these options out, or make the table dense."
                raise ConfigError(Fault("/training/optimizer", what, hint, "combination"))
            table.max_norm = config.max_norm
            if config.sparse is True or (
                config.sparse == "auto" and allowed and table.num_embeddings >= config.sparse_rows
            ):
                table.sparse = True


def learning_rate(step: int, steps: int, config: SchedulerConfig, rate: float) -> float:
    """Return the learning rate of a step.

    It rises linearly during the warm-up. Then it is constant, or falls to zero linearly or as a half cosine.

    Args:
        step: The step, from 0.
        steps: Steps of the whole training.
        config: The options of `training.scheduler`.
        rate: The highest learning rate.
    """
    warm = max(1, round(config.warmup * steps)) if config.warmup else 0
    if step < warm:
        return rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)  # fraction of the steps after the warm-up
    if config.type == "cosine":
        return rate * (1 + math.cos(math.pi * done)) / 2
    return rate * (1 - done) if config.type == "linear" else rate
