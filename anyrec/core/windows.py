"""Interactions in time order as what reads history is given them: a stream packed without padding to learn from, and each
user's last ones to predict from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from anyrec.core.ragged import Ragged

Events = Mapping[str, Ragged]
"""A user a row, oldest event first. `items`: rows of the item tower; `gaps`: log(1 + seconds) since the event before, 0 for the
first; `kinds`: place of the interaction's type among those known, 0 for none; `moments`: place of the first event at the same time."""


class Windows(NamedTuple):
    """Tokens in rows, users side by side.

    items: (rows, length) int64, the item of each token; -1 where there is none: before a user's first event, or hidden.
    gaps: (rows, length) float32 and kinds: (rows, length) int64 of the token's event, 0 where there is none.
    first: (rows, length) int64, the column at which the run of the token's user begins.
    """

    items: Tensor
    gaps: Tensor
    kinds: Tensor
    first: Tensor

    def visible(self, causal: bool) -> Tensor:
        """(rows, length, length) bool: whether a token (second dimension) may look at another (third)."""
        same = self.first.unsqueeze(2) == self.first.unsqueeze(1)
        return same.tril() if causal else same


class Batch(NamedTuple):
    """What one step learns from.

    rows: (positives,) of the samples. windows: what their users did, where something reads it.
    read: (positives,) int64 the token, among all of `windows`, that stands for each positive; -1 where nothing is known.
    events: (positives,) int64 which of all the events each is.
    """

    rows: Tensor
    windows: Windows | None = None
    read: Tensor | None = None
    events: Tensor | None = None


class Stream:
    """All training events end to end, cut into rows of `length` tokens at other places each epoch.

    Nothing is padded, and every event is learned once an epoch. A token holds the event before the one it predicts, so
    that a position sees what came before it, back to the row's start; with `mask_share` it holds its own event, or
    nothing for that share, which are then predicted from both sides. Users come in a new order each epoch.
    """

    def __init__(
        self,
        events: Events,
        samples: Tensor,
        length: int,
        batch_size: int,
        ordered: bool,
        mask_share: float | None = None,
    ):
        """samples: (events,) row of the sample that each event is, -1 for none. batch_size: tokens a step.

        ordered: whether an event may see those of the same time that stand before it; else it sees what came before all of them.
        """
        items = events["items"]
        self.samples, self.mask_share, self.offsets = samples, mask_share, items.offsets
        self.events = len(items.values)
        self.length = min(length, self.events)
        self.rows = math.ceil(self.events / self.length)
        self.rows_a_step = max(1, batch_size // self.length)
        self.count = math.ceil(self.rows / self.rows_a_step)
        self.starts = torch.zeros(self.events, dtype=torch.bool, device=samples.device)
        self.starts[items.offsets[:-1][items.lengths > 0]] = True
        self.tokens = [events[name].values for name in ("items", "gaps", "kinds")]
        if mask_share is None:
            blank = (-1, 0, 0)
            self.tokens = [
                torch.where(self.starts, none, values.roll(1)) for values, none in zip(self.tokens, blank, strict=True)
            ]
        here = torch.arange(self.events, device=samples.device)
        begin = items.offsets[:-1].repeat_interleave(items.lengths, output_size=self.events)
        self.before = (
            torch.zeros_like(here) if ordered or mask_share is not None else here - begin - events["moments"].values
        )
        """(events,) how many events of the same time stand before each."""

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        order = self._order(generator)
        rows = torch.randperm(self.rows, generator=generator, device=order.device)
        for part in rows.split(self.rows_a_step):
            yield self._batch(order[part], generator)

    def _order(self, generator: torch.Generator) -> Tensor:
        """(rows, length) events: users in a new order, rolled so that rows are cut elsewhere; the first fill up the last row."""
        device = self.samples.device
        users = torch.randperm(len(self.offsets) - 1, generator=generator, device=device)
        order = Ragged(torch.arange(self.events, device=device), self.offsets).select(users).values
        cut = int(torch.randint(self.events, (1,), generator=generator, device=device))
        cells = torch.arange(cut, cut + self.rows * self.length, device=device) % self.events
        return order[cells].view(self.rows, self.length)

    def _batch(self, events: Tensor, generator: torch.Generator) -> Batch:
        """events: (rows, length)."""
        column = torch.arange(self.length, device=events.device).expand_as(events)
        begins = self.starts[events]
        begins[:, 1:] |= events[:, 1:] != events[:, :-1] + 1
        begins[:, 0] = True
        first = torch.where(begins, column, 0).cummax(1).values
        items, gaps, kinds = (values[events] for values in self.tokens)
        learned = self.samples[events] >= 0
        if self.mask_share is None:
            read = column - self.before[events]
            read = torch.where(read >= first, read, -1)
            read = torch.where((read >= 0) & (items.gather(1, read.clamp(min=0)) >= 0), read, -1)
        else:
            hidden = torch.rand(events.shape, generator=generator, device=events.device) < self.mask_share
            items, gaps, kinds = (
                items.masked_fill(hidden, -1),
                gaps.masked_fill(hidden, 0),
                kinds.masked_fill(hidden, 0),
            )
            learned, read = learned & hidden, column
        base = torch.arange(len(events), device=events.device).unsqueeze(1) * self.length
        read = torch.where(read >= 0, read + base, -1)
        windows = Windows(items, gaps, kinds, first)
        return Batch(self.samples[events][learned], windows, read[learned], events[learned])


def last_windows(events: Events, length: int, masked: bool) -> tuple[Windows, Tensor]:
    """Each user's last events for the prediction of the next: the windows, a user a row, filled up at the right, and
    (rows,) the column to read. As in the stream, a token stands before the first event; or, `masked`, a hidden one after the last."""
    items = events["items"]
    known = items.lengths
    tokens = (known + 1).clamp(max=length)
    longest = int(tokens.max()) if len(tokens) else 1
    column = torch.arange(longest, device=known.device).expand(len(known), -1)
    place = column + (known - tokens + (1 if masked else 0)).unsqueeze(1)
    real = column < tokens.unsqueeze(1)
    there = real & (place >= 0) & (place < known.unsqueeze(1))
    cells = torch.where(there, items.offsets[:-1].unsqueeze(1) + place, 0)

    def gather(name: str, blank: float) -> Tensor:
        values = events[name].values
        if not len(values):
            return torch.full(cells.shape, blank, dtype=values.dtype, device=values.device)
        return torch.where(there, values[cells], blank)

    first = torch.where(real, 0, column)  # what fills a row up is alone, and so sees itself and is seen by none
    return Windows(gather("items", -1), gather("gaps", 0), gather("kinds", 0), first), tokens - 1
