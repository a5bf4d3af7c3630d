"""Vectors of norm 1."""

from __future__ import annotations

import numpy as np


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Divide each vector by its norm; a zero vector stays zero.

    Args:
        vectors: (rows, dim) of floats.

    Returns:
        (rows, dim) of the same type.
    """
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
