"""Off-policy evaluation of a candidate: what it would have been worth, from the lists that a server showed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject
from anyrec.recommender import Recommender
from anyrec.serving.experiments.candidate import Candidate
from anyrec.serving.experiments.drawn_rows import LEFT_OUT, DrawnRows, read_rows
from anyrec.serving.experiments.off_policy import OffPolicy, off_policy


@dataclass(frozen=True)
class Evaluation:
    """What a candidate would have been worth.

    Attributes:
        value: The estimates. A row is a drawn item that was shown.
        lists: Lists that these are of.
        notes: What was left out, and what the candidate could not answer, in sentences.
    """

    value: OffPolicy
    lists: int
    notes: list[str]

    def as_json(self) -> JsonObject:
        """Return the evaluation as plain values."""
        return {**self.value.as_json(), "lists": self.lists, "notes": self.notes}


def evaluate(folder: Path, recommender: Recommender, types: Iterable[str] = (), *, progress: bool = True) -> Evaluation:
    """Estimate the mean reward that a candidate would have had at the positions that were drawn at random.

    The unit is the slot: a position whose item was drawn, of a list that was the first with this draw (`read_rows`).
    The reward is 1 if an event names the item and the list, and all means are over slots. The weight of a slot is the
    probability that the candidate shows the items of all slots up to and including this one, divided by that of the
    policy which logged them. So the estimate is unbiased although the slots of a list are drawn one after another, each
    from what the earlier ones left, and although an item changes what people do at later slots. It is assumed that the
    items at the other positions do not change the reward of a slot (the item-position model).

    Lists that are older than the last interaction of the candidate's training data are left out: it would know what
    users did with them. If the candidate does not keep these times, there is no conclusion if its data have items of
    users that a list showed as new to them.

    Args:
        folder: The folder of the log of events.
        recommender: The candidate: another model, or another pipeline over the same model.
        types: Interaction types of events that are a reward; by default all.
        progress: Show a progress bar.

    Raises:
        DataError: If the log cannot be evaluated, or is one of other items or users than the candidate's.
        InputError: If the candidate draws items with unknown probabilities.

    References:
        Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, Offline Evaluation of Ranking Policies with Click
        Models, KDD 2018: one weight for each item and position. Precup, Sutton and Singh, Eligibility Traces for
        Off-Policy Policy Evaluation, ICML 2000, and McInerney et al., Counterfactual Evaluation of Slate
        Recommendations with Sequential Reward Interactions, KDD 2020: the product of the weights of earlier decisions.
    """
    candidate = Candidate(recommender, folder)
    until = trained_until(recommender)
    rows = read_rows(folder, types, until)
    target = candidate.chances(rows.lists, progress)
    _check(folder, rows, candidate)
    value = off_policy(rows.rewards, rows.propensities, target, rows.users, rows.positions)
    if until is None and candidate.had:
        conclusion = (
            f"No conclusion: {candidate.had:,} of the drawn items were new to their users, who have them in the "
            "candidate's training data. Train it on data that end before the lists."
        )
        value = replace(value, enough=False, conclusion=conclusion)
    return Evaluation(value, len(rows.lists), _notes(rows, candidate))


def trained_until(recommender: Recommender) -> float | None:
    """Return the time of the last interaction of a model's training data, in seconds since 1970; None if unknown."""
    history = recommender.model.history
    if history is None:
        return None
    last = pc.max(pc.struct_field(pc.list_flatten(history), "time")).as_py()
    return None if last is None else last / 1e6


def _check(folder: Path, rows: DrawnRows, candidate: Candidate) -> None:
    """Raise DataError if the candidate knows no drawn item, or refuses all requests."""
    if candidate.unknown == len(rows.rewards):
        what = f"the candidate knows none of the {candidate.unknown:,} items that were drawn; its item ids are "
        what += "whole numbers." if candidate.has_whole_ids else "texts."
        raise DataError(Fault(str(folder), what, "Name a model of the same items, with the same ids.", "wrong model"))
    if candidate.failed == len(rows.lists):
        what = (
            f"the candidate refuses all {candidate.failed:,} requests of the log, the last one with: {candidate.error}"
        )
        raise DataError(Fault(str(folder), what, "Name a model of the same users and items.", "wrong model"))


def _notes(rows: DrawnRows, candidate: Candidate) -> list[str]:
    """Return what was left out, and what the candidate could not answer."""
    notes = [f"{count:,} lists were left out: they {LEFT_OUT[reason]}." for reason, count in rows.left_out.items()]
    if candidate.unknown:
        notes.append(f"The candidate does not know {candidate.unknown:,} of the drawn items. It shows them never.")
    if candidate.failed:
        notes.append(
            f"The candidate refuses {candidate.failed:,} of the requests ({candidate.error}). It shows nothing there."
        )
    if candidate.not_added:
        notes.append(
            f"The candidate cannot add {candidate.not_added:,} of the items that came while lists were logged."
        )
    return notes
