"""The files of a blend in its model directory: what was chosen, and the files of each classical member."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from anyrec.core.manifest import is_inside, read_object
from anyrec.core.saved_files import AGAIN, damaged
from anyrec.core.types import JsonObject
from anyrec.model.blended import BlendedModel, member_config
from anyrec.model.choice import GROUPS, TOWERS, Choice
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.storage.classical_files import read_classical, write_classical
from anyrec.storage.tower_files import write_json

FOLDER = "blend"
CHOICE_FILE = "choice.json"


def write_choice(model: FittedModel, folder: Path) -> None:
    """Write what was chosen, and the members of a blend; its towers are written as those of a model without a blend."""
    if model.choice is None:
        return
    place = folder / FOLDER
    place.mkdir()
    write_json(place / CHOICE_FILE, asdict(model.choice))
    for name, member in model.members.items() if isinstance(model, BlendedModel) else ():
        (place / name).mkdir()
        write_classical(member, place / name)


def has_members(directory: Path) -> bool:
    """Whether a model directory has the classical members of a blend."""
    place = directory / FOLDER
    return place.is_dir() and any(one.is_dir() for one in place.iterdir())


def read_choice(towers: TwoTowerModel, directory: Path) -> FittedModel:
    """Return the model of what `write_choice` wrote.

    Args:
        towers: The towers of the model directory.
        directory: The model directory.

    Raises:
        ModelError: If a file is damaged, or a member cannot score.
    """
    place = directory / FOLDER
    if not place.is_dir():
        return towers
    document = read_object(place / CHOICE_FILE, AGAIN)
    with damaged(place / CHOICE_FILE):
        choice = Choice(**document)
        _check(choice)
        names = choice.members
    if not names:
        return replace(towers, choice=choice)
    members = {name: _read_member(towers, place, name, choice.options[name]) for name in names}
    with damaged(place, "its members do not fit each other"):
        if len({len(member.scorer.popularity) for member in members.values()}) > 1:
            raise ValueError("they know different numbers of items")
    return BlendedModel.of(towers, members, choice)


def _read_member(towers: TwoTowerModel, place: Path, name: str, options: JsonObject) -> ClassicalModel:
    """Read one classical member. Errors as for `read_choice`."""
    config = member_config(towers.config, name, options)
    users, items = len(towers.dataset.users), len(towers.dataset.items)
    refitted = towers.config.training.refit or (towers.config.blend is not None and towers.config.blend.refit)
    scorer, matrix_parts, past = read_classical(place / name, config, towers.registry, users, items, refitted)
    return ClassicalModel(
        config=config,
        registry=towers.registry,
        dataset=towers.dataset,
        context=towers.context,
        scorer=scorer,
        seen=towers.seen,
        seen_parts=towers.seen_parts,
        matrix_parts=matrix_parts,
        past=past,
        has_vectors=scorer.classical.factorised,
    )


def _check(choice: Choice) -> None:
    """Check what a file says of a choice. Raises ValueError or TypeError."""
    if not all(is_inside(name) and isinstance(own, dict) for name, own in choice.options.items()):
        raise ValueError("the classical models are not named")
    if choice.reference not in {TOWERS, *choice.options} or not set(choice.untuned) <= set(choice.options):
        raise ValueError("the reference or an untuned model is no candidate")
    if set(choice.weights) != set(GROUPS):
        raise ValueError(f"weights of the groups {', '.join(GROUPS)} were expected")
    for own in choice.weights.values():
        fitting = set(own) <= {TOWERS, *choice.options} and all(0 <= one <= 1 for one in own.values())
        if not fitting or not sum(own.values()):
            raise ValueError("a weight is not that of a member, or is not between 0 and 1")
    if not all(isinstance(one, (int, float)) for one in choice.values.values()) or not isinstance(choice.metric, str):
        raise ValueError("the metric of a candidate is not a number")
