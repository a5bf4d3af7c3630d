"""The protocols of the arena: for each data set the splits, and what a config must set for them.

P1 leave-last-out, P2 global time (five cuts), P3 order-free, new-users (by their features only). The two cold-start
protocols that remain are in benchmarks/arena_cold.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from arena_task import WHOLE
from common import DATA

from anyrec.core.config import DataConfig, SplitConfig
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.order import has_clock
from anyrec.data.split import Split, save_split, split_interactions

START = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
"""Time of position 0 of a user's order."""
SHARES = (60, 65, 70, 75, 80)
"""Percent of the interactions that the cuts of P2 train on."""
PERIOD = 10
"""Percent of the interactions that validate, and that test, at each cut of P2."""
SEED = 0
"""Seed of all random splits, whatever the seed of the model."""


@dataclass(frozen=True)
class Case:
    """One split of one data set.

    Attributes:
        dataset: Sorted by id, with nothing that the protocol hides.
        split: Rows of `dataset.interactions` for each part.
        needs: Sections of the config that the protocol needs; `split` is how the split was made.
    """

    dataset: Dataset
    split: Split
    needs: JsonObject

    def source(self, folder: Path) -> JsonObject:
        """Save the split in `folder`, and return the config document that uses it and sets nothing else."""
        save_split(self.split, self.dataset, folder)
        split = {"file": str(folder / "split.parquet")}
        return {**self.needs, "data": {"unknown_ids": "keep"}, "split": split}


@dataclass(frozen=True)
class Protocol:
    """A way to split and to measure.

    Attributes:
        title: One line for the report.
        valid: Whether the protocol is meaningful for a data set.
        make: Returns the case of a data set at a cut.
        cuts: Names of the cuts, over which figures are averaged.
        quick_cuts: The cuts of a quick run.
        histories: Whether the measured users have a history; without one all personal classical models rank by
            popularity.
    """

    title: str
    valid: Callable[[Dataset], bool]
    make: Callable[[Dataset, str], Case]
    cuts: tuple[str, ...] = (WHOLE,)
    quick_cuts: tuple[str, ...] = (WHOLE,)
    histories: bool = True


def names_of_data() -> list[str]:
    """Return the names of the data sets that are there, the smallest first."""
    folders = [folder for folder in DATA.iterdir() if folder.is_dir()] if DATA.is_dir() else []
    sizes = {folder.name: sum(file.stat().st_size for file in folder.glob("*.*")) for folder in folders}
    return sorted(sizes, key=lambda name: sizes[name])


def load(name: str) -> Dataset:
    """Read a data set of ANYREC_DATA."""
    return read(DATA / name)


def read(folder: Path) -> Dataset:
    """Read a data set, sorted by id. Positions in the order of a user become minutes from `START`."""
    dataset = Dataset.read(folder, DataConfig(unknown_ids="keep")).sorted()
    file = folder / "interactions.parquet"
    if dataset.column("timestamp") is not None or not file.is_file() or "position" not in pq.read_schema(file).names:
        return dataset
    table = pq.read_table(file)
    for key in ("user_id", "item_id"):
        if not pc.all(pc.equal(table[key], dataset.interactions[key])).as_py():
            raise SystemExit(f"{file}: the interactions were not read in the order of the file")
    minutes = table["position"].cast(pa.int64()).to_numpy()
    times = pa.array(np.datetime64(START.replace(tzinfo=None), "us") + minutes.astype("timedelta64[m]"))
    column = times.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    return with_interactions(dataset, dataset.interactions.append_column("timestamp", column))


def with_interactions(dataset: Dataset, interactions: pa.Table) -> Dataset:
    """Return the dataset with other interactions."""
    return replace(dataset, interactions=interactions)


def leave_last_out(dataset: Dataset, cut: str = WHOLE) -> Case:
    """P1: the last interaction of each user tests, the one before validates; items that occur are ranked."""
    needs = {"split": {"protocol": "leave_last_out"}, "evaluation": {"candidates": "interacted"}}
    return _case(dataset, needs)


def global_time(dataset: Dataset, cut: str) -> Case:
    """P2: the first interactions by time train, the next PERIOD validates, the PERIOD after tests.

    The data end with the test part, so that nothing of the future is there. Ties keep the order of the file.

    Args:
        dataset: The data, with clock times.
        cut: Percent of the interactions to train on.
    """
    order = np.argsort(dataset.times, kind="stable")
    share = int(cut)
    ends = [round(len(order) * end / 100) for end in (share, share + PERIOD, share + 2 * PERIOD)]
    kept = np.sort(order[: ends[2]])
    rows = np.searchsorted(kept, order[: ends[2]])
    train, validation, test = (np.sort(part) for part in np.split(rows, ends[:2]))
    fraction = round(PERIOD / (share + 2 * PERIOD), 6)
    needs = {"split": {"protocol": "global_time", "validation": fraction, "test": fraction}}
    known = with_interactions(dataset, dataset.interactions.take(pa.array(kept)))
    return Case(known, Split(train, validation, test, "global_time"), needs)


def order_free(dataset: Dataset, cut: str = WHOLE) -> Case:
    """P3: no timestamps; a random tenth of the interactions validates and another tests."""
    if "timestamp" in dataset.interactions.column_names:
        dataset = with_interactions(dataset, dataset.interactions.drop_columns("timestamp"))
    return _case(dataset, {"split": {"protocol": "random"}})


def new_users(dataset: Dataset, cut: str = WHOLE) -> Case:
    """All interactions of a tenth of the users test, those of another tenth validate: they have no history."""
    return _case(dataset, {"split": {"protocol": "cold_users"}})


def _case(dataset: Dataset, needs: JsonObject) -> Case:
    """Return the case of one of the product's own split protocols."""
    split, _ = split_interactions(dataset, SplitConfig(**needs["split"]), SEED)
    return Case(dataset, split, needs)


def timed(dataset: Dataset) -> bool:
    """Return whether the interactions of a user have an order."""
    return dataset.column("timestamp") is not None


PROTOCOLS: dict[str, Protocol] = {
    "P1": Protocol("leave-last-out: the last interaction of each user tests", timed, leave_last_out),
    "P2": Protocol(
        "global time: five cuts, figures averaged over them",
        has_clock,
        global_time,
        tuple(map(str, SHARES)),
        (str(SHARES[2]),),
    ),
    "P3": Protocol("order-free: no timestamps, random tenths validate and test", lambda dataset: True, order_free),
    "new-users": Protocol(
        "users without a history, by their features only",
        lambda dataset: bool(dataset.features("user")),
        new_users,
        histories=False,
    ),
}
