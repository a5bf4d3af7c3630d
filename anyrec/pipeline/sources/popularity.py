"""What most users had: of all, of late, or of users of the same kind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.data.labels import MICROSECONDS_A_DAY, ages
from anyrec.data.list_columns import flat
from anyrec.model.fitted import FittedModel, ModelData
from anyrec.pipeline.candidate_lists import first_listable, listable_items
from anyrec.pipeline.conditions.constants import MOST_DAYS
from anyrec.pipeline.contracts import Lists, Request, Source


class PopularitySource(Source):
    """The items that most users had: overall, lately (`half_life_days`), or among users of the same group (`group`)."""

    type = "popularity"

    class Params(Source.Params):
        half_life_days: float | None = Field(
            None, ge=1e-6, le=MOST_DAYS, description="An interaction this much older than the newest counts half."
        )
        group: str | None = Field(
            None,
            description="A categorical user feature, as categorical.country: popular among users of the same value.",
        )
        most_groups: int = Field(
            100, ge=1, le=10_000, description="Groups told apart, the largest; the rest get what all like."
        )

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
        keys = np.concatenate([groups * size + items, items])  # the first row is of all users
        counts = np.bincount(keys, np.concatenate([weights, weights * (groups > 0)]), (len(self.groups) + 1) * size)
        self._take(counts.reshape(-1, size).astype(np.float32))

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        counts, size = self.counts, len(request.items)
        groups, shown = self._group_of(request.users), listable_items(request, allowed)
        items = np.full((len(groups), min(k, size)), -1)
        for group in np.unique(groups).tolist():
            order, later = self._order(group), np.arange(counts.shape[1], size, dtype=np.int32)
            order = np.concatenate([order, later]) if len(later) else order  # items that came later are last
            mine = np.flatnonzero(groups == group)
            own = shown if shown is None or shown.ndim == 1 else shown[mine]
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
            raise ValueError("groups were saved, and the config names none")
        if len(shape) != 2 or shape[0] != len(self.groups) + 1 or shape[1] > count or self.counts.dtype.kind != "f":
            raise ValueError(
                f"numbers of at most {count} items for each of {len(self.groups) + 1} groups were expected"
            )

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._take(state["counts"])
        names = state["groups"].tobytes().decode()
        self.groups = names.split("\x00") if len(self.counts) > 1 else []

    def _take(self, counts: np.ndarray) -> None:
        self.counts, self._orders = counts, {}

    def _order(self, group: int) -> np.ndarray:
        """(items,) int32, the most popular of the group first, equal ones by row; sorted once, not for each block of users."""
        if group not in self._orders:
            self._orders[group] = np.argsort(-self.counts[group], kind="stable").astype(np.int32)
        return self._orders[group]

    def _weights(self, times: np.ndarray) -> np.ndarray:
        if self.params.half_life_days is None:
            return np.ones(len(times))
        return 0.5 ** ages(times, self.params.half_life_days * MICROSECONDS_A_DAY)[0]

    def _largest(self, users: pa.Table) -> list[str]:
        """The values of the feature that most users have, by name where as many have them."""
        if self.params.group is None:
            return []
        values, _ = flat(users.column(self.params.group).combine_chunks())
        counted = pc.value_counts(values)
        table = pa.table({"value": counted.field("values"), "count": counted.field("counts")})
        largest = table.sort_by([("count", "descending"), ("value", "ascending")])
        return largest.slice(0, self.params.most_groups)["value"].to_pylist()

    def _group_of(self, users: pa.Table) -> np.ndarray:
        """(users,) int64 the group of each from 1, 0 for none: that of the first of their values that is one."""
        found = np.zeros(len(users), np.int64)
        if self.groups and self.params.group in users.column_names:
            values, owners = flat(users.column(self.params.group).combine_chunks())
            place = pc.fill_null(pc.index_in(values, value_set=pa.array(self.groups, values.type)), -1)
            place = place.to_numpy(zero_copy_only=False)
            inside = np.flatnonzero(place >= 0)[::-1]  # the first value is written last
            found[owners[inside]] = place[inside] + 1
        return found
