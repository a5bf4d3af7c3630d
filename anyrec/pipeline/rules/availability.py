"""A filter by availability: stock, listed ids, a window of time."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
import pyarrow.compute as pc
from pydantic import BaseModel, Field, model_validator

from anyrec.core.errors import Fault
from anyrec.core.outside import Outside
from anyrec.core.types import Json
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.constants import Wrong, constant_values, read_time
from anyrec.pipeline.conditions.features import Features, Values, check_feature, known_types
from anyrec.pipeline.contracts import Request, Rule
from anyrec.pipeline.reranking.item_files import ItemFile, check_ids, raise_faults, rows_of_ids


class AvailabilityRule(Rule):
    """Lists only available items: by a feature, by listed ids, within a window of time.

    An item matches if it meets all options that are set. Mode `only` lists the items that match, mode `never` the
    others.

    Example:
        AvailabilityRule(feature="item.continuous.stock")
    """

    type = "availability"

    class Params(Rule.Params):
        feature: str | None = Field(
            None, description="Item feature: an item is available if it is true, above 0, or one of `values`."
        )
        values: list[str | int | float | bool] = Field(
            default_factory=list,
            description="Values of the feature that mean available; required if it contains texts.",
        )
        items: list[str | int] = Field(default_factory=list, max_length=100_000, description="Ids of items.")
        file: Annotated[str | None, Outside("a file")] = Field(
            None, description="File of item ids (.json, .jsonl, .csv, .parquet, .txt), read again when it changes."
        )
        since: str | None = Field(
            None,
            description="Start of the window, inclusive: an item feature with times, or a time (2024-05-01, now-30d).",
        )
        until: str | None = Field(None, description="End of the window, exclusive: as `since`.")
        mode: Literal["only", "never"] = Field(
            "only", description="List only the items that match all options set, or never these."
        )
        missing: Literal["keep", "drop"] | None = Field(
            None,
            description="Items without a value of `feature`: by default dropped with mode `only`, kept with `never`. "
            "An item without a value of `since` or `until` has no such bound.",
        )

        @model_validator(mode="after")
        def _names_something(self) -> Self:
            if not (self.feature or self.items or self.file or self.since or self.until):
                raise ValueError("give at least one of feature, items, file, since, until")
            alone = [name for name in ("values", "missing") if getattr(self, name) and not self.feature]
            if alone:
                raise ValueError(f"{' and '.join(alone)} without feature has no effect: give the feature")
            return self

    params: Params

    def __init__(self, params: BaseModel | None = None, **options: Json):
        super().__init__(params, **options)
        self.features = Features()
        self.file = ItemFile(self.params.file) if self.params.file else None

    def check(self, model: ModelData) -> None:
        params = self.params
        kinds = ("text", "number", "flag") if params.values else ("number", "flag")
        faults = check_feature(model, params.feature, "/feature", "item", kinds)
        faults += [] if faults else self._check_values(model)
        faults += check_ids(model, params.items, "/items/{}")
        faults += self.file.check("/file") if self.file else []
        for name in ("since", "until"):
            bound = getattr(params, name)
            if bound is not None and bound.startswith("item."):
                faults += check_feature(model, bound, f"/{name}", "item", ("time",), many=False)
            elif bound is not None:
                try:
                    read_time(bound, 0)
                except Wrong as wrong:
                    faults.append(Fault(f"/{name}", f"{wrong}.", "Give a time or an item feature.", "bad value"))
        raise_faults(faults)

    def _check_values(self, model: ModelData) -> list[Fault]:
        """Return a fault for each of `values` that has another type than the feature."""
        faults, feature = [], self.params.feature
        kind = None if feature is None else known_types(model)[feature].kind
        for n, value in enumerate(self.params.values):
            try:
                constant_values((value,), kind, 0)
            except Wrong as wrong:
                faults.append(Fault(f"/values/{n}", f"{wrong}.", f"Give a value of '{feature}'.", "wrong type"))
        return faults

    def allowed(self, request: Request) -> np.ndarray:
        params = self.params
        matches = np.ones(len(request.items), bool)
        if params.items or self.file:
            matches &= self._listed(request)
        since, until = self._bound(request, params.since), self._bound(request, params.until)
        matches &= ~np.asarray((since > request.now) | (until <= request.now))  # False for a missing bound, NaN
        if params.mode == "never":
            return ~(matches & self._has_value(request, params.missing == "drop"))
        return matches & self._has_value(request, params.missing == "keep")

    def _listed(self, request: Request) -> np.ndarray:
        """Return (items,) bool, whether the item is one of `items` or in the file."""
        ids = request.model.dataset.ids("item")
        rows = [rows_of_ids(self.params.items, ids)] if self.params.items else []
        rows += [self.file.rows(ids)] if self.file else []
        rows = np.concatenate(rows)
        listed = np.zeros(len(ids), bool)
        listed[rows[rows >= 0]] = True
        return listed

    def _bound(self, request: Request, bound: str | None) -> np.ndarray | float:
        """Return a bound as microseconds since 1970, for each item (items,) or for all; NaN for no bound."""
        if bound is None:
            return np.nan
        return self.features.of(request, bound).single() if bound.startswith("item.") else read_time(bound, request.now)

    def _has_value(self, request: Request, missing: bool) -> np.ndarray:
        """Return (items,) bool, whether the feature means available. missing: the result for items without a value."""
        if self.params.feature is None:
            return np.ones(len(request.items), bool)
        found = self.features.of(request, self.params.feature)
        if self.params.values:
            wanted = constant_values(tuple(self.params.values), found.kind, request.now)
            data = wanted.data if found.names is None else _places(wanted, found)
            means_available = np.isin(found.data, data)
        else:
            means_available = found.data > 0
        has = np.zeros(found.rows, bool)
        has[found.owners[means_available]] = True
        return np.where(found.counts > 0, has, missing)


def _places(wanted: Values, found: Values) -> np.ndarray:
    """Return the places of texts in the names of a feature."""
    return pc.index_in(wanted.names, value_set=found.names).drop_null().to_numpy(zero_copy_only=False)
