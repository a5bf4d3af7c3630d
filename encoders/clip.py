"""Images by the image half of a CLIP model, through sentence-transformers: frozen, with cached vectors."""

from __future__ import annotations

import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from anyrec.contracts import Encoder, Params
from anyrec.encoders.image import file_names, file_vectors, mean_of_readable
from anyrec.encoders.sentence import backbone
from anyrec.ragged import Prepared


class Clip(Encoder):
    """CLIP's image vector (Radford et al., 2021), projected. Several images: the mean of their vectors."""

    type = "clip"
    group = "image"
    joint = True

    class Params(Params):
        model: str = Field("sentence-transformers/clip-ViT-B-32", description="A CLIP model's name or folder.")

    def prepare(self, column: pa.Array) -> Prepared:
        names, offsets = file_names(column)
        vectors, readable = file_vectors(names, self.context, f"clip {self.params.model}", self._embed)
        if not len(vectors) and self.input_dim:
            vectors = torch.zeros(0, self.input_dim)
        return mean_of_readable(vectors, readable, offsets)

    def _embed(self, images: list[Image.Image]) -> Tensor:
        model = backbone(self.params.model).to(self.context.device)
        return model.encode(images, batch_size=16, convert_to_tensor=True, show_progress_bar=False).float().cpu()

    def embed_texts(self, texts: list[str]) -> Tensor:
        model = backbone(self.params.model).to(self.context.device)
        return model.encode(texts, convert_to_tensor=True, show_progress_bar=False).float().cpu()
