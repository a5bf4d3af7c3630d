"""The items that most users had: overall, recently, or in a group of users."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.data.labels import MICROSECONDS_A_DAY, ages
from anyrec.data.list_columns import flat
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.pipeline.candidate_lists import first_listable, listable_items
from anyrec.pipeline.conditions.constants import MOST_DAYS
from anyrec.pipeline.contracts import Lists, Request, Source


class PopularitySource(Source):
    """Retrieves the items that most users had: overall, recently (`half_life_days`), or in the user's group (`group`).

    A user without a group gets the items that are popular overall.
    """

    type = "popularity"

    class Params(Source.Params):
        half_life_days: float | None = Field(
            None,
            ge=1e-6,
            le=MOST_DAYS,
            description="Age in days, before the newest interaction, at which one counts half.",
        )
        group: str | None = Field(
            None,
            description="A categorical user feature, for example categorical.country: items popular among users with "
            "the same value.",
        )
        most_groups: int = Field(
            100,
            ge=1,
            le=10_000,
            description="Maximum number of groups, the largest; other users get the items that are popular overall.",
        )

    params: Params

    def check(self, model: ModelData) -> None:
        features = [name for name in model.dataset.features("user") if name.startswith("categorical.")]
        if self.params.group is not None and self.params.group not in features:
            what = f"the users have no categorical feature '{self.params.group}'."
            raise ConfigError(Fault("/group", what, did_you_mean(self.params.group, features)))

    def fit(self, model: FittedModel, rows: np.ndarray) -> None:
        dataset = model.dataset
        users, items, weights = dataset.user_rows[rows], dataset.item_rows[rows], self._weights(dataset.times[rows])
        self.groups = self._largest(dataset.users)
        groups = self._group_of(dataset.users)[users]
        size = len(dataset.items)
        keys = np.concatenate([groups * size + items, items])  # row 0 counts all users
        counts = np.bincount(keys, np.concatenate([weights, weights * (groups > 0)]), (len(self.groups) + 1) * size)
        self._take(counts.reshape(-1, size).astype(np.float32))

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        counts, size = self.counts, len(request.items)
        groups, listable = self._group_of(request.users), listable_items(request, allowed)
        items = np.full((len(groups), min(k, size)), -1)
        for group in np.unique(groups).tolist():
            order, added = self._order(group), np.arange(counts.shape[1], size, dtype=np.int32)
            order = np.concatenate([order, added]) if len(added) else order  # items added after training come last
            mine = np.flatnonzero(groups == group)
            own = listable if listable is None or listable.ndim == 1 else listable[mine]
            found = first_listable(order, len(mine), k, own)
            items[mine, : found.shape[1]] = found
        known = (items >= 0) & (items < counts.shape[1])
        scores = np.where(known, counts[groups[:, None], np.where(known, items, 0)], np.where(items >= 0, 0, -np.inf))
        return Lists(items, scores.astype(np.float32))

    def state(self) -> dict[str, np.ndarray]:
        names = "\x00".join(self.groups).encode()
        return {"counts": self.counts, "groups": np.frombuffer(names, np.uint8).copy()}

    def check_restored(self, model: FittedModel) -> None:
        shape, count = self.counts.shape, len(model.dataset.items)
        if self.groups and self.params.group is None:
            raise ValueError("it has groups, and the config names none")
        if len(shape) != 2 or shape[0] != len(self.groups) + 1 or shape[1] > count or self.counts.dtype.kind != "f":
            raise ValueError(f"expected counts of at most {count} items for each of {len(self.groups) + 1} groups")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._take(state["counts"])
        names = state["groups"].tobytes().decode()
        self.groups = names.split("\x00") if len(self.counts) > 1 else []

    def _take(self, counts: np.ndarray) -> None:
        """Set the counts, (groups + 1, items) float32."""
        self.counts, self._orders = counts, {}

    def _order(self, group: int) -> np.ndarray:
        """Return (items,) int32, the most popular items of a group first, ties by row. It is computed once."""
        if group not in self._orders:
            self._orders[group] = np.argsort(-self.counts[group], kind="stable").astype(np.int32)
        return self._orders[group]

    def _weights(self, times: np.ndarray) -> np.ndarray:
        """Return (pairs,) the weight of each interaction by its time in microseconds since 1970."""
        if self.params.half_life_days is None:
            return np.ones(len(times))
        return 0.5 ** ages(times, self.params.half_life_days * MICROSECONDS_A_DAY)[0]

    def _largest(self, users: pa.Table) -> list[str]:
        """Return the most frequent values of the feature, ties by name."""
        if self.params.group is None:
            return []
        values, _ = flat(users.column(self.params.group).combine_chunks())
        counted = pc.value_counts(values)
        table = pa.table({"value": counted.field("values"), "count": counted.field("counts")})
        largest = table.sort_by([("count", "descending"), ("value", "ascending")])
        return largest.slice(0, self.params.most_groups)["value"].to_pylist()

    def _group_of(self, users: pa.Table) -> np.ndarray:
        """Return (users,) int64 the group of each user, from 1: the first value that is a group; 0 for none."""
        found = np.zeros(len(users), np.int64)
        if self.groups and self.params.group in users.column_names:
            values, owners = flat(users.column(self.params.group).combine_chunks())
            place = pc.fill_null(pc.index_in(values, value_set=pa.array(self.groups, values.type)), -1)
            place = place.to_numpy(zero_copy_only=False)
            inside = np.flatnonzero(place >= 0)[::-1]  # reversed, so that the first value is written last
            found[owners[inside]] = place[inside] + 1
        return found
