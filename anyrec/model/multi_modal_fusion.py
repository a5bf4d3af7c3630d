"""A fusion over vectors that a program has, by one of the fusion components."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.model.towers import EntityTower, check_sizes


class MultiModalFusion(EntityTower):
    """Joins vectors of several modalities, each projected to the output's size, by one of the fusions.

    Args:
        modality_dims: The size of the vectors of each modality by name.
        output_dim: Size of the result.
        strategy: A fusion: its name (`attention`, `gated`, `weighted`, `bilinear`, `concat`, ...; `anyrec plugins`
            lists all), or an object of `type` and options as in a config.
        registry: The components to choose from; by default the built-in and the installed ones.

    Raises:
        ConfigError: If there is no such fusion, or an option is invalid.

    Example:
        >>> fusion = MultiModalFusion({"text": 768, "image": 2048}, output_dim=64, strategy="gated")
        >>> vectors = {"text": torch.randn(4, 768), "image": torch.randn(4, 2048)}
        >>> has_image = torch.tensor([True, True, False, True])
        >>> fusion(vectors, {"image": has_image}).shape
        torch.Size([4, 64])
    """

    def __init__(
        self,
        modality_dims: Mapping[str, int],
        output_dim: int,
        strategy: str | JsonObject = "attention",
        *,
        registry: Registry | None = None,
    ):
        check_sizes(modality_dims, output_dim, None)
        projections = {name: nn.Linear(size, output_dim) for name, size in sorted(modality_dims.items())}
        super().__init__(projections, output_dim, fusion=strategy, registry=registry)
