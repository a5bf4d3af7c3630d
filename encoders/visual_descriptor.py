"""Images as fixed descriptors of colours and edges. Nothing is downloaded or trained."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Encoder, Params
from anyrec.core.ragged import Prepared
from anyrec.data.preparation.image_arrays import file_names
from anyrec.data.preparation.visual import SIZE, described, square, width_of
from anyrec.encoders.image import file_vectors, mean_of_readable


class VisualDescriptor(Encoder):
    """Colour layout, colour histogram and oriented gradients, projected. Several images: the mean of their vectors.

    The layout is the mean colour of each cell of a grid. The histogram counts hue, saturation and value over the whole
    image, as square roots of the fractions, so that dot products are Bhattacharyya coefficients. The gradients are
    histograms of edge directions in each cell. Each of the three parts has unit length times its weight.

    References:
        Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005. Unlike the paper, cells are not
        normalised in overlapping blocks, and each pixel votes for one direction only.
    """

    type = "visual_descriptor"
    group = "image"
    reads_files = True
    untrained = True
    preparation = "visual_descriptor"

    class Params(Params):
        cells: int = Field(8, ge=1, le=16, description="Cells along each side of the grid.")
        layout: float = Field(1.0, ge=0, le=1000, description="Weight of the colour layout.")
        histogram: float = Field(1.0, ge=0, le=1000, description="Weight of the colour histogram.")
        edges: float = Field(1.0, ge=0, le=1000, description="Weight of the edge directions.")

    def prepare(self, column: pa.Array) -> Prepared:
        """Describe the readable images of each record, and average.

        Args:
            column: (records,) file names, or lists of them.

        Returns:
            (records, width) float32. A record without a readable image is absent.
        """
        names, offsets = file_names(column)
        key = f"visual_descriptor {self.params!r}"
        vectors, readable = file_vectors(names, self.context, key, square, SIZE, self._embed)
        if not len(vectors):
            vectors = torch.zeros(0, self.width)
        return mean_of_readable(vectors, readable, offsets)

    @property
    def width(self) -> int:
        """Numbers in a descriptor."""
        return width_of(self.params.cells)

    def _embed(self, images: list[np.ndarray]) -> Tensor:
        """Describe images in batches.

        Args:
            images: (SIZE, SIZE, 3) uint8 each.

        Returns:
            (images, width) float32.
        """
        return torch.from_numpy(described(np.stack(images), **self.params.model_dump()))
