"""Descriptors of the colours and edges of images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from PIL import Image

from anyrec.core.columns import FlatLists, PreparedColumn
from anyrec.core.context import Context
from anyrec.data.images import load_images
from anyrec.data.preparation.image_arrays import file_names, readable_offsets

SIZE = 64
"""Side in pixels of the square that each image is resampled to."""
HUES, LEVELS = 8, 3
"""Bins of the colour histogram: for hue, and for each of saturation and value."""
DIRECTIONS = 8
"""Bins of the edge direction, over half a turn."""
BATCH = 256
"""Images described at once, which takes 70 MB."""


def descriptors(column: pa.Array, context: Context, **options: float) -> PreparedColumn:
    """Describe the readable images of each record, and average.

    Args:
        column: (records,) file names, or lists of them.
        context: Where the files are.
        options: As for `described`.

    Returns:
        (records, width) float32. A record without a readable image is absent.
    """
    names, offsets = file_names(column)
    images, readable = load_images(names, context, square, SIZE)
    vectors = described(np.stack(images), **options) if images else np.zeros((0, width_of(int(options["cells"]))), "f4")
    lists = FlatLists(vectors, readable_offsets(readable, offsets))
    return PreparedColumn(lists.mean(), lists.lengths > 0)


def described(images: np.ndarray, cells: float, **weights: float) -> np.ndarray:
    """Describe images in batches.

    Args:
        images: (images, SIZE, SIZE, 3) uint8.
        cells: Cells along each side of the grid.
        weights: The weights of the parts `layout`, `histogram` and `edges`, each of which has unit length times its
            weight.

    Returns:
        (images, width) float32.
    """
    parts = [_described(images[start : start + BATCH], int(cells), weights) for start in range(0, len(images), BATCH)]
    return np.concatenate(parts)


def width_of(cells: int) -> int:
    """Return the length of a descriptor."""
    return cells**2 * (3 + DIRECTIONS) + HUES * LEVELS * LEVELS


def _described(small: np.ndarray, cells: int, weights: dict[str, float]) -> np.ndarray:
    """Describe a batch of images; arguments and result as of `described`."""
    hsv = np.stack([np.asarray(Image.fromarray(image).convert("HSV")) for image in small])
    parts = [
        (weights["layout"], layout(small, cells)),
        (weights["histogram"], histogram(hsv)),
        (weights["edges"], edges(small, cells)),
    ]
    scaled = [weight * part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6) for weight, part in parts]
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


def square(image: Image.Image) -> np.ndarray:
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
