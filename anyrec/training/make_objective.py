"""The choice of the training objective."""

from __future__ import annotations

import torch

from anyrec.core.config import Config
from anyrec.core.processes import ALONE, Processes
from anyrec.core.registry import Registry
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.labelled_objective import LabelledObjective
from anyrec.training.objective import TrainingObjective
from anyrec.training.samples import TrainingData


def make_objective(
    model: TwoTower,
    data: TrainingData,
    config: Config,
    registry: Registry,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> TrainingObjective:
    """Create the objective that the config's sampler of negatives needs; arguments as for `TrainingObjective`."""
    labelled = registry.get("sampler", config.negatives.type).labelled
    return (LabelledObjective if labelled else TrainingObjective)(model, data, config, registry, generator, processes)
