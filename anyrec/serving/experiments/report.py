"""What the log of a server says of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from anyrec.core.errors import DataError, Fault, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.serving.experiments.inference import MISMATCH, Difference, Rate, difference, mismatch, rate, too_few
from anyrec.serving.live.event_log import read_events
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
        mismatch: Probability of such numbers of users under the shares.
        conclusion: What follows, in a sentence.
        shadows: By shadow variant: how many lists it made, and the mean share of items in common with those shown.
    """

    experiment: str
    rates: dict[str, Rate]
    differences: dict[str, Difference]
    mismatch: float
    conclusion: str
    shadows: dict[str, JsonObject]

    def as_json(self) -> JsonObject:
        """Return the report as plain values."""
        return asdict(self)


def experiment_report(
    folder: Path, experiment: str | None = None, types: Iterable[str] = (), effect: float = EFFECT
) -> Report:
    """Read a log and compare the variants of an experiment.

    A user is of the variant that first served the user, and counts as converted by an event after that list. Each user
    counts once, so that repeated events do not make the rates look more certain than they are.

    Args:
        folder: The folder of the log of events.
        experiment: Its name; by default the only one in the log.
        types: Interaction types that count; by default all.
        effect: As for `inference.difference`.

    Raises:
        DataError: If the log has no such experiment.
    """
    shown = list(read_events(folder / EXPOSURES))
    names = sorted({one["experiment"] for one in shown})
    if experiment is None and len(names) == 1:
        experiment = names[0]
    if experiment is None or experiment not in names:
        what = f"the log has no experiment {experiment!r}." if experiment else "name the experiment."
        raise DataError(Fault(str(folder), what, did_you_mean(experiment or "", names), "experiment"))
    own = [one for one in shown if one["experiment"] == experiment]
    first: dict[object, JsonObject] = {}
    for one in own:
        if not one.get("shadow"):
            first.setdefault(one["user_id"], one)
    wanted = set(types)
    converted = {
        event["user_id"]
        for event in read_events(folder)
        if event["user_id"] in first
        and event.get("received", event["timestamp"]) >= first[event["user_id"]]["time"]
        and (not wanted or event.get("interaction_type") in wanted)
    }
    shares = own[-1]["shares"]
    users = {name: [user for user, one in first.items() if one["variant"] == name] for name in shares}
    rates = {name: rate(len(ids), sum(user in converted for user in ids)) for name, ids in users.items()}
    control = next(iter(rates))
    comparisons = sum(share > 0 for name, share in shares.items() if name != control)
    differences = {
        name: difference(rates[control], one, effect, comparisons)
        for name, one in rates.items()
        if name != control and one.users and rates[control].users
    }
    p = mismatch({name: one.users for name, one in rates.items()}, shares)
    return Report(experiment, rates, differences, p, _conclusion(control, rates, differences, p), _shadows(own))


def _conclusion(control: str, rates: Mapping[str, Rate], differences: Mapping[str, Difference], p: float) -> str:
    """Return what follows from the numbers, or why nothing does."""
    if p < MISMATCH:
        return (
            f"No conclusion: the numbers of users contradict the shares (probability {p:.2g}). Something loses or "
            "doubles users of a variant; find it before you read the rates."
        )
    sentences = []
    for name, found in differences.items():
        reason = too_few([rates[control], rates[name]])
        if reason is not None:
            sentences.append(f"No conclusion on {name} yet: {reason}.")
        elif found.p < 0.05:
            word = "better" if found.value > 0 else "worse"
            sentences.append(
                f"{name} is {word} than {control}: {found.value:+.2%} [{found.low:+.2%}, {found.high:+.2%}], p "
                f"{found.p:.2g}. You may stop."
            )
        else:
            sentences.append(
                f"{name} and {control} do not differ clearly: {found.value:+.2%} [{found.low:+.2%}, {found.high:+.2%}]."
            )
    return " ".join(sentences) or "No conclusion: only one variant has users."


def _shadows(shown: list[JsonObject]) -> dict[str, JsonObject]:
    """Return how much the lists of shadow variants have in common with those that were shown."""
    lists = {one["recommendation_id"]: set(one["items"]) for one in shown if not one.get("shadow")}
    found: dict[str, list[float]] = {}
    for one in shown:
        if one.get("shadow") and one["recommendation_id"] in lists:
            both = lists[one["recommendation_id"]]
            found.setdefault(one["variant"], []).append(len(both & set(one["items"])) / max(1, len(both)))
    return {name: {"lists": len(values), "overlap": sum(values) / len(values)} for name, values in found.items()}
