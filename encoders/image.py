"""Images by a small convolutional network, or by a torchvision backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Context, Encoder, Params
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.once import Once
from anyrec.core.outside import ALLOW, Outside
from anyrec.core.progress import progress_bar
from anyrec.core.ragged import Padded, Prepared, Ragged, tensors_of
from anyrec.core.time_limit import check_time
from anyrec.core.vector_cache import cached_vectors, digest_of
from anyrec.data.images import image_blocks
from anyrec.data.preparation.image_arrays import file_names, fit_square, image_lists, readable_offsets

Pixels = TypeVar("Pixels", Tensor, np.ndarray)
"""An image as an array or tensor."""
BATCH = 32
"""Images in a forward pass of a frozen backbone."""


def is_weights_file(weights: object) -> bool:
    """Return whether pretrained weights are given as a file, not as a name that torchvision knows."""
    return isinstance(weights, str) and Path(weights).suffix in (".pth", ".pt", ".safetensors")


class CNN(Encoder):
    """A small convolutional network, trained from scratch. Several images: the mean of their vectors.

    Three convolutions of stride 2, each with group normalisation, then mean and maximum over all positions.
    """

    type = "cnn"
    preferred = True
    group = "image"
    reads_files = True
    preparation = "images"

    class Params(Params):
        size: int = Field(32, ge=8, le=256, description="Side in pixels of the square that images are fitted into.")
        channels: int = Field(
            16,
            ge=8,
            le=1024,
            multiple_of=8,
            description="Channels of the first of three layers; each doubles the last.",
        )

    def prepare(self, column: pa.Array) -> Ragged:
        """Return the readable images of each record, (images, 3, size, size) uint8.

        Args:
            column: (records,) file names, or lists of them.
        """
        return tensors_of(image_lists(column, self.context, self.params.size))

    def build(self) -> None:
        """Create the layers."""
        width = self.params.channels
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            # Group normalisation, not batch normalisation: a vector must not depend on the other images of the batch.
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(8 * width, self.output_dim)

    def forward(self, values: Ragged) -> Tensor:
        """Encode the images of each record, and average.

        Args:
            values: The images of each of `batch` records, (images, 3, size, size) uint8.

        Returns:
            (batch, output_dim); a record without an image has a zero vector.
        """
        if not values.values.shape[0]:
            return self.project.bias.new_zeros(values.rows, self.output_dim)
        maps = self.layers(values.values.to(self.project.weight.dtype) / 127.5 - 1)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return values.mean(self.project(pooled))


class Torchvision(Encoder):
    """A torchvision backbone without its classifier. Several images: the mean of their vectors.

    If `frozen`, each distinct image runs through the backbone once, and its vector is cached on disk. Otherwise the
    backbone is trained with the rest of the model. Its batch normalisation then keeps its running statistics, so that a
    vector does not depend on the other images of the batch.
    """

    type = "torchvision"
    group = "image"
    reads_files = True
    preparation = "images"

    class Params(Params):
        model: str = Field("resnet18", description="Name of a model in torchvision.models.list_models().")
        weights: Annotated[str | None, Outside("a file of weights", names_something=is_weights_file)] = Field(
            "DEFAULT",
            description="Pretrained weights: a name, a .pth or .safetensors file, or null for random weights.",
        )
        frozen: bool = Field(True, description="Do not train the backbone, and cache its vectors.")
        size: int = Field(224, ge=32, le=1024, description="Side in pixels of the square that images are fitted into.")

    restored = False
    """True for an encoder of a saved model, whose weights replace those that `weights` names."""

    def saved_params(self) -> dict[str, Any]:
        """Return the options, without the file of weights if the trained backbone is saved with the model."""
        return {**super().saved_params(), **({} if self.params.frozen else {"weights": None})}

    def restore(self, state: dict[str, Any]) -> None:
        self.restored = True

    def load(self) -> None:
        """Make the frozen backbone, and run it once. A trained one is part of the model."""
        if self.params.frozen:
            self._embed([np.zeros((3, self.params.size, self.params.size), np.uint8)])

    def prepare(self, column: pa.Array) -> Prepared | Ragged:
        """Read, and if `frozen` embed, the readable images of each record.

        Args:
            column: (records,) file names, or lists of them.

        Returns:
            If `frozen`, the mean vectors (records, width) float32; otherwise the images of each record, (images, 3,
            size, size) uint8. A record without a readable image is absent.
        """
        if not self.params.frozen:
            return tensors_of(image_lists(column, self.context, self.params.size))
        names, offsets = file_names(column)
        make = partial(fit_square, size=self.params.size)
        vectors, readable = file_vectors(names, self.context, repr(self.params), make, self.params.size, self._embed)
        if not len(vectors) and self.input_dim:
            vectors = torch.zeros(0, self.input_dim)
        return mean_of_readable(vectors, readable, offsets)

    def build(self) -> None:
        """Create the projection, and the backbone if it is trained."""
        if self.params.frozen:
            super().build()
        else:
            weights = None if self.restored else self.params.weights
            self.backbone, width = make_backbone(self.params.model, weights, self.context)
            self.project = nn.Linear(width, self.output_dim)

    def forward(self, values: Tensor | Ragged) -> Tensor:
        """Project the cached vectors, or encode the images of each record and average.

        Args:
            values: Vectors (batch, width), or the images of each of `batch` records, (images, 3, size, size) uint8.

        Returns:
            (batch, output_dim); a record without an image has a zero vector.
        """
        if isinstance(values, Tensor):
            return self.project(values)
        if not values.values.shape[0]:
            return self.project.bias.new_zeros(values.rows, self.output_dim)
        for module in self.backbone.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                module.eval()
        return values.mean(self.project(self.backbone(normalised(values.values)).flatten(1)))

    def exported_layers(self) -> nn.Module:
        """Return the backbone with the projection: an export has no cache of vectors."""
        return ImageBackbone(self._make_frozen("cpu"), self.project) if self.params.frozen else self

    def _frozen_backbone(self) -> nn.Module:
        """Return the backbone on the device of the computation: made when first needed, then kept."""
        with _KEEPING:
            kept = _kept.setdefault(self, Once())
        device = self.context.device
        return kept.get(device, lambda: self._make_frozen(device))

    def _make_frozen(self, device: str) -> nn.Module:
        backbone, _ = make_backbone(self.params.model, self.params.weights, self.context)
        return backbone.eval().to(device)

    def _embed(self, images: list[np.ndarray]) -> Tensor:
        """Run images through the frozen backbone.

        Args:
            images: (3, size, size) uint8 each.

        Returns:
            (images, width) float32.
        """
        parts, backbone = [], self._frozen_backbone()
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                check_time()
                batch = torch.from_numpy(np.stack(images[start : start + BATCH]))
                parts.append(backbone(normalised(batch.to(self.context.device))).flatten(1).float().cpu())
        return torch.cat(parts)


_KEEPING = Lock()
_kept: WeakKeyDictionary[Torchvision, Once[nn.Module]] = WeakKeyDictionary()
"""The frozen backbones of encoders by device. Not attributes of the encoder, whose copies and files have none."""


class ImageBackbone(nn.Module):
    """A frozen backbone and the projection of the mean of its vectors."""

    def __init__(self, backbone: nn.Module, project: nn.Module):
        super().__init__()
        self.backbone, self.project = backbone, project

    def forward(self, values: Padded) -> Tensor:
        """Return (batch, output_dim) for the images of each record, (images, 3, size, size) uint8."""
        return self.project(values.mean(self.backbone(normalised(values.values)).flatten(1)))


def normalised(images: Tensor) -> Tensor:
    """Standardise images by the statistics of ImageNet, as torchvision's weights expect.

    Args:
        images: (images, 3, size, size) uint8.

    Returns:
        The same shape, float32.
    """
    mean = torch.tensor([0.485, 0.456, 0.406], device=images.device).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / deviation


def file_vectors(
    names: list[str],
    context: Context,
    parameters: str,
    make: Callable[[Image.Image], Pixels],
    side: int,
    embed: Callable[[list[Pixels]], Tensor],
) -> tuple[Tensor, np.ndarray]:
    """Embed image files, each distinct content once, through the vector cache.

    Args:
        names: File names; repeats are allowed.
        context: Where files and cached vectors are.
        parameters: Everything that an image's vector depends on, as the key of the cache.
        make: Reduces an opened image to an array or tensor of a small fixed size. Those of one block of images are in
            memory at once.
        side: Side in pixels that `make` resamples to.
        embed: Turns a list of what `make` returned into (images, width) vectors.

    Returns:
        (readable files, width) float32, in the order of `names`; and (names,) bool, which files are readable.
    """
    distinct = list(dict.fromkeys(names))
    place = {name: index for index, name in enumerate(distinct)}
    parts, known = [], [np.empty(0, bool)]
    with progress_bar("embedding images", len(distinct)) as bar:
        for images, there in image_blocks(distinct, context, make, side):
            known.append(there)
            if images:
                parts.append(_cached(images, parameters, embed, context))
            bar.advance(len(there))
    if not parts:
        return torch.zeros(0, 0), np.zeros(len(names), bool)
    vectors, readable = torch.cat(parts), np.concatenate(known)
    row = np.cumsum(readable) - 1
    places = np.fromiter((place[name] for name in names), np.int64, len(names))
    return vectors[torch.from_numpy(row[places][readable[places]])], readable[places]


def _cached(images: list[Pixels], parameters: str, embed: Callable[[list[Pixels]], Tensor], context: Context) -> Tensor:
    """Return (images, width) float32 vectors, through the cache. Arguments as of `file_vectors`."""
    keys = [digest_of(repr(image.shape).encode() + np.asarray(image).tobytes()) for image in images]
    return cached_vectors(keys, parameters, lambda rows: embed([images[row] for row in rows]), context.cache)


def mean_of_readable(vectors: Tensor, readable: np.ndarray, offsets: np.ndarray) -> Prepared:
    """Average the vectors of each record's readable files; a record without one is absent.

    Args:
        vectors: (readable files, width).
        readable: (files,) bool.
        offsets: (records + 1,) of the files of each record.
    """
    counted = torch.from_numpy(readable_offsets(readable, offsets))
    ragged = Ragged(vectors, counted)
    return Prepared(ragged.mean(), ragged.lengths > 0)


def make_backbone(name: str, weights: str | None, context: Context) -> tuple[nn.Module, int]:
    """Return a torchvision model without its last linear layer, and the dimension of its output.

    For a model that is not trusted nothing is downloaded, and no file of weights is read.

    Raises:
        ConfigError: If there is no such model, or its weights cannot be loaded.
    """
    from torchvision import models

    if name not in models.list_models():
        raise ConfigError(
            Fault(
                "/features/image/model", f"torchvision has no model '{name}'.", did_you_mean(name, models.list_models())
            )
        )
    from_file = is_weights_file(weights)
    if weights is not None and not context.trusted and (from_file or not _is_downloaded(name, weights)):
        what = f"the weights '{weights}' of {name} are not in torchvision's cache on this machine."
        raise ConfigError(Fault("/features/image/weights", what, ALLOW, "untrusted"))
    with torch.random.fork_rng():  # the weights depend on the seed only, not on what was drawn before
        torch.manual_seed(context.seed)
        try:
            model = models.get_model(name, weights=None if from_file else weights)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            what = f"the weights '{weights}' of {name} cannot be loaded: {error}."
            hint = "Give the path of a weights file, or null to start from random weights."
            raise ConfigError(Fault("/features/image/weights", what, hint, "no such weights")) from None
    if from_file:
        _load_weights(model, str(weights))
    for parent in reversed(list(model.modules())):
        for child, layer in reversed(list(parent.named_children())):
            if isinstance(layer, nn.Linear):
                setattr(parent, child, nn.Identity())
                return model, layer.in_features
    raise ConfigError(
        Fault(
            "/features/image/model",
            f"'{name}' has no last linear layer that could be removed.",
            "Choose another model.",
        )
    )


def _is_downloaded(name: str, weights: str) -> bool:
    """Return whether the weights are in torchvision's cache."""
    from torchvision import models

    try:
        url = models.get_model_weights(name)[weights].url
    except (KeyError, ValueError):
        return True  # there are no such weights; `get_model` raises the error
    return (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]).is_file()


def _load_weights(model: nn.Module, path: str) -> None:
    """Load weights from a .pth, .pt or .safetensors file. Raises ConfigError if they do not fit."""
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
