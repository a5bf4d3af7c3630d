"""What the log of a server says of an experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from anyrec.core.errors import DataError, Fault, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.data.formats.times import parse_time
from anyrec.serving.experiments.inference import LEVEL, MISMATCH, Difference, Rate, difference, mismatch, rate, too_few
from anyrec.serving.live.event_log import read_events
from anyrec.serving.live.query import Id
from anyrec.serving.live.variants import EXPOSURES

EFFECT = 0.02
"""Difference of rates that the test is most sensitive to, unless another one is given."""


@dataclass(frozen=True)
class Report:
    """The result of an experiment.

    Attributes:
        experiment: Its name.
        rates: By variant: the users who were shown a list, and how many of them did it afterwards.
        differences: By variant without the first: its rate minus that of the first one.
        mismatch: Always-valid p-value of the numbers of users under the shares.
        notes: Users who are left out or were shown lists of several variants; empty if there are none.
        conclusion: What follows, in a sentence.
        shadows: By shadow variant: how many lists it made, and the mean share of items in common with those shown.
    """

    experiment: str
    rates: dict[str, Rate]
    differences: dict[str, Difference]
    mismatch: float
    notes: list[str]
    conclusion: str
    shadows: dict[str, JsonObject]

    def as_json(self) -> JsonObject:
        """Return the report as plain values."""
        return asdict(self)


@dataclass
class _Shown:
    """Who was shown lists of which variant under the last settings (variants, shares, salt) of an experiment.

    Attributes:
        settings: Hash of the settings; None as long as the log is of an earlier version, which has the shares only.
        shares: By variant.
        first: By user, the variant and the time of the first list, in the order in which the users came.
        several: Users who were shown lists of several variants.
        earlier: By user who came before the last change of the settings: the variant of the first list then.
        moved: Those of them who were shown a list of another variant later.
        has_shadows: Whether shadow variants made lists.
    """

    settings: str | None = None
    shares: dict[str, float] = field(default_factory=dict)
    first: dict[Id, tuple[str, float]] = field(default_factory=dict)
    several: set[Id] = field(default_factory=set)
    earlier: dict[Id, str] = field(default_factory=dict)
    moved: set[Id] = field(default_factory=set)
    has_shadows: bool = False

    def add(self, entry: JsonObject) -> None:
        """Take a list of the log into account."""
        if entry.get("shadow"):
            self.has_shadows = True
            return
        user, variant, settings = entry["user_id"], entry["variant"], entry.get("settings")
        if entry["shares"] != self.shares or (settings and self.settings and settings != self.settings):
            self.earlier = {**{one: name for one, (name, _) in self.first.items()}, **self.earlier}
            self.shares, self.first, self.several = entry["shares"], {}, set()
        self.settings = settings or self.settings
        if user in self.earlier:
            if self.earlier[user] != variant:
                self.moved.add(user)
        elif self.first.setdefault(user, (variant, entry["time"]))[0] != variant:
            self.several.add(user)

    def notes(self) -> list[str]:
        """Return what a reader must know of users who are left out, or who saw several variants."""
        found = []
        if self.earlier:
            found.append(
                "The variants, their shares or the salt were changed during the experiment. Only the "
                f"{len(self.first):,} users who came since the last change are compared; the {len(self.earlier):,} "
                f"who came before are left out ({len(self.moved):,} of them were shown lists of several variants)."
            )
        if self.several:
            found.append(
                f"{len(self.several):,} users were shown lists of several variants, although their first one is for "
                "good: the salt was changed, or the log is of several servers. They count for their first variant, "
                "which makes differences look smaller."
            )
        return found


def experiment_report(
    folder: Path, experiment: str | None = None, types: Iterable[str] = (), effect: float = EFFECT
) -> Report:
    """Read a log and compare the variants of an experiment.

    The unit is the user, who is assigned to a variant: a user is of the variant that first served the user, and counts
    as converted by an event that happened, and was received, after that list. Each user counts once, so that repeated
    events do not make the rates look more certain than they are.

    Users who came before the last change of the variants, the shares or the salt are left out: they can have seen
    several variants, and pooling periods with other shares compares users of other days and other lengths of time
    (Simpson's paradox).

    Args:
        folder: The folder of the log of events.
        experiment: Its name; by default the only one in the log.
        types: Interaction types that count; by default all.
        effect: As for `inference.difference`.

    Raises:
        DataError: If the log has no such experiment.
    """
    experiments: dict[str, _Shown] = {}
    for one in read_events(folder / EXPOSURES):
        experiments.setdefault(one["experiment"], _Shown()).add(one)
    if experiment is None and len(experiments) == 1:
        (experiment,) = experiments
    if experiment is None or experiment not in experiments:
        what = f"the log has no experiment {experiment!r}." if experiment else "name the experiment."
        raise DataError(Fault(str(folder), what, did_you_mean(experiment or "", sorted(experiments)), "experiment"))
    shown = experiments[experiment]
    rates = _rates(shown, _converted(folder, shown, set(types)))
    control, *others = [name for name, share in shown.shares.items() if share > 0]
    differences = {
        name: difference(rates[control], rates[name], effect, len(others))
        for name in others
        if rates[control].users and rates[name].users
    }
    place = {name: n for n, name in enumerate(shown.shares)}
    p = mismatch(np.array([place[name] for name, _ in shown.first.values()], np.int64), [*shown.shares.values()])
    conclusion = _conclusion({name: rates[name] for name in (control, *others)}, differences, p)
    shadows = _shadows(folder, experiment) if shown.has_shadows else {}
    return Report(experiment, rates, differences, p, shown.notes(), conclusion, shadows)


def _converted(folder: Path, shown: _Shown, types: set[str]) -> set[Id]:
    """Return the users of an experiment with an event of some types, all types if there are none, after the first list.

    The time of an event is its client's, who can leave out fractions of a second.
    """
    found: set[Id] = set()
    for event in read_events(folder):
        user = event["user_id"]
        if user not in shown.first or (types and event.get("interaction_type") not in types):
            continue
        time = shown.first[user][1]
        happened = _seconds(event["timestamp"])
        if event.get("received", happened) >= time and happened >= math.floor(time):
            found.add(user)
    return found


def _seconds(timestamp: float | str) -> float:
    """Return the time of an event in seconds since 1970; infinity for a text that is no time: its receipt decides."""
    if not isinstance(timestamp, str):
        return timestamp
    found = parse_time(timestamp)
    return math.inf if found is None else found / 1e6


def _rates(shown: _Shown, converted: set[Id]) -> dict[str, Rate]:
    """Return the rate of each variant."""
    users = dict.fromkeys(shown.shares, 0)
    done = dict.fromkeys(shown.shares, 0)
    for user, (variant, _) in shown.first.items():
        users[variant] += 1
        done[variant] += user in converted
    return {name: rate(count, done[name]) for name, count in users.items()}


def _conclusion(rates: Mapping[str, Rate], differences: Mapping[str, Difference], p: float) -> str:
    """Return what follows from the numbers, or why nothing does.

    Args:
        rates: By variant with a share, the first one first.
        differences: By variant that has users like the first one.
        p: As `mismatch` returns it.
    """
    if p < MISMATCH:
        return (
            f"No conclusion: the numbers of users contradict the shares (p {p:.2g}). Something loses or doubles users "
            "of a variant; find it before you read the rates."
        )
    control, *others = rates
    sentences = []
    for name in others:
        reason = too_few([rates[control], rates[name]])
        if reason is not None:
            sentences.append(f"No conclusion on {name} yet: {reason}.")
            continue
        found = differences[name]
        if found.p < 1 - LEVEL:
            word = "better" if found.value > 0 else "worse"
            sentences.append(
                f"{name} is {word} than {control}: {found.value:+.2%} [{found.low:+.2%}, {found.high:+.2%}], p "
                f"{found.p:.2g}. You may stop."
            )
        else:
            sentences.append(
                f"{name} and {control} do not differ clearly: {found.value:+.2%} [{found.low:+.2%}, {found.high:+.2%}]."
            )
    return " ".join(sentences) or "No conclusion: only one variant has a share of the users."


def _shadows(folder: Path, experiment: str) -> dict[str, JsonObject]:
    """Return how much the lists of shadow variants have in common with those that were shown, empty ones left out."""
    shown: dict[str, set[Id]] = {}
    found: dict[str, list[float]] = {}
    for one in read_events(folder / EXPOSURES):
        if one["experiment"] != experiment:
            continue
        if not one.get("shadow"):
            shown[one["recommendation_id"]] = set(one["items"])
        elif items := shown.get(one["recommendation_id"]):
            found.setdefault(one["variant"], []).append(len(items & set(one["items"])) / len(items))
    return {name: {"lists": len(values), "overlap": sum(values) / len(values)} for name, values in found.items()}
