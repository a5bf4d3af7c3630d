"""Images as fixed descriptors of colours and edges. Nothing is downloaded or trained."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Encoder, Params
from anyrec.core.ragged import Prepared
from anyrec.encoders.image import file_names, file_vectors, mean_of_readable

SIZE = 64
"""Side in pixels of the square that each image is resampled to."""
HUES, LEVELS = 8, 3
"""Bins of the colour histogram: for hue, and for each of saturation and value."""
DIRECTIONS = 8
"""Bins of the edge direction, over half a turn."""
BATCH = 256
"""Images described at once, which takes 70 MB."""


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
    untrained = True

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
        vectors, readable = file_vectors(names, self.context, key, _square, SIZE, self._embed)
        if not len(vectors):
            vectors = torch.zeros(0, self.width)
        return mean_of_readable(vectors, readable, offsets)

    @property
    def width(self) -> int:
        """Numbers in a descriptor."""
        return self.params.cells**2 * (3 + DIRECTIONS) + HUES * LEVELS * LEVELS

    def _embed(self, images: list[np.ndarray]) -> Tensor:
        """Describe images in batches.

        Args:
            images: (SIZE, SIZE, 3) uint8 each.

        Returns:
            (images, width) float32.
        """
        small = np.stack(images)
        parts = [self._describe(small[start : start + BATCH]) for start in range(0, len(small), BATCH)]
        return torch.from_numpy(np.concatenate(parts))

    def _describe(self, small: np.ndarray) -> np.ndarray:
        """Describe a batch of images.

        Args:
            small: (images, SIZE, SIZE, 3) uint8.

        Returns:
            (images, width) float32.
        """
        hsv = np.stack([np.asarray(Image.fromarray(image).convert("HSV")) for image in small])
        parts = [
            (self.params.layout, layout(small, self.params.cells)),
            (self.params.histogram, histogram(hsv)),
            (self.params.edges, edges(small, self.params.cells)),
        ]
        scaled = [
            weight * part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6) for weight, part in parts
        ]
        return np.concatenate(scaled, 1).astype(np.float32)


def layout(images: np.ndarray, cells: int) -> np.ndarray:
    """Return the mean colour of each cell, from -1 to 1 so that grey is 0.

    Args:
        images: (images, size, size, 3) uint8.
        cells: Cells along each side.

    Returns:
        (images, cells * cells * 3) float64.
    """
    return _cell_means(images / 127.5 - 1, cells)


def histogram(hsv: np.ndarray) -> np.ndarray:
    """Return the square roots of the fractions of pixels in each bin of hue, saturation and value.

    Args:
        hsv: (images, size, size, 3) uint8.

    Returns:
        (images, HUES * LEVELS * LEVELS) float64.
    """
    hue = hsv[..., 0].astype(np.int64) * HUES // 256
    level = hsv[..., 1:].astype(np.int64) * LEVELS // 256
    bins = HUES * LEVELS * LEVELS
    place = ((hue * LEVELS + level[..., 0]) * LEVELS + level[..., 1]).reshape(len(hsv), -1)
    flat = (place + bins * np.arange(len(hsv))[:, None]).ravel()
    counts = np.bincount(flat, minlength=bins * len(hsv)).reshape(len(hsv), bins)
    return np.sqrt(counts / place.shape[1])


def edges(images: np.ndarray, cells: int) -> np.ndarray:
    """Return the square root of the mean gradient magnitude of each direction in each cell.

    Args:
        images: (images, size, size, 3) uint8.
        cells: Cells along each side.

    Returns:
        (images, cells * cells * DIRECTIONS) float64.
    """
    grey = images.mean(-1) / 255
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, across)
    # Directions that differ by half a turn (dark to light, light to dark) are the same edge.
    turn = np.mod(np.arctan2(down, across), np.pi) / np.pi * DIRECTIONS
    direction = np.minimum(turn.astype(np.int64), DIRECTIONS - 1)
    one_hot = (direction[..., None] == np.arange(DIRECTIONS)) * strength[..., None]
    return np.sqrt(_cell_means(one_hot, cells))


def _square(image: Image.Image) -> np.ndarray:
    """Return the image as (SIZE, SIZE, 3) uint8, its proportions not kept."""
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def _cell_means(values: np.ndarray, cells: int) -> np.ndarray:
    """Average values over the cells of a grid.

    Args:
        values: (images, size, size, channels).
        cells: Cells along each side.

    Returns:
        (images, cells * cells * channels), the mean of each cell.
    """
    rows = np.add.reduceat(values, np.arange(cells) * SIZE // cells, axis=1)
    both = np.add.reduceat(rows, np.arange(cells) * SIZE // cells, axis=2)
    return both.reshape(len(values), -1) / (SIZE / cells) ** 2
