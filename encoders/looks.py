"""Images by their looks: colours where they are, how often each occurs, and which way edges run. Nothing is trained."""

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
"""Images are brought to a square of so many pixels."""
HUES, LEVELS = 8, 3
"""Bins of the histogram of hue, saturation and value."""
DIRECTIONS = 8
BATCH = 256
"""Images described at once: 70 MB."""


class Looks(Encoder):
    """Colour layout, colour histogram and oriented gradients, projected. Several images: the mean of their vectors.

    The layout is the mean colour of each cell of a grid; the histogram is of hue, saturation and value, by the square roots of its
    shares (so that dot products are Bhattacharyya coefficients); the gradients are those of HOG (Dalal and Triggs, 2005) without its
    overlapping blocks. Each of the three parts has unit length times its weight.
    """

    type = "looks"
    group = "image"

    class Params(Params):
        cells: int = Field(8, ge=1, le=16, description="Cells of the grid along each side.")
        layout: float = Field(1.0, ge=0, le=1000, description="Weight of the colours in place.")
        histogram: float = Field(1.0, ge=0, le=1000, description="Weight of the colours wherever they are.")
        edges: float = Field(1.0, ge=0, le=1000, description="Weight of the edges.")

    def prepare(self, column: pa.Array) -> Prepared:
        names, offsets = file_names(column)
        vectors, readable = file_vectors(names, self.context, f"looks {self.params!r}", _square, SIZE, self._embed)
        if not len(vectors):
            vectors = torch.zeros(0, self.width)
        return mean_of_readable(vectors, readable, offsets)

    @property
    def width(self) -> int:
        return self.params.cells**2 * (3 + DIRECTIONS) + HUES * LEVELS * LEVELS

    def _embed(self, images: list[np.ndarray]) -> Tensor:
        """images: (SIZE, SIZE, 3) uint8 each -> (images, width)"""
        small = np.stack(images)
        parts = [self._describe(small[start : start + BATCH]) for start in range(0, len(small), BATCH)]
        return torch.from_numpy(np.concatenate(parts))

    def _describe(self, small: np.ndarray) -> np.ndarray:
        """(images, SIZE, SIZE, 3) uint8 -> (images, width) float32"""
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


def _square(image: Image.Image) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8"""
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def layout(images: np.ndarray, cells: int) -> np.ndarray:
    """(images, size, size, 3) uint8 -> (images, cells * cells * 3): each cell's mean colour about grey."""
    return _grid(images / 127.5 - 1, cells)


def histogram(hsv: np.ndarray) -> np.ndarray:
    """(images, size, size, 3) uint8 -> (images, HUES * LEVELS * LEVELS): square roots of the shares of the colours."""
    hue = hsv[..., 0].astype(np.int64) * HUES // 256
    level = hsv[..., 1:].astype(np.int64) * LEVELS // 256
    bins = HUES * LEVELS * LEVELS
    place = ((hue * LEVELS + level[..., 0]) * LEVELS + level[..., 1]).reshape(len(hsv), -1)
    flat = (place + bins * np.arange(len(hsv))[:, None]).ravel()
    counts = np.bincount(flat, minlength=bins * len(hsv)).reshape(len(hsv), bins)
    return np.sqrt(counts / place.shape[1])


def edges(images: np.ndarray, cells: int) -> np.ndarray:
    """(images, size, size, 3) uint8 -> (images, cells * cells * DIRECTIONS): how strong edges of each direction are in each cell."""
    grey = images.mean(-1) / 255
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, across)
    turn = np.mod(np.arctan2(down, across), np.pi) / np.pi * DIRECTIONS
    direction = np.minimum(turn.astype(np.int64), DIRECTIONS - 1)
    one_hot = (direction[..., None] == np.arange(DIRECTIONS)) * strength[..., None]
    return np.sqrt(_grid(one_hot, cells))


def _grid(values: np.ndarray, cells: int) -> np.ndarray:
    """(images, size, size, channels) -> (images, cells * cells * channels): the mean of each cell."""
    rows = np.add.reduceat(values, np.arange(cells) * SIZE // cells, axis=1)
    both = np.add.reduceat(rows, np.arange(cells) * SIZE // cells, axis=2)
    return both.reshape(len(values), -1) / (SIZE / cells) ** 2
