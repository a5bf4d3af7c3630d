"""Aggregates of a user's past interactions: running means of item numbers, and frequencies of item categories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from anyrec.core.contracts import HistoryEncoder, Params
from anyrec.core.ragged import Prepared, Ragged
from anyrec.core.windows import Batch
from anyrec.data.list_columns import flat, offsets_of
from anyrec.data.preparation.aggregates import BOUND, ItemAggregates, features_of_items, scaled
from anyrec.data.preparation.events import items_of, moments_of
from anyrec.data.preparation.numbers import scaling_of
from anyrec.encoders.categorical import Categorical
from anyrec.encoders.continuous import Continuous
from anyrec.encoders.history import History


class Aggregates(HistoryEncoder):
    """Aggregates of a user's earlier items: how many, the means of their numbers, the frequencies of their categories.

    The aggregates are log(1 + count); for each continuous item feature, the fraction of items that have it and their
    mean; for each categorical item feature, the fraction of items with each of the `top` most frequent values, and with
    any other. They are standardised by the training histories and projected.

    Example:
        {"features": {"history": {"fields": {"totals": {"type": "aggregates"}}}}} adds them to the sequence model.
    """

    type = "aggregates"
    group = "history"
    preparation = "aggregates"

    class Params(Params):
        top: int = Field(
            16, ge=1, le=4096, description="Most frequent values of a categorical item feature that are counted."
        )
        half_life: float | None = Field(
            None,
            ge=1e-3,
            le=1e9,
            description="Interactions after which the weight of one is halved; null for equal weights.",
        )
        same_time: Literal["hidden", "ordered"] = Field(
            "hidden",
            description="Interactions at the time of the target: hidden, or visible if they precede it in the file.",
        )

    def __init__(self, params: BaseModel | None = None, output_dim: int = 64):
        super().__init__(params, output_dim)
        self.window = None
        self.ordered = self.params.same_time == "ordered"
        self.mask_share = None

    @classmethod
    def example(cls) -> pa.Array:
        """Return a column for the conformance kit."""
        return History.example()

    def fit(self, column: pa.Array) -> None:
        """Learn the scaling of the aggregates, from the items that occur in the histories, each counted once.

        Args:
            column: (users,) lists of `anyrec.data.histories.EVENT`, oldest first. They refer to `context.items`.
        """
        events, owners = flat(column)
        self.timeless = pc.struct_field(events, "time").null_count == len(events)
        items, offsets = items_of(events), offsets_of(owners, len(column))
        assert self.context.items is not None
        table = features_of_items(self.context.items, items)[0]
        self.numbers, self.categories = {}, {}
        for name in sorted(table.column_names):
            values = table.column(name).combine_chunks()
            if name.startswith("continuous."):
                self.numbers[name] = _linear()
                self.numbers[name].fit(values)
            elif name.startswith("categorical."):
                self.categories[name] = _frequent(self.params.top)
                self.categories[name].fit(values)
        if not self.numbers and not self.categories:
            self.context.warnings.append(
                "No item has a continuous or categorical feature: the only aggregate of a history is its length."
            )
        self.mean, self.deviation = [], []
        for aggregate in self._aggregates(items, offsets):
            known = len(aggregate) > 0
            deviation = float(aggregate.std()) if known else 1.0
            self.mean.append(float(aggregate.mean()) if known else 0.0)
            self.deviation.append(deviation if deviation > 1e-9 else 1.0)

    def prepare(self, column: pa.Array) -> Prepared:
        """Compute the aggregates before each event, and after all of them.

        Args:
            column: (users,) lists of `anyrec.data.histories.EVENT`, oldest first.

        Returns:
            `anyrec.core.windows.Events`, with these values besides. A user without an event is absent.

            before: (events, width) float32 aggregates of what came before each event.
            known: (events,) bool, whether anything came before it.
            now: (users, width) float32 aggregates of all events.
        """
        events, owners = flat(column)
        offsets = offsets_of(owners, len(column))
        items, count, lengths = items_of(events), int(offsets[-1]), np.diff(offsets)
        begins = np.repeat(offsets[:-1], lengths)
        moments = moments_of(pc.struct_field(events, "time"), offsets)
        # Visible events before each one: all that precede it, or only those of earlier times.
        visible = np.arange(count) - begins if self.ordered or self.timeless else moments
        known, previous = visible > 0, np.maximum(begins + visible - 1, 0)
        there, last = lengths > 0, np.maximum(offsets[1:] - 1, 0)
        before = np.zeros((count, len(self.mean)), np.float32)
        now = np.zeros((len(column), len(self.mean)), np.float32)
        for place, aggregate in enumerate(self._aggregates(items, offsets)):
            values = scaled(aggregate, self.mean[place], self.deviation[place])
            before[known, place] = values[previous[known]]
            now[there, place] = values[last[there]]
        starts = torch.from_numpy(offsets)
        lists = {
            "items": items,
            "gaps": np.zeros(count, np.float32),
            "kinds": np.zeros(count, np.int64),
            "moments": moments,
            "before": before,
            "known": known,
        }
        prepared: dict[str, Tensor | Ragged] = {
            name: Ragged(torch.from_numpy(part), starts) for name, part in lists.items()
        }
        prepared["now"] = torch.from_numpy(now)
        return Prepared(prepared, torch.from_numpy(there))

    def build(self) -> None:
        """Create the projection."""
        self.project = nn.Linear(len(self.mean), self.output_dim)

    def before(self, batch: Batch, values: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        """Project the aggregates before each of the batch's positives.

        Args:
            batch: The positives of a training step.
            values: What `prepare` returned, all rows.
            items: Not used.

        Returns:
            (positives, output_dim), and (positives,) bool, whether anything came before.
        """
        assert batch.events is not None
        return self.project(values["before"].values[batch.events]), values["known"].values[batch.events]

    def forward(self, values: Any, items: Tensor | None = None) -> Tensor:
        """Project the aggregates of all events of a batch of users. Training uses `before` instead.

        Args:
            values: What `prepare` returned, the rows of the batch.
            items: Not used.

        Returns:
            (batch, output_dim).
        """
        return self.project(values["now"])

    def exported_layers(self) -> nn.Module:
        """Return the projection, which reads the aggregates of all events."""
        return self.project

    def _aggregates(self, items: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the aggregates over each user's events; arguments and result as of `ItemAggregates.of`."""
        assert self.context.items is not None
        numbers = {name: (one.mean, one.deviation) for name, one in self.numbers.items()}
        categories = {name: one.vocabulary for name, one in self.categories.items()}
        return ItemAggregates(numbers, categories, self.params.half_life).of(self.context.items, items, offsets)

    def state(self) -> dict[str, Any]:
        return {
            "timeless": self.timeless,
            "mean": self.mean,
            "deviation": self.deviation,
            "numbers": {name: encoder.state() for name, encoder in self.numbers.items()},
            "categories": {name: encoder.vocabulary.to_pylist() for name, encoder in self.categories.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.timeless = bool(state["timeless"])
        self.mean, self.deviation = scaling_of(state, len(state["mean"]))
        self.numbers, self.categories = {}, {}
        for name, learned in sorted(state["numbers"].items()):
            self.numbers[name] = _linear()
            self.numbers[name].restore(learned)
        for name, values in sorted(state["categories"].items()):
            self.categories[name] = _frequent(self.params.top)
            self.categories[name].restore({"vocabulary": pa.array(values, pa.string())})


def _linear() -> Continuous:
    """Return the encoder that standardises an item's numbers."""
    return Continuous(Continuous.Params.model_validate({"encoding": "linear", "clip": BOUND}))


def _frequent(top: int) -> Categorical:
    """Return the encoder that finds the `top` most frequent categories of items."""
    return Categorical(Categorical.Params.model_validate({"max_categories": top}))
