"""The files of a classical model in its directory: the component's state, and the histories of the users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from anyrec.core.config import Config
from anyrec.core.contracts import Classical
from anyrec.core.registry import Registry
from anyrec.core.saved_files import check_parts, damaged, read_arrays
from anyrec.data.pairs import Pairs
from anyrec.data.split import HELD_OUT, PARTS, Part
from anyrec.model.classical import ClassicalModel, ClassicalScorer, check_classical, make_classical, matrix_of

BEFORE = "before "
"""Begins the names of the arrays of a component that counted the positives before a part: `before test/weights`."""


def write_classical(model: ClassicalModel, folder: Path) -> None:
    """Write the component's state, and the matrix of histories that it scores by."""
    scorer = model.scorer
    states = {"": scorer.classical, **{BEFORE + part + "/": one for part, one in (model.past or {}).items()}}
    state = {
        moment + name: np.asarray(value, order="C")  # ascontiguousarray would give a scalar a dimension
        for moment, one in states.items()
        for name, value in one.state().items()
    }
    save_file(state, folder / "model.safetensors")
    matrix = scorer.matrix
    arrays = {"columns": matrix.indices, "offsets": matrix.indptr}
    arrays |= {"popularity": scorer.popularity, "fitted": scorer.fitted}
    if model.matrix_parts is not None:
        arrays["parts"] = model.matrix_parts
    save_file(arrays, folder / "history.safetensors")


def read_classical(
    folder: Path, config: Config, registry: Registry, users: int, items: int, refitted: bool
) -> tuple[ClassicalScorer, np.ndarray | None, dict[Part, Classical] | None]:
    """Read what `write_classical` wrote.

    Args:
        folder: The model directory.
        config: The model's config.
        registry: The components.
        users: Number of users.
        items: Number of items.
        refitted: Whether the component also learned from the validation part.

    Returns:
        The scorer, (pairs,) uint8 the parts of the split of the entries of its matrix, and the components that counted
        the positives before each part (`ClassicalModel.past`); the last two are None if they are not saved.

    Raises:
        ModelError: If a file is damaged, or the component cannot score.
    """
    state, arrays = read_arrays(folder / "model.safetensors"), read_arrays(folder / "history.safetensors")
    past: dict[Part, Classical] = {}
    classical = make_classical(config, registry)
    with damaged(folder / "model.safetensors", f"what '{classical.type}' learned cannot be used"):
        for part in HELD_OUT:
            counted = {name: value for name, value in state.items() if name.startswith(f"{BEFORE}{part}/")}
            if counted:
                past[part] = make_classical(config, registry)
                past[part].restore({name.partition("/")[2]: state.pop(name) for name in counted})
                check_classical(past[part], users, items)
        if past and len(past) < len(HELD_OUT):
            raise ValueError(f"counts before {', '.join(past)} only")
        classical.restore(state)
        check_classical(classical, users, items)
    with damaged(folder / "history.safetensors", "this is not a history of the users"):
        matrix = matrix_of(Pairs(arrays["columns"], arrays["offsets"]), (users, items))
        matrix.check_format(full_check=True)
        popularity, parts, fitted = arrays.get("popularity"), arrays.get("parts"), arrays.get("fitted")
        if popularity is not None and popularity.shape != (items,):
            raise ValueError(f"the popularity of {items} items was expected")
        if parts is not None:
            check_parts(parts, len(arrays["columns"]))
        if fitted is None and parts is not None and not classical.counts:  # a model of a version that did not save it
            fitted = _items_of(matrix.indices, parts, refitted, items)
        if fitted is not None and (fitted.shape, fitted.dtype) != ((items,), bool):
            raise ValueError(f"{items} truth values of 'fitted' were expected")
    return ClassicalScorer(classical, matrix, popularity, fitted), parts, past or None


def _items_of(columns: np.ndarray, parts: np.ndarray, refitted: bool, items: int) -> np.ndarray:
    """Return (items,) bool, the items of the pairs that a component was fitted on.

    Args:
        columns: (pairs,) their item rows.
        parts: (pairs,) uint8, the parts of the split of each pair.
        refitted: Whether it also learned from the validation part.
        items: Number of items.
    """
    learned = 1 << PARTS.index("train") | refitted << PARTS.index("validation")
    return np.bincount(columns[parts & learned != 0], minlength=items) > 0
