"""What was chosen on the validation part: towers, classical models, or a blend of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from anyrec.core.types import JsonObject

TOWERS = "two_tower"
"""Name of the towers among the candidates."""
CHOICE = "choice"
"""Key of `Choice.values` for the weighted members."""
Group = Literal["new", "known"]
"""Users without and with a history. Each group has its own weights."""
GROUPS: tuple[Group, ...] = ("new", "known")
Weights: TypeAlias = Mapping[Group, Mapping[str, float]]
"""Weight of each member by name, for each group of users; a member without an entry has weight 0."""


@dataclass(frozen=True)
class Choice:
    """The candidates of a blend, and what was chosen of them.

    Attributes:
        metric: The validation metric, as `ndcg@10`.
        values: Its mean over users for each candidate alone, and for the choice (`CHOICE`).
        weights: Weight of each member, for each group of users.
        options: The chosen options of each tuned classical model.
        reference: The candidate that is delivered without evidence for another.
        untuned: The classical models whose options are their defaults, as they were too far behind to be tuned.
    """

    metric: str
    values: Mapping[str, float]
    weights: Weights
    options: Mapping[str, JsonObject]
    reference: str = TOWERS
    untuned: Sequence[str] = ()

    @property
    def members(self) -> list[str]:
        """The classical models that have a weight."""
        return [name for name in self.options if any(weights.get(name) for weights in self.weights.values())]

    @property
    def tuned(self) -> dict[str, JsonObject]:
        """The options of the models that were tuned."""
        return {name: own for name, own in self.options.items() if name not in self.untuned}

    @property
    def alone(self) -> dict[str, float]:
        """The metric of each candidate alone, the best first."""
        found = {name: value for name, value in self.values.items() if name != CHOICE}
        return dict(sorted(found.items(), key=lambda one: -one[1]))

    @property
    def sentence(self) -> str:
        """What was chosen and why, in a sentence or two."""
        listed = ", ".join(f"{name} {value:.4f}" for name, value in self.alone.items())
        known, new = (shares_of(self.weights[group]) for group in ("known", "new"))
        measured = f"{self.metric} on validation"
        if not self.members:
            return f"The towers alone are chosen, as blends with them are no better: {measured}: {listed}."
        if self.reference != TOWERS and set(self.weights["known"]) == {self.reference}:
            why = "it learned at past moments what comes next, and no blend is clearly better"
            text = f"{known} is chosen: {why}: {measured}: {listed}."
        elif len(self.weights["known"]) == 1:
            text = f"{known} is chosen for users with a history: {measured}: {listed}."
        else:
            text = f"A blend is chosen ({known}): {measured} {self.values[CHOICE]:.4f}; alone: {listed}."
        return text if new == known else f"{text} For users without a history: {new}."


def shares_of(weights: Mapping[str, float]) -> str:
    """Return weights in words, the greatest first: `ease 60%, two_tower 40%`; a single member without its share."""
    if len(weights) == 1:
        return next(iter(weights))
    return ", ".join(f"{name} {weight:.0%}" for name, weight in sorted(weights.items(), key=lambda one: -one[1]))
