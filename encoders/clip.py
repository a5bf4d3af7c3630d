"""Images by the image half of a frozen CLIP model, through sentence-transformers. Vectors are cached."""

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
"""Images are reduced to a shorter side of at most this many pixels; CLIP models read 224 to 336."""
LONGEST = 4
"""Images are cropped to at most this ratio of the longer to the shorter side; CLIP reads the middle square."""
BATCH = 16
"""Images in a forward pass."""


class Clip(Encoder):
    """The image vector of a CLIP model, projected. Several images: the mean of their vectors.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """

    type = "clip"
    group = "image"
    joint = True

    class Params(Params):
        model: Annotated[str, Outside("a folder of a pretrained model", names_something=is_path)] = Field(
            "sentence-transformers/clip-ViT-B-32", description="Name or folder of a CLIP model."
        )

    def prepare(self, column: pa.Array) -> Prepared:
        """Embed the readable images of each record, and average.

        Args:
            column: (records,) file names, or lists of them.

        Returns:
            (records, width) float32. A record without a readable image is absent.
        """
        names, offsets = file_names(column)
        vectors, readable = file_vectors(
            names, self.context, f"clip {self.params.model}", _reduced, 2 * SIDE, self._embed
        )
        if not len(vectors) and self.input_dim:
            vectors = torch.zeros(0, self.input_dim)
        return mean_of_readable(vectors, readable, offsets)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Return (texts, width) float32, vectors that can be compared with those of images."""
        model = backbone(self.params.model, self.context).to(self.context.device)
        return model.encode(texts, convert_to_tensor=True, show_progress_bar=False).float().cpu()

    def _embed(self, images: list[np.ndarray]) -> Tensor:
        """Run images through the model.

        Args:
            images: (height, width, 3) uint8 each.

        Returns:
            (images, width) float32.
        """
        model = backbone(self.params.model, self.context).to(self.context.device)
        pictures = [Image.fromarray(one) for one in images]
        return model.encode(pictures, batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False).float().cpu()


def _reduced(image: Image.Image) -> np.ndarray:
    """Return (height, width, 3) uint8: the image cropped to `LONGEST` and reduced to `SIDE`."""
    width, height = image.size
    long = LONGEST * min(width, height)
    left, top = max(0, width - long) // 2, max(0, height - long) // 2
    image = image.crop((left, top, width - left, height - top))
    scale = SIDE / min(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)
