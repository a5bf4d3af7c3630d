"""Item vectors of a search space, kept in the model's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from anyrec.core.errors import OutputError
from anyrec.core.files import atomic_write
from anyrec.data.hashing import hash_stream
from anyrec.model.fitted import FittedModel
from anyrec.retrieval.semantic.spaces import Space

FOLDER = "search"


def item_vectors(model: FittedModel, space: Space) -> np.ndarray:
    """Return the item vectors of a space: (items, dim) float32.

    They are read from the model's folder if they were saved there for this model, these values of the items and this
    space. Otherwise
    they are computed, and saved if the folder can be written.

    Raises:
        InputError: If image files must not be opened, because the model is not trusted.
    """
    path = None if model.directory is None else model.directory / FOLDER / f"{space.name}-{space.kind}.safetensors"
    if path is None or path.is_symlink() or (path.exists() and not path.is_file()):
        return space.item_vectors()
    values = hash_stream(model.dataset.items.select(["item_id", *space.columns]))
    identity = np.frombuffer(f"{model.model_id} {values} {space.identity}".encode(), np.uint8)
    saved = _read(path, identity, len(model.dataset.items))
    if saved is not None:
        return saved
    vectors = space.item_vectors()
    try:
        with atomic_write(path) as temporary:
            save_file({"items": vectors, "identity": identity}, temporary)
    except OutputError:
        pass  # a folder that cannot be written only makes the next search slower
    return vectors


def _read(path: Path, identity: np.ndarray, items: int) -> np.ndarray | None:
    """The saved vectors; None if there are none, if they are damaged, or if they have another identity."""
    try:
        saved = load_file(path)
        vectors = saved["items"]
        fits = vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == items
        if fits and np.isfinite(vectors).all() and np.array_equal(saved["identity"], identity):
            return vectors
    except (SafetensorError, KeyError, OSError, ValueError):
        pass
    return None
