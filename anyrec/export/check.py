"""What an export of a model has, and why other parts of a model cannot be exported."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeAlias

from anyrec.core.discovery import discover
from anyrec.core.errors import Fault, InputError, did_you_mean
from anyrec.core.values import show
from anyrec.data.ids import SIDES
from anyrec.data.preparation.kinds import KINDS
from anyrec.data.scoring.kinds import SCORINGS
from anyrec.model.blended import BlendedModel, has_towers, towers_of, with_towers
from anyrec.model.classical import ClassicalModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.model.two_tower_network import TwoTower
from anyrec.retrieval.model_index import component_of, is_exhaustive
from anyrec.storage.parts import ModelParts

Exported: TypeAlias = TwoTowerModel | ClassicalModel | BlendedModel
"""The models that can be exported."""
PARTS = ("pipeline", "blend", "heads")
"""Parts of a recommender that an export can leave out."""


class NotExportable(InputError):
    """A model that cannot be exported, with all reasons."""

    subject = "the model to export"


def exportable(parts: ModelParts, without: Collection[str]) -> Exported:
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
    if isinstance(model, BlendedModel) and "blend" in without:
        model = model.towers
    if "heads" in without and has_towers(model):
        model = with_towers(model, without_heads(towers_of(model)))
    if has_towers(model):
        faults += component_faults(towers_of(model))
    if isinstance(model, BlendedModel):
        hint = "Leave the blend out with --without blend: lists are then those of the towers alone."
        for name, member in model.members.items():
            faults += _classical_faults(f"/blend/{name}", f"the model '{name}' of the blend", member, hint)
    elif isinstance(model, ClassicalModel):
        name = model.scorer.classical.type
        faults += _classical_faults("/model", f"the model '{name}'", model, "Train a two_tower for that.")
    elif not isinstance(model, TwoTowerModel):
        faults.append(_fault("/model", f"the model '{model.config.model.type}'", "it has no graphs and no scoring"))
    if faults:
        raise NotExportable(faults)
    assert isinstance(model, (TwoTowerModel, ClassicalModel, BlendedModel))
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


def _classical_faults(where: str, what: str, model: ClassicalModel, hint: str) -> list[Fault]:
    """Return the fault of a classical model that declares nothing to export."""
    classical = model.scorer.classical
    reason = classical.export_fault()
    if not reason and classical.personal and classical.scoring not in SCORINGS:
        reason = f"there is no scoring {show(classical.scoring)}"
    return [_fault(where, what, reason, hint)] if reason else []


def notes_on(model: Exported, parts: ModelParts) -> list[str]:
    """Return sentences on what differs between the recommender and its export, of what `exportable` returned."""
    notes = []
    if parts.pipeline is not None:
        notes.append("The pipeline is left out: its filters, rules and ranker change no list of the export.")
    if model.config.feast.url is not None:
        notes.append("An export fetches no online features from Feast: give them in the records of requests.")
    indexed = towers_of(model) if has_towers(model) else model
    if indexed.factorised and not is_exhaustive(model, component := component_of(model)):
        notes.append(f"The model finds items by the index '{component.type}', an export compares all items.")
    return notes


def _fault(where: str, what: str, reason: str, hint: str = "") -> Fault:
    return Fault(where, f"{what} cannot be exported because {reason}.", hint, "not exportable")
