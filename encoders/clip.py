"""Images by the image half of a CLIP model: frozen with cached vectors, or fine-tuned."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Context, Encoder, Params
from anyrec.core.outside import Outside, is_path
from anyrec.core.ragged import Padded, Prepared, Ragged, tensors_of
from anyrec.core.types import JsonObject
from anyrec.data.preparation.image_arrays import SIDE, file_names, image_lists, middle_square, reduced
from anyrec.encoders.clip_model import DEFAULT, ClipModel, features
from anyrec.encoders.image import file_vectors, mean_of_readable


class OfClip(Encoder):
    """What the encoders of texts and of images by a CLIP model share: the model, and its space."""

    joint = True

    class Params(Params):
        model: Annotated[str, Outside("a folder of a pretrained model", names_something=is_path)] = Field(
            DEFAULT, description="Name or folder of a CLIP model."
        )
        frozen: bool = Field(True, description="Do not train the model, and cache its vectors.")

    @property
    def space(self) -> str:
        """The space of the model, which encoders of texts and of images share."""
        return f"clip {self.params.model}"

    def fit(self, column: pa.Array) -> None:
        """Load the model if it is to be trained, so that one that cannot be loaded is an error before any training."""
        if not self.params.frozen:
            self._model()

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Return (texts, width) float32, vectors that can be compared with those of images."""
        return self._model().embed_texts(texts)

    def embed_images(self, names: list[str]) -> Tensor:
        """Return (names, width) float32 of image files, zeros for those that cannot be read."""
        return image_vectors(names, self.params.model, self.context, self.where)

    def _model(self) -> ClipModel:
        """Return the model, which is loaded when it is first needed."""
        return ClipModel(self.params.model, self.context, self.where)


class Clip(OfClip):
    """The image vector of a CLIP model, projected. Several images: the mean of their vectors.

    If `frozen`, the vectors are cached on disk, and texts can be compared with them: queries of a search, and texts of
    items that the encoder `clip_text` reads by the same model. Otherwise the image half of the model is trained, saved
    and loaded with the recommender, and its space is no longer that of texts.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """

    type = "clip"
    group = "image"
    reads_files = True
    preparation = "clip_images"

    def load(self) -> None:
        """Load the model."""
        self._model()

    def prepare(self, column: pa.Array) -> Prepared | Ragged:
        """Read, and if `frozen` embed, the readable images of each record.

        Args:
            column: (records,) file names, or lists of them.

        Returns:
            If `frozen`, the mean vectors (records, width) float32; otherwise the images of each record, (images, 3,
            size, size) uint8. A record without a readable image is absent.
        """
        if not self.params.frozen:
            return tensors_of(image_lists(column, self.context, self._model().image_size, middle_square))
        names, offsets = file_names(column)
        vectors, readable = _file_vectors(names, self.params.model, self.context, self.where)
        if not len(vectors) and self.input_dim:
            vectors = torch.zeros(0, self.input_dim)
        return mean_of_readable(vectors, readable, offsets)

    def build(self) -> None:
        """Create the projection, and the image half of the model if it is trained."""
        if self.params.frozen:
            super().build()
        else:
            model = self._model()
            self.backbone: Any = model.half("image")
            self.statistics: Tensor
            self.register_buffer("statistics", model.pixel_statistics(), persistent=False)
            self.project = nn.Linear(model.dim, self.output_dim)

    def export_fault(self) -> str:
        """Return why the encoder cannot be exported: an export resizes and crops images as CLIP does, not otherwise."""
        other = self.params.frozen and not self._model().crops_middle
        return super().export_fault() or ("its model does not read the middle square of images" if other else "")

    def exported_state(self) -> JsonObject:
        """Return the side of the images in pixels."""
        return {"size": self._model().image_size}

    def exported_layers(self) -> nn.Module:
        """Return the image half with the projection: an export has no cache of vectors."""
        if not self.params.frozen:
            return self
        model = self._model()
        return ClipBackbone(model.copy(), model.pixel_statistics(), self.project)

    def forward(self, values: Tensor | Ragged) -> Tensor:
        """Project the cached vectors, or encode the images of each record and average.

        Args:
            values: Vectors (batch, width), or the images of each of `batch` records, (images, 3, size, size) uint8.

        Returns:
            (batch, output_dim); a record without an image has a zero vector.
        """
        if isinstance(values, Tensor):
            return self.project(values)
        if not len(values.values):
            return self.project.bias.new_zeros(values.rows, self.output_dim)
        output = self.backbone.get_image_features(pixel_values=_standardised(values.values, self.statistics))
        return values.mean(self.project(features(output)))


class ClipBackbone(nn.Module):
    """A frozen CLIP model and the projection of the mean of its vectors of images."""

    def __init__(self, model: nn.Module, statistics: Tensor, project: nn.Module):
        super().__init__()
        self.model, self.project = model, project
        self.statistics: Tensor
        self.register_buffer("statistics", statistics)

    def forward(self, values: Padded) -> Tensor:
        """Return (batch, output_dim) for the images of each record, (images, 3, size, size) uint8."""
        pixels = {"modality": "image", "pixel_values": _standardised(values.values, self.statistics)}
        return self.project(values.mean(self.model(pixels)["sentence_embedding"]))


def _standardised(images: Tensor, statistics: Tensor) -> Tensor:
    """Return uint8 images (images, 3, size, size) as float32, by the mean and the deviation `statistics: (2, 3)`."""
    mean, deviation = statistics.view(2, 1, 3, 1, 1)
    return (images.float() / 255 - mean) / deviation


def image_vectors(names: list[str], model: str, context: Context, where: str) -> Tensor:
    """Return (names, width) float32, the vectors of image files; zeros for files that cannot be read.

    Args:
        names: The files.
        model: Name or folder of the CLIP model.
        context: Where files and cached vectors are.
        where: JSON pointer of the encoder's options.
    """
    vectors, readable = _file_vectors(names, model, context, where)
    width = vectors.shape[1] or ClipModel(model, context, where).dim
    every = torch.zeros(len(names), width)
    every[torch.from_numpy(readable)] = vectors.reshape(-1, width)
    return every


def _file_vectors(names: list[str], model: str, context: Context, where: str) -> tuple[Tensor, np.ndarray]:
    """Return the vectors (readable files, width), and (names,) bool, which files are readable."""

    def embed(images: list[np.ndarray]) -> Tensor:
        return ClipModel(model, context, where).embed_images(images)

    return file_vectors(names, context, f"clip {model}", reduced, 2 * SIDE, embed)
