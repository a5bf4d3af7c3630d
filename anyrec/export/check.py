"""What an export of a model has, and why other parts of a model cannot be exported."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch

from anyrec.core.discovery import discover
from anyrec.core.errors import Fault, InputError, did_you_mean
from anyrec.core.values import show
from anyrec.data.ids import SIDES
from anyrec.data.preparation.kinds import KINDS
from anyrec.model.blended import BlendedModel
from anyrec.model.classical import ClassicalModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.model.two_tower_network import TwoTower
from anyrec.retrieval.model_index import component_of, is_exhaustive
from anyrec.storage.parts import ModelParts

PARTS = ("pipeline", "blend", "heads")
"""Parts of a recommender that an export can leave out."""


class NotExportable(InputError):
    """A model that cannot be exported, with all reasons."""

    subject = "the model to export"


@dataclass(frozen=True)
class Vectors:
    """A classical model as vectors whose dot products are its scores.

    Attributes:
        users: (users, dim) float32.
        items: (items, dim) float32.
        new_user: (1, dim) float32, the vector of every new user.
    """

    users: np.ndarray
    items: np.ndarray
    new_user: np.ndarray


def exportable(parts: ModelParts, without: Collection[str]) -> TwoTowerModel | ClassicalModel:
    """Return the model that is exported.

    Args:
        parts: The recommender.
        without: Parts to leave out, of PARTS.

    Raises:
        NotExportable: With every reason why it cannot be exported.
        InputError: If there is no such part.
    """
    for name in without:
        if name not in PARTS:
            hint = did_you_mean(str(name)[:100], PARTS)
            raise InputError(Fault("without", f"there is no part {show(name)} to leave out.", hint, "option"))
    model, faults = parts.model, []
    if parts.pipeline is not None and "pipeline" not in without:
        ranker = ["ranker"] if parts.pipeline.ranker else []
        stages = ", ".join([*parts.pipeline.source_names, *ranker, *parts.pipeline.rule_names])
        what = f"the pipeline ({stages}) cannot be exported because its stages are programs of anyrec."
        faults.append(Fault("/pipeline", what, "Leave it out with --without pipeline.", "not exportable"))
    if isinstance(model, BlendedModel):
        if "blend" not in without:
            members = ", ".join(model.scorer.members)
            what = f"the blend with {members} cannot be exported because its score needs the scores of all items."
            hint = "Leave it out with --without blend: lists are then those of the towers alone."
            faults.append(Fault("/blend", what, hint, "not exportable"))
        model = model.towers
    if isinstance(model, TwoTowerModel):
        model = without_heads(model) if "heads" in without else model
        faults += component_faults(model)
    elif isinstance(model, ClassicalModel):
        faults += _classical_faults(model)
    else:
        faults.append(_fault("/model", f"the model '{model.config.model.type}'", "it has no graphs and no vectors"))
    if faults:
        raise NotExportable(faults)
    assert isinstance(model, (TwoTowerModel, ClassicalModel))
    return model


def without_heads(model: TwoTowerModel) -> TwoTowerModel:
    """Return the model without its heads, for an export only: its scores are the same."""
    network = model.scorer
    return replace(model, scorer=TwoTower(network.user, network.item, network.interaction))


def component_faults(model: TwoTowerModel) -> list[Fault]:
    """Return a fault for each component of the towers that cannot be exported."""
    faults = []
    for side in SIDES:
        tower = model.scorer.tower(side)
        for name, encoder in tower.named_encoders():
            reason = encoder.export_fault()
            if not reason and encoder.preparation not in KINDS:
                reason = f"there is no preparation {show(encoder.preparation)}"
            if reason:
                others = sorted(
                    plugin.type
                    for plugin in discover(drop_in=False).plugins("encoder")
                    if plugin.group == name.split(".")[0] and plugin.load().preparation in KINDS
                )
                hint = f"Train with another encoder: {', '.join(others)}." if others else "Train without it."
                faults.append(_fault(f"/features/{name}", f"the encoder '{encoder.type}'", reason, hint))
        reason = tower.fusion.export_fault()
        if reason:
            faults.append(_fault("/fusion", f"the fusion '{tower.fusion.type}' of the {side} tower", reason))
    reason = model.scorer.interaction.export_fault()
    if reason:
        faults.append(_fault("/interaction", f"the interaction '{model.scorer.interaction.type}'", reason))
    return faults


def _classical_faults(model: ClassicalModel) -> list[Fault]:
    """Return the fault of a classical model whose scores are not those of vectors."""
    classical = model.scorer.classical
    if model.has_vectors or not classical.personal:
        return []
    reason = "it scores by its own program, not by vectors"
    hint = "Train a two_tower, or a factorisation such as 'ials'."
    return [_fault("/model", f"the model '{classical.type}'", reason, hint)]


def vectors_of(model: ClassicalModel) -> Vectors:
    """Return the vectors of a classical model.

    Users without a vector get the popularity of the items as scores: it is a further dimension, which is 1 for these
    users and 0 for all others.

    Raises:
        NotExportable: If a score is not a finite number.
    """
    users, items = model.representations("user"), model.representations("item")
    if not model.scorer.classical.personal:
        scores = model.scorer.score(torch.zeros(1, 1, dtype=torch.int64), items).numpy().reshape(-1, 1)
        vectors = Vectors(np.ones((len(users), 1), np.float32), scores, np.ones((1, 1), np.float32))
    else:
        known = model.embeddings("user")
        apart = model.without_vector(users)[:, None].astype(np.float32)
        popularity = model.scorer.popularity.astype(np.float32)[:, None]
        new_user = np.zeros((1, known.shape[1] + 1), np.float32)
        new_user[0, -1] = 1
        all_items = np.concatenate([model.embeddings("item"), popularity], 1)
        vectors = Vectors(np.concatenate([known, apart], 1), all_items, new_user)
    if not all(np.isfinite(one).all() for one in (vectors.users, vectors.items)):
        what = f"the model '{model.config.model.type}' cannot be exported because a score is not a finite number."
        raise NotExportable(Fault("/model", what, kind="not exportable"))
    return vectors


def notes_on(model: TwoTowerModel | ClassicalModel, parts: ModelParts) -> list[str]:
    """Return sentences on what differs between the recommender and its export, of what `exportable` returned."""
    notes = []
    if parts.pipeline is not None:
        notes.append("The pipeline is left out: its filters, rules and ranker change no list of the export.")
    if model.config.feast.url is not None:
        notes.append("An export fetches no online features from Feast: give them in the records of requests.")
    if model.factorised and not is_exhaustive(model, component := component_of(model)):
        notes.append(f"The model finds items by the index '{component.type}', an export compares all items.")
    return notes


def _fault(where: str, what: str, reason: str, hint: str = "") -> Fault:
    return Fault(where, f"{what} cannot be exported because {reason}.", hint, "not exportable")
