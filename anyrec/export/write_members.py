"""Write the classical models of an export: what each declares (`Classical.scoring`), and the histories of the users."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anyrec.core.errors import Fault
from anyrec.core.types import JsonObject
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.kinds import SAME_FOR_ALL
from anyrec.export.check import NotExportable
from anyrec.export.members import FLAGS
from anyrec.model.blended import LEAST_SPREAD, BlendedModel
from anyrec.model.classical import ClassicalModel, matrix_of
from anyrec.storage.states import pack


def write_members(model: BlendedModel | ClassicalModel, users: bool, folder: Path) -> JsonObject:
    """Write the arrays of the classical models, and return what export.json says of them.

    Args:
        model: A blend, or a classical model.
        users: Whether to include the known users.
        folder: The folder of the arrays, which is created.

    Raises:
        NotExportable: If a model holds a number that is not finite.
    """
    folder.mkdir()
    models = model.members if isinstance(model, BlendedModel) else {model.scorer.classical.type: model}
    histories: list[Pairs] = []
    document: JsonObject = {"members": {}}
    for name, member in models.items():
        rows = member.scorer.matrix if users else member.scorer.matrix[:0]
        known = Pairs(rows.indices, rows.indptr)
        place = next((at for at, one in enumerate(histories) if _equal(one, known)), len(histories))
        if place == len(histories):
            histories.append(known)
        own = {**_member(member, users), "histories": place}
        _check_finite(name, own)
        document["members"][name] = pack(own, folder, name)
    document["histories"] = [pack(vars(one), folder, f"histories-{at}") for at, one in enumerate(histories)]
    if isinstance(model, BlendedModel):
        document["blend"] = pack(_blend(model), folder, "blend")
    return document


def _member(model: ClassicalModel, users: bool) -> JsonObject:
    """Return what an export has of a classical model, except the histories."""
    scorer = model.scorer
    scoring, state = _scoring(model, users)
    return {
        "scoring": scoring,
        "flags": {flag: getattr(scorer.classical, flag) for flag in FLAGS},
        "state": state,
        "popularity": scorer.popularity,
        "fitted": scorer.fitted,
        "learned": scorer.learned if users else scorer.learned[:0],
    }


def _blend(model: BlendedModel) -> JsonObject:
    """Return what an export has of a blend besides its members."""
    mean, covariance = (one.float().cpu().numpy() for one in model.scorer.moments)
    weights = {group: dict(own) for group, own in model.weights.items()}
    return {"weights": weights, "mean": mean, "covariance": covariance, "least_deviation": LEAST_SPREAD}


def _scoring(model: ClassicalModel, users: bool) -> tuple[str, JsonObject]:
    """Return the name of a model's scoring and its state."""
    classical = model.scorer.classical
    if classical.personal:
        return classical.scoring, classical.exported_state(users)
    nobody = Pairs(np.empty(0, np.int32), np.zeros(2, np.int32))
    scores = classical.score(np.zeros(1, np.int64), matrix_of(nobody, (1, len(model.scorer.popularity))))
    return SAME_FOR_ALL, {"scores": np.asarray(scores, np.float32)[0]}


def _check_finite(name: str, member: JsonObject) -> None:
    """Raise NotExportable if an array of a model holds a number that is not finite."""
    for array in [member["popularity"], *member["state"].values()]:
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
            what = f"the model '{name}' cannot be exported because a score is not a finite number."
            raise NotExportable(Fault("/model", what, kind="not exportable"))


def _equal(one: Pairs, other: Pairs) -> bool:
    return np.array_equal(one.items, other.items) and np.array_equal(one.offsets, other.offsets)
