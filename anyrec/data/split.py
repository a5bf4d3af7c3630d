"""Which interactions train, which validate, which test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anyrec.core.config import Config, SplitConfig
from anyrec.core.errors import ConfigError, DataError, Fault
from anyrec.core.files import atomic_write
from anyrec.data.dataset import Dataset
from anyrec.data.ids import ID_COLUMNS
from anyrec.data.order import blocks_of_users, has_clock, position_from_end, time_order

Part = Literal["validation", "test"]
"""A held-out part."""
HELD_OUT: tuple[Part, ...] = ("validation", "test")
PARTS = ("train", "validation", "test")
NO_PART = len(PARTS)
"""Stands for an interaction that is in no part."""
NOW = NO_PART + 1
"""The moment after every part, when everything in the data is known."""
FEWEST_TESTED = 50
"""With fewer tested users, metrics are too uncertain to choose a model by."""


@dataclass(frozen=True)
class Split:
    """Which interactions train, validate and test.

    Attributes:
        train: (train,) int64, rows of the interactions table, ascending.
        validation: (validation,) int64, ascending.
        test: (test,) int64, ascending.
        protocol: How the parts were chosen.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    protocol: str

    def rows(self, name: str) -> np.ndarray:
        """Return the rows of one of the `PARTS`."""
        return getattr(self, name)

    @property
    def name(self) -> str:
        """The protocol with a hash of the rows of each part. Metrics of two models compare if these names are equal."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(part, "<i8").data)
        return f"{self.protocol}-{digest.hexdigest()[:12]}"


def split_interactions(
    dataset: Dataset, config: SplitConfig, seed: int, eligible: np.ndarray | None = None
) -> tuple[Split, list[str]]:
    """Split the interactions.

    Args:
        dataset: The data.
        config: The config's `split` section.
        seed: Seed of the protocols that draw.
        eligible: (interactions,) bool, those that may be held out (positives). The others stay in training, unless they
            happened after the moment at which a split by time cuts: then they are in no part.

    Returns:
        The split, and what the user should know of it.

    Raises:
        ConfigError: If a split by time leaves nothing to train on.
        DataError: If the file of a saved split does not fit the data.
    """
    if config.file is not None:
        return load_split(Path(config.file), dataset), []
    eligible = np.ones(len(dataset.interactions), bool) if eligible is None else eligible
    protocol, notes = _protocol(dataset, config)
    train = np.ones(len(eligible), bool)
    validation = test = np.empty(0, np.int64)
    if protocol in ("leave_last_out", "leave_last_n"):
        validation, test = _leave_last(dataset, eligible, config.last_n if protocol == "leave_last_n" else 1)
    elif protocol == "global_time":
        validation, test, future = _global_time(dataset, eligible, config)
        train[future] = False
        if not train.any():
            if config.protocol == "global_time":
                raise ConfigError(_nothing_before(config))
            random, more = split_interactions(dataset, config.model_copy(update={"protocol": "random"}), seed, eligible)
            return random, ["A split by time would leave nothing to train on: the split is random.", *more]
    elif protocol == "random":
        validation, test = _random(dataset, eligible, config.validation, config.test, seed)
    elif protocol in ("cold_users", "cold_items"):
        rows = dataset.rows("user" if protocol == "cold_users" else "item")
        validation, test = _cold(rows, eligible, config.validation, config.test, seed)
        train[np.isin(rows, np.union1d(rows[validation], rows[test]))] = False
    train[validation] = train[test] = False
    split = Split(np.flatnonzero(train), validation, test, protocol)
    return split, notes + _warnings(dataset, split)


def part_of_each(dataset: Dataset, split: Split, positive: np.ndarray) -> np.ndarray:
    """Return the part that each interaction happened in.

    The split leaves interactions that are not positives in training, whenever they happened. One that happened after a
    held-out interaction of its user was not known before it, so it counts as of that part.

    Args:
        dataset: The data.
        split: Its split.
        positive: (interactions,) bool.

    Returns:
        (interactions,) int8, the position in PARTS; NO_PART for an interaction in no part.
    """
    parts = np.full(len(dataset.interactions), NO_PART, np.int8)
    for place, part in enumerate(PARTS):
        parts[split.rows(part)] = place
    if positive.all():
        return parts
    when = np.empty(len(parts), np.int64)
    when[time_order(dataset)] = np.arange(len(parts))
    for place in range(1, len(PARTS)):
        rows = split.rows(PARTS[place])
        first = np.full(len(dataset.users), np.iinfo(np.int64).max)
        np.minimum.at(first, dataset.user_rows[rows], when[rows])
        parts[~positive & (parts < place) & (when > first[dataset.user_rows])] = place
    return parts


def make_split(dataset: Dataset, config: Config, eligible: np.ndarray) -> tuple[Split, list[str]]:
    """Return the split of a config.

    If nothing validates and there is a ranker to train, the last positives of some users validate.

    Args:
        dataset: The data.
        config: The whole config.
        eligible: (interactions,) bool, those that may be held out.

    Returns:
        The split, and what the user should know of it.
    """
    split, notes = split_interactions(dataset, config.split, config.seed, eligible)
    rank = config.pipeline.rank if config.pipeline else None
    if rank is None or len(split.validation):
        return split, notes
    share = rank.training.holdout_fraction
    last = _last_of_some(dataset, split.train[eligible[split.train]], share, config.seed)
    note = f"Nothing validates: the last positives of {share:.0%} of the users do, so that the ranker learns from"
    note += " interactions that the model does not see."
    return Split(np.setdiff1d(split.train, last, assume_unique=True), last, split.test, split.protocol), [*notes, note]


def hold_out_users(user_rows: np.ndarray, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draw a fraction of the users, and return their interactions.

    Args:
        user_rows: (interactions,) The user of each interaction.
        rows: (rows,) The interactions to choose from.
        share: The fraction of their users to draw, at least one user.
        seed: Seed of the draw.

    Returns:
        (drawn,) those of `rows` that are of the drawn users.
    """
    users = np.unique(user_rows[rows])
    drawn = users[np.random.default_rng(seed).permutation(len(users))[: max(1, round(share * len(users)))]]
    return rows[np.isin(user_rows[rows], drawn)]


def save_split(split: Split, dataset: Dataset, folder: Path) -> None:
    """Write a split as split.parquet and split.json.

    split.parquet has user_id, item_id and part of every interaction in the order of the data; split.json has the
    name, the protocol and the counts.
    """
    parts = np.full(len(dataset.interactions), -1)
    for place, part in enumerate(PARTS):
        parts[split.rows(part)] = place
    column = pa.array(PARTS).take(pa.array(parts, mask=parts < 0))
    table = dataset.interactions.select(["user_id", "item_id"]).append_column("part", column)
    table = table.replace_schema_metadata({"protocol": split.protocol, "name": split.name})
    counts = {part: len(split.rows(part)) for part in PARTS}
    with atomic_write(folder / "split.parquet") as temporary:
        pq.write_table(table, temporary)
    with atomic_write(folder / "split.json") as temporary:
        text = json.dumps({"name": split.name, "protocol": split.protocol, **counts}, indent=1) + "\n"
        temporary.write_text(text, encoding="utf-8")


def load_split(path: Path, dataset: Dataset) -> Split:
    """Read a split that `save_split` wrote.

    Raises:
        DataError: If the file is no split, or is one of other interactions.
    """
    try:
        table = pq.read_table(path)
        parts = table["part"].combine_chunks()
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        fault = Fault(str(path), f"this is no split ({error}).", "Give the split.parquet of a run.", "bad split")
        raise DataError(fault) from None
    if not all(table[key].combine_chunks().equals(dataset.interactions[key].combine_chunks()) for key in ID_COLUMNS):
        what, hint = "this split is of another data set.", "Split the data again, or give the data of this split."
        raise DataError(Fault(str(path), what, hint, "bad split"))
    train, validation, test = (
        np.flatnonzero(pc.fill_null(pc.equal(parts, part), False).to_numpy(zero_copy_only=False)) for part in PARTS
    )
    return Split(train, validation, test, (table.schema.metadata or {}).get(b"protocol", b"random").decode())


def _nothing_before(config: SplitConfig) -> Fault:
    what = (
        f"nothing happened before the latest {config.test + config.validation:.0%} of the interactions, which validate "
        "and test: nothing is left to train on."
    )
    return Fault(
        "/split/protocol", what, "Lower split.validation and split.test, or choose another protocol.", "empty split"
    )


def _protocol(dataset: Dataset, config: SplitConfig) -> tuple[str, list[str]]:
    """Return the protocol to follow, and why it differs from the config's."""
    timed, clock = dataset.column("timestamp") is not None, has_clock(dataset)
    if config.protocol == "auto":
        if clock:
            return "global_time", []
        if timed:
            return "leave_last_out", [
                "The timestamps only order each user's own interactions: the last of each user are held out."
            ]
        return "random", ["No interaction has a timestamp: the split is random."]
    if config.protocol.startswith("leave_last") and not timed:
        return "random", [f"{config.protocol} was skipped, since no interaction has a timestamp: the split is random."]
    if config.protocol == "global_time" and not clock:
        why = "the timestamps do not compare between users" if timed else "no interaction has a timestamp"
        other = "leave_last_out" if timed else "random"
        return other, [f"global_time was skipped, since {why}: the split is {other}."]
    return config.protocol, []


def _warnings(dataset: Dataset, split: Split) -> list[str]:
    """Return what makes the metrics of this split too high for a live system, or uncertain."""
    notes = []
    if split.protocol in ("leave_last_out", "leave_last_n", "random") and len(split.test) and has_clock(dataset):
        times = dataset.times
        later = float((times > np.median(times[split.test]))[split.train].mean())
        if later >= 0.01:
            notes.append(
                f"The split is by user, and {later:.0%} of the training interactions happened after the typical "
                "held-out one: the model learns from the future, which a live system cannot. "
                "split.protocol=global_time avoids this."
            )
    if split.protocol != "none" and np.count_nonzero(np.bincount(dataset.user_rows[split.test])) < FEWEST_TESTED:
        notes.append(
            f"Fewer than {FEWEST_TESTED} users are tested: the metrics are too uncertain to choose a model by."
        )
    return notes


def _leave_last(dataset: Dataset, eligible: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Each user's last n interactions test; the n before validate if at least one more is left to train on."""
    validation, test = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in blocks_of_users(dataset, time_order(dataset)):
        order = part[eligible[part]]
        users = dataset.user_rows[order]
        from_end = position_from_end(users)
        _, place, counts = np.unique(users, return_inverse=True, return_counts=True)
        of_user = counts[place]
        test.append(order[(from_end < n) & (of_user > n)])
        validation.append(order[(from_end >= n) & (from_end < 2 * n) & (of_user > 2 * n)])
    return np.sort(np.concatenate(validation)), np.sort(np.concatenate(test))


def _global_time(
    dataset: Dataset, eligible: np.ndarray, config: SplitConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The latest fraction tests and the fraction before it validates, whoever the users are.

    What happened at the same moment is on the same side of a cut; what has no time counts as the earliest.

    Returns:
        The rows that validate, the rows that test, and all rows from the first cut on.
    """
    times = dataset.times
    ordered = times[eligible]
    ordered.sort()
    places = [round(len(ordered) * (1 - config.test - config.validation)), round(len(ordered) * (1 - config.test))]
    first, second = (ordered[place] if place < len(ordered) else np.inf for place in places)
    test = np.flatnonzero(eligible & (times >= second))
    validation = np.flatnonzero(eligible & (times >= first) & (times < second))
    return validation, test, np.flatnonzero(times >= min(first, second))


def _last_of_some(dataset: Dataset, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return the last of the interactions `rows` of a fraction of the users who have two or more."""
    order = time_order(dataset, rows)
    users = dataset.user_rows[order]
    last = order[(position_from_end(users) == 0) & (np.bincount(users, minlength=len(dataset.users))[users] > 1)]
    return np.sort(hold_out_users(dataset.user_rows, last, share, seed)) if len(last) else last


def _cold(
    rows: np.ndarray, eligible: np.ndarray, validation: float, test: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out all interactions of a random fraction of the users (or items), so that none of them is in training."""
    known = np.unique(rows[eligible])
    shuffled = known[np.random.default_rng(seed).permutation(len(known))]
    tests, validations = round(len(known) * test), round(len(known) * validation)
    tested = eligible & np.isin(rows, shuffled[:tests])
    validated = eligible & np.isin(rows, shuffled[tests : tests + validations])
    return np.flatnonzero(validated), np.flatnonzero(tested)


def _random(
    dataset: Dataset, eligible: np.ndarray, validation: float, test: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out random fractions of all interactions; every user keeps at least one to train on.

    Drawn over interactions in the order of user, item and time, so that the file's order does not matter.
    """
    parts = [np.empty(0, np.int64)]
    for part in blocks_of_users(dataset, time_order(dataset)):
        chosen = part[eligible[part]]
        parts.append(chosen[np.lexsort((dataset.item_rows[chosen], dataset.user_rows[chosen]))])
    order = np.concatenate(parts)
    del parts
    order = order[np.random.default_rng(seed).permutation(len(order))]
    last = np.full(len(dataset.users), -1)
    last[dataset.user_rows[order]] = np.arange(len(order))  # of several rows of one user, the last assignment stays
    drawn = np.ones(len(order), bool)
    drawn[last[last >= 0]] = False
    tests, validations = round(len(order) * test), round(len(order) * validation)
    candidates = order[np.flatnonzero(drawn)[: tests + validations]]
    return np.sort(candidates[tests:]), np.sort(candidates[:tests])
