"""Images by the image half of a CLIP model, through sentence-transformers: frozen, with cached vectors."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Encoder, Params
from anyrec.core.outside import Outside, is_path
from anyrec.core.ragged import Prepared
from anyrec.encoders.image import file_names, file_vectors, mean_of_readable
from anyrec.encoders.sentence import backbone

SIDE = 448
"""Images are kept with a shorter side of at most so many pixels: CLIP models read 224 to 336."""


class Clip(Encoder):
    """CLIP's image vector (Radford et al., 2021), projected. Several images: the mean of their vectors."""

    type = "clip"
    group = "image"
    joint = True

    class Params(Params):
        model: Annotated[str, Outside("a folder of a pretrained model", names_something=is_path)] = Field(
            "sentence-transformers/clip-ViT-B-32", description="A CLIP model's name or folder."
        )

    def prepare(self, column: pa.Array) -> Prepared:
        names, offsets = file_names(column)
        vectors, readable = file_vectors(
            names, self.context, f"clip {self.params.model}", _square, 2 * SIDE, self._embed
        )
        if not len(vectors) and self.input_dim:
            vectors = torch.zeros(0, self.input_dim)
        return mean_of_readable(vectors, readable, offsets)

    def _embed(self, images: list[np.ndarray]) -> Tensor:
        model = backbone(self.params.model, self.context).to(self.context.device)
        pictures = [Image.fromarray(one) for one in images]
        return model.encode(pictures, batch_size=16, convert_to_tensor=True, show_progress_bar=False).float().cpu()

    def embed_texts(self, texts: list[str]) -> Tensor:
        model = backbone(self.params.model, self.context).to(self.context.device)
        return model.encode(texts, convert_to_tensor=True, show_progress_bar=False).float().cpu()


def _square(image: Image.Image) -> np.ndarray:
    """(height, width, 3) uint8: at most 4 times as long as wide, and the shorter side at most SIDE. CLIP reads the middle square."""
    width, height = image.size
    long = 4 * min(width, height)
    left, top = max(0, width - long) // 2, max(0, height - long) // 2
    image = image.crop((left, top, width - left, height - top))
    scale = SIDE / min(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)
