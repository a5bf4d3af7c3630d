"""Blend fitted towers with classical models: tune the models, choose the weights, fit the chosen ones again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import TrainingMatrix
from anyrec.core.errors import MissingDependency
from anyrec.core.progress import progress_bar
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.learning import LearningData
from anyrec.evaluation.held_out import HeldOut, held_out
from anyrec.evaluation.repeats import main_metric
from anyrec.model.blended import MOST_ROWS, BlendedModel, BlendScorer, member_config
from anyrec.model.choice import CHOICE, GROUPS, TOWERS, Choice, Group, Weights
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.training.ensemble import Pool, make_pool, select
from anyrec.training.fit_classical import fit_classical, with_refit
from anyrec.training.fitting_models import fitting_models
from anyrec.training.tune import Tuned, metric_of, sample_users, trials_for, tune

FEWEST_USERS = 20
"""Fewest validation users of a group that can have weights of its own."""
LEAST_RATIO = 0.5
"""Share of the best metric so far that a candidate must reach with its defaults to be tuned."""
NOT_WORSE, BETTER, CLEARLY_BETTER = (-2.0, 0.0), (0.0, 2.0), (1.0, 3.0)
"""Evidence for weights against others, as for `ensemble.select`. A blend replaces the towers alone unless it is worse,
since it varies less; it replaces the reference of a split by time if it is clearly better.
"""


@dataclass(frozen=True)
class Chosen:
    """A choice with the models that it was made of.

    Attributes:
        choice: The candidates, their metrics and the weights.
        tuned: The tuned classical models by name, fitted on the training part.
        notes: Why classical models are missing.
    """

    choice: Choice
    tuned: Mapping[str, Tuned]
    notes: list[str]

    def explained(self) -> list[str]:
        """Return notes for the user on what was chosen and why."""
        return [*self.notes, f"{self.choice.sentence} `blend: null` switches blending off."]


@dataclass(frozen=True)
class Rule:
    """How weights are chosen.

    Attributes:
        metric: The metric to raise.
        rounds: Most steps of each choice.
        seed: Seed of the samples of users.
        reference: The candidate that is delivered without evidence for another.
    """

    metric: str
    rounds: int
    seed: int
    reference: str

    def shared(self, pool: Pool) -> dict[str, float]:
        """Return the weights of all users of a pool."""
        evidence = NOT_WORSE if self.reference == TOWERS else CLEARLY_BETTER
        return select(pool, self.metric, self.rounds, {self.reference: 1.0}, evidence=evidence, seed=self.seed)

    def own(self, pool: Pool, shared: Mapping[str, float], members: list[str]) -> dict[str, float]:
        """Return the weights of a group of users, among some members, or the `shared` ones if these are as good."""
        evidence = BETTER if self.reference == TOWERS else CLEARLY_BETTER
        return select(pool, self.metric, self.rounds, shared, members=members, evidence=evidence, seed=self.seed)


def choose_blend(towers: TwoTowerModel, progress: bool = True) -> Chosen | None:
    """Tune classical models and choose the weights of their blend with fitted towers, on the validation part.

    Args:
        towers: The towers, with their data.
        progress: Whether to show a progress bar.

    Returns:
        The choice; None if the config has no blend, or nothing can be chosen: no listable validation target, or more
        rows than a blend can represent.
    """
    config, learning = towers.config, towers.required_learning()
    section = config.blend
    rows = max(len(towers.dataset.users), len(towers.dataset.items))
    if section is None or not len(learning.held_out("validation")) or rows > MOST_ROWS:
        return None
    users = sample_users(learning, section.users, config.seed)
    held = held_out(towers, "validation", users)
    if not held.listable.any():
        return None
    tuned, notes = _tune_all(towers, metric_of(towers, held, config), progress)
    if not tuned:
        return None
    with torch.inference_mode():
        pool, lengths = _make_pool(towers, {name: one.model for name, one in tuned.items()}, held)
    metric = main_metric(towers)
    for_new = [TOWERS, *(name for name in tuned if _ranks_new_users(towers.registry, name))]
    reference = _reference(towers, tuned)
    rule = Rule(metric, section.rounds, config.seed, reference)
    weights, chosen = _weights(pool, lengths > 0, for_new, rule)
    values = {name: float(pool.values(scores, metric).mean()) for name, scores in pool.scores.items()}
    options = {name: one.options for name, one in tuned.items()}
    untuned = [name for name, one in tuned.items() if not one.compared and _has_search(towers.registry, name)]
    choice = Choice(metric, {**values, CHOICE: float(chosen.mean())}, weights, options, reference, untuned)
    return Chosen(choice, tuned, notes)


def blended(towers: TwoTowerModel, chosen: Chosen, members: Mapping[str, ClassicalModel] | None = None) -> FittedModel:
    """Return the model of a choice.

    Args:
        towers: The towers.
        chosen: The choice.
        members: The members, if they were fitted again; by default as they were tuned.

    Returns:
        The blend; the towers alone if no classical model has a weight.
    """
    if not chosen.choice.members:
        return replace(towers, choice=chosen.choice)
    members = members or {name: chosen.tuned[name].model for name in chosen.choice.members}
    return BlendedModel.of(towers, members, chosen.choice)


def fit_members(towers: TwoTowerModel, chosen: Chosen) -> dict[str, ClassicalModel]:
    """Fit the members of a choice again, on the training and validation parts."""
    config, learning = towers.config, towers.required_learning()
    both, fitted = learning.final_split(with_refit(config)), {}
    for name in chosen.choice.members:
        own = member_config(config, name, chosen.tuned[name].options)
        fitted[name] = fit_classical(own, learning, both, towers.registry, towers.context)
    return fitted


def candidates(config: Config, registry: Registry, learning: LearningData) -> dict[str, JsonObject]:
    """Return the classical models that a blend chooses from, with the options that the config sets."""
    section = config.blend
    if section is not None and section.models != "auto":
        return {one.type: one.options() for one in section.models}
    return {name: {} for name in fitting_models(learning.dataset, registry)[0]}


def _has_search(registry: Registry, name: str) -> bool:
    """Whether a classical model has options to tune."""
    return bool(registry.get("classical", name).search)


def _ranks_new_users(registry: Registry, name: str) -> bool:
    """Whether a classical model has scores of its own for users without a history."""
    cls = registry.get("classical", name)
    return cls.ranks_new_users or not cls.personal


def _reference(towers: TwoTowerModel, tuned: Mapping[str, Tuned]) -> str:
    """Return the candidate that is delivered without evidence for another.

    The towers, except on a split by time. There the test users come after another period than the validation users,
    for which the towers are a period old, and a model that learned at past moments is preferred.
    """
    if towers.required_learning().split.protocol != "global_time":
        return TOWERS
    return next((name for name in tuned if towers.registry.get("classical", name).backtested), TOWERS)


def _weights(
    pool: Pool, known: np.ndarray, for_new: list[str], rule: Rule
) -> tuple[dict[Group, dict[str, float]], np.ndarray]:
    """Choose the weights of each group of users: those of all users, or own ones that are better on held-out users.

    Without FEWEST_USERS who are new, new users get the towers alone: these read their features best.

    Args:
        pool: The scores of all members.
        known: (users,) bool, whether a user has a history.
        for_new: Members that have scores of their own for users without a history.
        rule: How weights are chosen.

    Returns:
        The weights, and (users,) the metric with them.
    """
    reference = {rule.reference: 1.0}
    shared = rule.shared(pool) if len(pool.users) >= FEWEST_USERS else reference
    weights: dict[Group, dict[str, float]] = {"new": {TOWERS: 1.0}, "known": shared}
    chosen = np.empty(len(pool.users))
    for group in GROUPS:
        inside = known if group == "known" else ~known
        own = pool.only(inside)
        if inside.sum() >= FEWEST_USERS:
            members = for_new if group == "new" else list(pool.scores)
            weights[group] = rule.own(own, shared, members)
        if inside.any():
            chosen[inside] = own.values(own.blended(weights[group]), rule.metric)
    return weights, chosen


def _tune_all(towers: TwoTowerModel, best: float, progress: bool) -> tuple[dict[str, Tuned], list[str]]:
    """Tune all candidates, and return those that can be fitted, with notes on the others.

    A candidate that with its defaults is far behind the best one so far is not tuned: it gets little weight or none.

    Args:
        towers: The towers.
        best: Their metric on validation.
        progress: Whether to show a progress bar.
    """
    config, registry, learning = towers.config, towers.registry, towers.required_learning()
    asked = candidates(config, registry, learning)
    assert config.blend is not None
    tuned, notes = {}, []
    pairs = len(learning.positives(learning.split.train))
    matrices: dict[str, TrainingMatrix] = {}
    with progress_bar("classical models", len(asked), progress) as bar:
        for name, options in asked.items():
            try:
                tuned[name] = tune(
                    learning,
                    member_config(config, name, options),
                    registry,
                    towers.context,
                    name,
                    asked=options,
                    trials=min(config.blend.trials, trials_for(pairs, len(learning.dataset.items))),
                    users=config.blend.users,
                    worth=LEAST_RATIO * best,
                    matrices=matrices,
                )
                best = max(best, tuned[name].value)
            except MissingDependency as error:
                notes.append(f"{name} is left out of the blend: {error}.")
            bar.advance()
    return tuned, notes


def _make_pool(towers: TwoTowerModel, members: Mapping[str, ClassicalModel], held: HeldOut) -> tuple[Pool, np.ndarray]:
    """Return the members' scores for the candidates of each user, and (users,) the lengths of their histories."""
    state = towers.before("validation")
    states = {name: model.before("validation") for name, model in members.items()}
    nothing: Weights = {group: {} for group in GROUPS}
    scorer = BlendScorer(state, states, nothing)
    items, places = state.representations("item"), torch.arange(len(towers.dataset.items))

    def of_towers(rows: np.ndarray) -> Tensor:
        return scorer.towers_score(state.user_representations(rows), items)

    def of_member(member: ClassicalModel) -> Callable[[np.ndarray], Tensor]:
        return lambda rows: scorer.member_score(member, torch.from_numpy(rows)[:, None], places)

    functions = {TOWERS: of_towers, **{name: of_member(member) for name, member in states.items()}}
    users = np.flatnonzero(held.targets.counts())
    pool = make_pool(users, functions, held)
    return pool, scorer.history_lengths(torch.from_numpy(users)[:, None]).cpu().numpy()
