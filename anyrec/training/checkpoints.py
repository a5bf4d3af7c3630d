"""Checkpoints that a crash cannot damage, without pickle: one safetensors file with its JSON state in the header."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from anyrec.errors import Fault, ModelError
from anyrec.files import atomic_write
from anyrec.training.average import Average
from anyrec.training.optimizers import Optimizer


@dataclass
class Progress:
    """Where training stands after an epoch."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_metric: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    config: str = ""
    """What the run was started with; another config cannot resume it."""


def save_checkpoint(
    path: Path,
    model: nn.Module,
    best: dict[str, torch.Tensor] | None,
    optimizer: Optimizer,
    average: Average | None,
    progress: Progress,
    generator: torch.Generator,
) -> None:
    """Everything that the next epoch depends on, in one file, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.tensors().items()}
    tensors |= {f"best.{name}": value for name, value in (best or {}).items()}
    tensors |= {f"average.{name}": value for name, value in (average.values if average else {}).items()}
    tensors |= {"random.draws": generator.get_state(), "random.torch": torch.get_rng_state()}
    if next(model.parameters()).is_cuda:
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(copies, temporary, metadata={"progress": json.dumps(asdict(progress))})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    average: Average | None,
    generator: torch.Generator,
    config: str,
) -> tuple[Progress, dict[str, torch.Tensor] | None]:
    """Put everything back. Raises ModelError for a damaged file or one of another config or data."""
    try:
        with safe_open(path, "pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ModelError(
            Fault(str(path), f"this checkpoint cannot be read: {error}.", "Train without --resume.", "damaged")
        ) from None
    if progress.config != config:
        raise ModelError(
            Fault(
                str(path),
                "this checkpoint is of another config or other data.",
                "Train without --resume, or restore them.",
                "foreign",
            )
        )

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    device = next(model.parameters()).device
    model.load_state_dict(part("model."))
    optimizer.load_tensors(part("optimizer."))
    if average is not None:
        average.load(part("average."))
    generator.set_state(tensors["random.draws"])
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    best = {name: value.to(device) for name, value in part("best.").items()}
    return progress, best or None
