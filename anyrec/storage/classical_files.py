"""The files of a classical model in its directory: the component's state, and the histories of the users."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from anyrec.core.config import Config
from anyrec.core.contracts import Classical
from anyrec.core.registry import Registry
from anyrec.core.saved_files import check_parts, damaged, read_arrays
from anyrec.core.types import SparseMatrix
from anyrec.data.pairs import Pairs
from anyrec.data.split import HELD_OUT, PARTS, Part
from anyrec.model.classical import ClassicalModel, check_classical, make_classical, matrix_of
from anyrec.model.classical_scorer import ClassicalScorer

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
    if not scorer.learned.all():
        arrays["learned"] = scorer.learned
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
        items: Number of items; a component may know the first of them only.
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
    with damaged(folder / "history.safetensors", "this is not a history of the users"):
        histories = _read_histories(arrays, users, items)
    known = int(np.flatnonzero(histories.learned).max(initial=0)) + 1, histories.matrix.shape[1]
    with damaged(folder / "model.safetensors", f"what '{classical.type}' learned cannot be used"):
        for part in HELD_OUT:
            counted = {name: value for name, value in state.items() if name.startswith(f"{BEFORE}{part}/")}
            if counted:
                past[part] = make_classical(config, registry)
                past[part].restore({name.partition("/")[2]: state.pop(name) for name in counted})
                check_classical(past[part], *known)
        if past and len(past) < len(HELD_OUT):
            raise ValueError(f"counts before {', '.join(past)} only")
        classical.restore(state)
        check_classical(classical, *known)
    matrix, popularity, parts, fitted, learned = histories
    if fitted is None and parts is not None and not classical.counts:  # a model of a version that did not save it
        fitted = _items_of(matrix.indices, parts, refitted, matrix.shape[1])
    return ClassicalScorer(classical, matrix, popularity, fitted, learned), parts, past or None


class _Histories(NamedTuple):
    """The arrays of history.safetensors, as `ClassicalScorer` and `ClassicalModel` describe them.

    They are those of the items that the component knows: a blend may have further ones.
    """

    matrix: SparseMatrix
    popularity: np.ndarray | None
    parts: np.ndarray | None
    fitted: np.ndarray | None
    learned: np.ndarray


def _read_histories(arrays: Mapping[str, np.ndarray], users: int, items: int) -> _Histories:
    """Check the arrays of history.safetensors; arguments as for `read_classical`. Raises ValueError."""
    popularity, parts, fitted = arrays.get("popularity"), arrays.get("parts"), arrays.get("fitted")
    learned = arrays.get("learned", np.ones(users, bool))
    if popularity is not None:
        if popularity.ndim != 1 or len(popularity) > items:
            raise ValueError(f"the popularity of at most {items} items was expected")
        items = len(popularity)
    matrix = matrix_of(Pairs(arrays["columns"], arrays["offsets"]), (users, items))
    matrix.check_format(full_check=True)
    if parts is not None:
        check_parts(parts, len(arrays["columns"]))
    for name, flags, size in (("fitted", fitted, items), ("learned", learned, users)):
        if flags is not None and (flags.shape, flags.dtype) != ((size,), bool):
            raise ValueError(f"{size} truth values of '{name}' were expected")
    return _Histories(matrix, popularity, parts, fitted, learned)


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
