"""Images as arrays of pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from anyrec.core.columns import FlatLists
from anyrec.core.context import Context
from anyrec.data.images import load_images
from anyrec.data.list_columns import flat, offsets_of

SIDE = 448
"""Images for CLIP are reduced to a shorter side of at most this many pixels; CLIP models read 224 to 336."""
LONGEST = 4
"""They are cropped to at most this ratio of the longer to the shorter side; CLIP reads the middle square."""


def image_lists(
    column: pa.Array, context: Context, size: int, fit: Callable[..., np.ndarray] | None = None
) -> FlatLists:
    """Return the readable images of each record, (images, 3, size, size) uint8.

    Args:
        column: (records,) file names, or lists of them.
        context: Where the files are.
        size: Side in pixels.
        fit: Makes (3, size, size) uint8 of an image and the size; by default `fit_square`.
    """
    names, offsets = file_names(column)
    images, readable = load_images(names, context, partial(fit or fit_square, size=size), size)
    values = np.stack(images) if images else np.zeros((0, 3, size, size), np.uint8)
    return FlatLists(values, readable_offsets(readable, offsets))


def file_names(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """Return the file names of all records, and (records + 1,) int64 offsets."""
    names, owners = flat(column)
    return names.to_pylist(), offsets_of(owners, len(column))


def readable_offsets(readable: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return (records + 1,) int64 offsets of the readable files.

    Args:
        readable: (files,) bool.
        offsets: (records + 1,) of the files of each record.
    """
    return np.concatenate([[0], np.cumsum(readable)])[offsets].astype(np.int64)


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """Return (3, size, size) uint8: the image resampled to fit, its proportions kept, on its mean colour."""
    scale = size / max(image.size)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
    square = np.empty((size, size, 3), np.uint8)
    square[:] = small.reshape(-1, 3).mean(0)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = small
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def middle_square(image: Image.Image, size: int) -> np.ndarray:
    """Return (3, size, size) uint8: the middle square of the image, resampled, for a CLIP model that is trained."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def reduced(image: Image.Image) -> np.ndarray:
    """Return (height, width, 3) uint8: the image cropped to `LONGEST` and reduced to `SIDE`, for a frozen CLIP."""
    width, height = image.size
    long = LONGEST * min(width, height)
    left, top = max(0, width - long) // 2, max(0, height - long) // 2
    image = image.crop((left, top, width - left, height - top))
    scale = SIDE / min(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def resized_middle(image: Image.Image, size: int) -> np.ndarray:
    """Return (3, size, size) uint8: what a frozen CLIP model reads, resized before it is cropped, as transformers does.

    Pixels differ from those of transformers by at most 1 of 255, since torchvision rounds otherwise than Pillow.
    """
    small = Image.fromarray(reduced(image))
    short = min(small.size)
    width, height = (int(size * side / short) for side in small.size)
    small = small.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    square = np.asarray(small)[top : top + size, left : left + size]
    return np.ascontiguousarray(square.transpose(2, 0, 1))
