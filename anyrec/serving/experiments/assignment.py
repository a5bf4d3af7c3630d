"""The variant that serves a user: a hash of the experiment and the user, so it is the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anyrec.core.config import ExperimentConfig

DEFAULT = "default"
"""The variant of users who take part in no experiment."""
BITS = 53
"""Bits of a hash that become a fraction: a double represents them exactly."""


@dataclass(frozen=True)
class Assignment:
    """The experiment that a user takes part in, and the variant that serves the user."""

    experiment: str
    variant: str


def assign(experiments: Sequence[ExperimentConfig], user_id: str | int | None) -> Assignment | None:
    """Return the assignment of a user; None for a user who takes part in no experiment, and for nobody in particular.

    Experiments have disjoint ranges of the traffic, in their order. A range is a hash of the user alone, and a variant
    a hash of the experiment's salt and the user, so the users of one experiment have other variants in the next.
    """
    if user_id is None:
        return None
    place = fraction("traffic", user_id)
    for experiment in experiments:
        place -= experiment.traffic
        if place < 0:
            shares = {name: one.share for name, one in experiment.variants.items() if not one.shadow}
            variant = pick(shares, fraction(experiment.salt or experiment.name, user_id))
            return Assignment(experiment.name, variant)
    return None


def pick(shares: Mapping[str, float], place: float) -> str:
    """Return the variant at a place from 0 to 1 of the shares, one after the other."""
    left = place * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return [name for name, share in shares.items() if share][-1]  # by rounding


def fraction(salt: str, user_id: str | int) -> float:
    """Return a number from 0 to 1 (1 excluded) that depends on the salt and the user only."""
    text = f"{salt}\x1f{type(user_id).__name__}\x1f{user_id}".encode()
    return (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> (64 - BITS)) / 2**BITS
