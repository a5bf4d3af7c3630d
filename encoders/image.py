"""Images by a small convolutional net of our own, or by any torchvision backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Context, Encoder, Params
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.outside import ALLOW, Outside
from anyrec.core.progress import progress_bar
from anyrec.core.ragged import Prepared, Ragged
from anyrec.core.vector_cache import cached_vectors, digest_of
from anyrec.data.images import load_images
from anyrec.data.list_columns import flat, offsets_of


def is_weights_file(weights: Any) -> bool:
    """Whether pretrained weights are named by a file, not by a name of torchvision."""
    return isinstance(weights, str) and Path(weights).suffix in (".pth", ".pt", ".safetensors")


class CNN(Encoder):
    """A small convolutional net, trained from scratch with the rest. Several images: the mean of their vectors."""

    type = "cnn"
    preferred = True
    group = "image"

    class Params(Params):
        size: int = Field(32, ge=8, le=256, description="Images are fitted into a square of so many pixels.")
        channels: int = Field(
            16, ge=8, le=1024, multiple_of=8, description="Of the first layer; each next one doubles them."
        )

    def prepare(self, column: pa.Array) -> Ragged:
        """Ragged (images, 3, size, size) uint8."""
        return pixels(column, self.context, self.params.size)

    def build(self) -> None:
        width = self.params.channels
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            # Group, not batch, normalisation: one image alone must give what it gives among a thousand.
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(8 * width, self.output_dim)

    def forward(self, values: Ragged) -> Tensor:
        """values: rows of images -> (batch, output_dim)."""
        if not len(values.values):
            return self.project.bias.new_zeros(values.rows, self.output_dim)
        maps = self.layers(values.values.to(self.project.weight.dtype) / 127.5 - 1)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return values.mean(self.project(pooled))


class Torchvision(Encoder):
    """A torchvision backbone without its classifier. Several images: the mean of their vectors.

    `frozen` runs each distinct file through it once and caches the vectors on disk; otherwise it is trained with the
    rest, its batch normalisation kept at its running statistics so that a batch of one equals a batch of many.
    """

    type = "torchvision"
    group = "image"

    class Params(Params):
        model: str = Field("resnet18", description="A name that torchvision.models.list_models() has.")
        weights: Annotated[str | None, Outside("a file of weights", names_something=is_weights_file)] = Field(
            "DEFAULT", description="Pretrained weights by name, a .pth or .safetensors file, or null for none."
        )
        frozen: bool = Field(True, description="Keep the backbone as it is and cache its vectors.")
        size: int = Field(224, ge=32, le=1024, description="Images are fitted into a square of so many pixels.")

    restored = False

    def saved_params(self) -> dict[str, Any]:
        """A backbone that was trained with the rest is saved with the rest: the file it began with is not needed again."""
        return {**super().saved_params(), **({} if self.params.frozen else {"weights": None})}

    def restore(self, state: dict[str, Any]) -> None:
        self.restored = True

    def prepare(self, column: pa.Array) -> Prepared | Ragged:
        if not self.params.frozen:
            return pixels(column, self.context, self.params.size)
        names, offsets = file_names(column)
        make = partial(fit_square, size=self.params.size)
        vectors, readable = file_vectors(names, self.context, repr(self.params), make, self.params.size, self._embed)
        if not len(vectors) and self.input_dim:
            vectors = torch.zeros(0, self.input_dim)
        return mean_of_readable(vectors, readable, offsets)

    def build(self) -> None:
        if self.params.frozen:
            super().build()
        else:
            weights = None if self.restored else self.params.weights  # the saved weights replace them all
            self.backbone, width = make_backbone(self.params.model, weights, self.context)
            self.project = nn.Linear(width, self.output_dim)

    def forward(self, values: Any) -> Tensor:
        """Vectors (batch, width), or rows of images -> (batch, output_dim)."""
        if self.params.frozen:
            return self.project(values)
        if not len(values.values):
            return self.project.bias.new_zeros(values.rows, self.output_dim)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return values.mean(self.project(self.backbone(normalised(values.values)).flatten(1)))

    def _embed(self, images: list[Tensor]) -> Tensor:
        """images: (3, size, size) uint8 each -> (images, width)"""
        backbone, _ = make_backbone(self.params.model, self.params.weights, self.context)
        backbone = backbone.eval().to(self.context.device)
        parts = []
        with torch.inference_mode(), progress_bar("embedding images", len(images)) as bar:
            for start in range(0, len(images), 32):
                batch = torch.stack(images[start : start + 32])
                parts.append(backbone(normalised(batch.to(self.context.device))).flatten(1).float().cpu())
                bar.advance(len(batch))
        return torch.cat(parts)


def file_names(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """File names of every row, and (rows + 1,) offsets."""
    names, owners = flat(column)
    return names.to_pylist(), offsets_of(owners, len(column))


def pixels(column: pa.Array, context: Context, size: int) -> Ragged:
    """Each row's readable images as Ragged (images, 3, size, size) uint8."""
    names, offsets = file_names(column)
    images, readable = load_images(names, context, partial(fit_square, size=size), size)
    values = torch.stack(images) if images else torch.zeros(0, 3, size, size, dtype=torch.uint8)
    counted = np.concatenate([[0], np.cumsum(readable)])
    return Ragged(values, torch.from_numpy(counted[offsets].astype(np.int64)))


def fit_square(image: Image.Image, size: int) -> Tensor:
    """(3, size, size) uint8: the image shrunk to fit, its proportions kept, on the colour of its mean."""
    scale = size / max(image.size)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
    square = np.empty((size, size, 3), np.uint8)
    square[:] = small.reshape(-1, 3).mean(0)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = small
    return torch.from_numpy(square).permute(2, 0, 1).contiguous()


def normalised(images: Tensor) -> Tensor:
    """(images, 3, size, size) uint8 -> float with the mean and deviation of ImageNet, as torchvision's weights expect."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=images.device).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / deviation


def file_vectors(
    names: list[str], context: Context, parameters: str, make: Callable[[Image.Image], Any], side: int, embed: Any
) -> tuple[Tensor, np.ndarray]:
    """Return the vectors of the readable files, in order, each distinct content embedded once, and (names,) which are readable.

    Args:
        parameters: All that decides an image's vector, for the cache.
        make: From an opened image to what is kept of it until it is embedded: an array or tensor of a fixed small size.
        side: The side in pixels that `make` resamples to.
        embed: From a list of what `make` returned to their vectors `(images, width)`.
    """
    distinct = list(dict.fromkeys(names))
    place = {name: index for index, name in enumerate(distinct)}
    images, readable = load_images(distinct, context, make, side)
    if not images:
        return torch.zeros(0, 0), np.zeros(len(names), bool)
    keys = [digest_of(repr(image.shape).encode() + np.asarray(image).tobytes()) for image in images]
    vectors = cached_vectors(keys, parameters, lambda rows: embed([images[row] for row in rows]), context.cache)
    row = np.cumsum(readable) - 1
    places = np.fromiter((place[name] for name in names), np.int64, len(names))
    return vectors[torch.from_numpy(row[places][readable[places]])], readable[places]


def mean_of_readable(vectors: Tensor, readable: np.ndarray, offsets: np.ndarray) -> Prepared:
    """The mean of each row's vectors; absent where none of its files is readable."""
    counted = torch.from_numpy(np.concatenate([[0], np.cumsum(readable)])[offsets].astype(np.int64))
    ragged = Ragged(vectors, counted)
    return Prepared(ragged.mean(), ragged.lengths > 0)


def make_backbone(name: str, weights: str | None, context: Context) -> tuple[nn.Module, int]:
    """A torchvision model whose last linear layer is gone, and the width of what is left.

    For a model that is not trusted nothing is downloaded and no file of weights is read.
    """
    from torchvision import models

    if name not in models.list_models():
        from anyrec.core.errors import did_you_mean

        raise ConfigError(
            Fault(
                "/features/image/model", f"torchvision has no model '{name}'.", did_you_mean(name, models.list_models())
            )
        )
    from_file = is_weights_file(weights)
    if weights is not None and not context.trusted and (from_file or not _is_downloaded(name, weights)):
        what = f"the weights '{weights}' of {name} are not in torchvision's cache on this machine."
        raise ConfigError(Fault("/features/image/weights", what, ALLOW, "untrusted"))
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        try:
            model = models.get_model(name, weights=None if from_file else weights)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            hint = "Give the path of a weights file, or null to start from random ones."
            raise ConfigError(
                Fault(
                    "/features/image/weights",
                    f"'{weights}' for {name} cannot be had: {error}.",
                    hint,
                    "no such weights",
                )
            ) from None
    if from_file:
        _load_weights(model, str(weights))
    for parent in reversed(list(model.modules())):
        for child, layer in reversed(list(parent.named_children())):
            if isinstance(layer, nn.Linear):
                setattr(parent, child, nn.Identity())
                return model, layer.in_features
    raise ConfigError(
        Fault("/features/image/model", f"'{name}' has no last linear layer to take off.", "Choose another model.")
    )


def _is_downloaded(name: str, weights: str) -> bool:
    """Whether torchvision has the weights of that name in its cache."""
    from torchvision import models

    try:
        url = models.get_model_weights(name)[weights].url
    except (KeyError, ValueError):
        return True  # there are no such weights, which `get_model` says
    return (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]).is_file()


def _load_weights(model: nn.Module, path: str) -> None:
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            model.load_state_dict(load_file(path))
        else:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            Fault("/features/image/weights", f"'{path}' cannot be used: {reason}.", "Give weights of this model.")
        ) from None
