"""Interactions as the encoders of histories read them: in time order as sequences, or without order as sets.

For training, `SequencePacker` packs the events of all users into rows without padding, and `SetPacker` splits those of
each user into visible events and targets. `last_windows` gathers the last events of each user, for inference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from anyrec.core.ragged import Padded, Ragged
from anyrec.core.scratch import Scratch, kept

Events = Mapping[str, Ragged | Padded]
"""One row for each user, oldest event first.

items: int64 rows of the item table.
gaps: float32, log(1 + seconds) since the user's previous event; 0 for the first event.
kinds: int64 index of the interaction's type, from 1; 0 for an unknown type or none.
moments: int64 position, within the user's events, of the first event with the same time.
"""


BLOCK = 1 << 20
"""Events whose pairs are numbered at once."""


class PackedSequences(NamedTuple):
    """Rows of tokens; a row can hold the sequences of several users, end to end, without padding.

    A run is a stretch of columns of one row that belongs to one user.

    Attributes:
        items: (rows, length) int64, the item of each token; -1 for a token without an item: the start token of a
            user, or an item that is hidden for training.
        gaps: (rows, length) float32, the gap of the token's event (see `Events`); 0 for a token without an item.
        kinds: (rows, length) int64, the kind of the token's event (see `Events`); 0 for a token without an item.
        first: (rows, length) int64, the column at which the run of each token begins.
    """

    items: Tensor
    gaps: Tensor
    kinds: Tensor
    first: Tensor

    def visible(self, causal: bool) -> Tensor:
        """Return the attention mask.

        Args:
            causal: Restrict each token to itself and the tokens before it.

        Returns:
            (rows, length, length) bool. True if the token of the second dimension can attend to that of the third.
            Tokens attend only within their own run.
        """
        same = self.first.unsqueeze(2) == self.first.unsqueeze(1)
        return same.tril() if causal else same

    def with_items(self, items: Tensor) -> PackedSequences:
        """Return the same tokens with other items: (rows, length) int64."""
        return PackedSequences(items, self.gaps, self.kinds, self.first)


class Batch(NamedTuple):
    """The positives of one training step.

    Attributes:
        rows: (positives,) int64 rows of the training samples.
        windows: The tokens of the positives' users, if a feature reads histories.
        read: (positives,) int64, for each positive the token whose state represents the user before it: an index into
            the flattened `windows`, or -1 if the user has no visible event before it.
        events: (positives,) int64 index of each positive among all events.
        owners: (positives,) int64, ascending from 0 without gaps: positives with the same number belong to one user and
            have the same `read`, so one user vector predicts them all. None if each positive has its own.
    """

    rows: Tensor
    windows: PackedSequences | None = None
    read: Tensor | None = None
    events: Tensor | None = None
    owners: Tensor | None = None

    def with_windows(self, windows: PackedSequences) -> Batch:
        """Return the same positives with other tokens."""
        return self._replace(windows=windows)

    def one_of_each(self) -> Batch:
        """Return the first positive of each owner, with the same tokens; the batch itself if it has no owners."""
        if self.owners is None or self.read is None or self.events is None:
            return self
        begins = torch.ones_like(self.owners, dtype=torch.bool)
        begins[1:] = self.owners[1:] != self.owners[:-1]
        return Batch(self.rows[begins], self.windows, self.read[begins], self.events[begins])


class SequencePacker:
    """Packs all training events, end to end, into rows of `length` tokens.

    Each event occurs once in an epoch, except the few that occur again to fill the last row. Each epoch shuffles the
    users and cuts the rows at other places.

    By default (next-item prediction) the token of an event holds the event before it, so the state at that token has
    seen only what came before the target, back to the start of the row. With `mask_share` (masked prediction,
    BERT4Rec) a token holds its own event; this share of the tokens is hidden, and the hidden events are the targets.
    """

    def __init__(
        self,
        events: Events,
        samples: Tensor,
        length: int,
        batch_size: int,
        ordered: bool,
        mask_share: float | None = None,
        scratch: Scratch | None = None,
    ):
        """Prepare the tokens of all events.

        Args:
            events: The events of all users.
            samples: (events,) int64, the row of the training sample that each event is; -1 for an event that is not a
                target.
            length: Tokens in a row.
            batch_size: Tokens in a step, rounded down to whole rows.
            ordered: Whether a target's user state includes events of the same time that precede it in the file. If
                not, it includes only events of earlier times.
            mask_share: Fraction of tokens to hide; None for next-item prediction.
            scratch: Where arrays of all events are kept; None if they fit into memory.
        """
        items = events["items"]
        self.samples, self.mask_share, self.offsets, self.scratch = samples, mask_share, items.offsets, scratch
        self.events = len(items.values)
        self.length = min(length, self.events)
        self.rows = math.ceil(self.events / self.length)
        self.rows_a_step = max(1, batch_size // self.length)
        self.count = math.ceil(self.rows / self.rows_a_step)
        self.starts = torch.zeros(self.events, dtype=torch.bool, device=samples.device)
        self.starts[items.offsets[:-1][items.lengths > 0]] = True
        self.tokens = [events[name].values for name in ("items", "gaps", "kinds")]
        if mask_share is None:
            # Shift by one: the token of an event holds the event before it, or the start token if it is the user's
            # first.
            blank = (-1, 0, 0)
            self.tokens = [
                kept(values.roll(1).masked_fill_(self.starts, none), scratch)
                for values, none in zip(self.tokens, blank, strict=True)
            ]
        before = torch.zeros(self.events, dtype=torch.int64, device=samples.device)
        if not ordered and mask_share is None:
            torch.arange(self.events, out=before)
            before -= items.offsets[:-1].repeat_interleave(items.lengths, output_size=self.events)
            before -= events["moments"].values
        self.before = kept(before, scratch)
        """(events,) the number of preceding events of the same time, which the target must not see."""

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch, the rows in random order."""
        order = self._order(generator)
        rows = torch.randperm(self.rows, generator=generator, device=order.device)
        for part in rows.split(self.rows_a_step):
            yield self._batch(order[part], generator)

    def _order(self, generator: torch.Generator) -> Tensor:
        """Return (rows, length) int64, the event of each token.

        The users are shuffled and joined end to end in a ring. The first row starts at a random place of the ring, and
        the last row wraps around to the events of the first.
        """
        device = self.samples.device
        users = torch.randperm(len(self.offsets) - 1, generator=generator, device=device)
        lengths = (self.offsets[1:] - self.offsets[:-1])[users]
        shift = self.offsets[users] - (lengths.cumsum(0) - lengths)
        ring = shift.repeat_interleave(lengths, output_size=self.events)
        ring += torch.arange(self.events, device=device)
        cut = int(torch.randint(self.events, (1,), generator=generator, device=device))
        ring = kept(torch.cat([ring[cut:], ring[:cut]]), self.scratch)
        again = self.rows * self.length - self.events
        return kept(torch.cat([ring, ring[:again]]).view(self.rows, self.length), self.scratch)

    def _batch(self, events: Tensor, generator: torch.Generator) -> Batch:
        """Gather the tokens and targets of some rows.

        Args:
            events: (rows, length) int64, the event of each token.
        """
        column = torch.arange(self.length, device=events.device).expand_as(events)
        # A run begins at a user's first event, at the start of a row, and where the ring closes within a row.
        begins = self.starts[events]
        begins[:, 1:] |= events[:, 1:] != events[:, :-1] + 1
        begins[:, 0] = True
        first = torch.where(begins, column, 0).cummax(1).values
        items, gaps, kinds = (values[events] for values in self.tokens)
        learned = self.samples[events] >= 0
        if self.mask_share is None:
            # Events of the target's own time are skipped: its state is read further left, at the token of the first
            # of them.
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
        windows = PackedSequences(items, gaps, kinds, first)
        return Batch(self.samples[events][learned], windows, read[learned], events[learned])


class SetPacker:
    """Splits the events of each user into visible ones and targets, at random and again in each epoch.

    The targets of a user are predicted together, from the visible events. All events of an item that a user had
    several times fall on the same side, so that no target is visible.
    """

    def __init__(
        self, events: Events, samples: Tensor, batch_size: int, hidden_share: float, scratch: Scratch | None = None
    ):
        """
        Args:
            events: The events of all users; only their items are read.
            samples: (events,) int64, the row of the training sample that each event is; -1 for an event that is not a
                target.
            batch_size: Events in a step, on average: a step has the same number of users each time.
            hidden_share: Fraction of the events that are targets.
            scratch: Where arrays of all events are kept; None if they fit into memory.
        """
        items = events["items"]
        assert isinstance(items, Ragged)  # training reads no padding
        self.items, self.samples, self.hidden_share = items, samples, hidden_share
        self.users = (items.lengths > 0).nonzero()[:, 0]
        self.users_a_step = max(1, round(batch_size * len(self.users) / max(1, len(items.values))))
        self.count = math.ceil(len(self.users) / self.users_a_step)
        self.pairs = kept(_pair_numbers(items), scratch)
        """(events,) the number of the event's user and item."""
        self.places = Ragged(kept(torch.arange(len(items.values), device=samples.device), scratch), items.offsets)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch, the users in random order."""
        device = self.samples.device
        order = self.users[torch.randperm(len(self.users), generator=generator, device=device)]
        drawn = torch.rand(len(self.pairs), generator=generator, device=device)
        hidden = (drawn < self.hidden_share)[self.pairs]
        for users in order.split(self.users_a_step):
            yield self._batch(users, hidden)

    def _batch(self, users: Tensor, hidden: Tensor) -> Batch:
        """Gather the visible items and the targets of some users.

        Args:
            users: (batch,) rows of users.
            hidden: (events,) bool, the events that are targets in this epoch.
        """
        events, offsets = self.places.select(users)
        place = Ragged(events, offsets).row_of_value()
        target = hidden[events] & (self.samples[events] >= 0)
        shown = events[~hidden[events]]
        begin = torch.bincount(place[~hidden[events]], minlength=len(users))
        lengths, begin = begin, begin.cumsum(0) - begin
        first = begin.repeat_interleave(lengths, output_size=len(shown)).unsqueeze(0)
        tokens = self.items.values[shown].unsqueeze(0)
        windows = PackedSequences(
            tokens, torch.zeros_like(tokens, dtype=torch.float32), torch.zeros_like(tokens), first
        )
        read = torch.where(lengths > 0, begin, -1)[place[target]]
        owners = torch.unique_consecutive(place[target], return_inverse=True)[1]
        return Batch(self.samples[events[target]], windows, read, events[target], owners)


def _pair_numbers(items: Ragged | Padded) -> Tensor:
    """Return (events,) int64, the number of the event's user and item among the distinct pairs, by user and then item.

    It is computed for some users at once: a sort of all pairs takes ten times as much memory as its result.
    """
    width = int(items.values.max()) + 1 if len(items.values) else 1
    numbers, distinct = torch.empty_like(items.values), 0
    ends, rows, low = items.offsets.cpu(), items.rows, 0
    while low < rows:
        high = max(low + 1, int(torch.searchsorted(ends, ends[low] + BLOCK, right=True)) - 1)
        block = slice(int(ends[low]), int(ends[high]))
        users = torch.arange(high - low, device=numbers.device).repeat_interleave(items.lengths[low:high])
        found, place = torch.unique(users * width + items.values[block], return_inverse=True)
        numbers[block] = place + distinct
        low, distinct = high, distinct + len(found)
    return numbers


def common_columns(windows: PackedSequences) -> int:
    """Return the number of first columns whose tokens are the same in all rows."""
    same = torch.stack([(part == part[:1]).all(0) for part in windows]).all(0)  # (length,)
    return int(same.long().cumprod(0).sum())


def last_windows(events: Events, length: int, masked: bool) -> tuple[PackedSequences, Tensor]:
    """Gather each user's last events, to predict the next one.

    As in training, a token without an item precedes a user's first event (if it fits), or, if `masked`, follows the
    last one.

    Args:
        events: The events of the users.
        length: Tokens in a row, at most.
        masked: Whether the model predicts masked items.

    Returns:
        The tokens, one row for each user, padded on the right; and (rows,) int64, the column whose state represents
        the user now.
    """
    items = events["items"]
    known = items.lengths
    tokens = (known + 1).clamp(max=length)
    if isinstance(items, Padded):  # at most `length` events, so this is enough; padding tokens have no effect
        longest = items.mask.shape[1] + 1
    else:
        longest = int(tokens.max()) if len(tokens) else 1
    column = torch.arange(longest, device=known.device).expand(known.shape[0], -1)
    place = column + (known - tokens + (1 if masked else 0)).unsqueeze(1)
    real = column < tokens.unsqueeze(1)
    there = real & (place >= 0) & (place < known.unsqueeze(1))
    cells = torch.where(there, items.offsets[:-1].unsqueeze(1) + place, 0)

    def gather(name: str, blank: float) -> Tensor:
        values = events[name].values
        if not values.shape[0]:
            return torch.full(cells.shape, blank, dtype=values.dtype, device=values.device)
        return torch.where(there, values[cells], blank)

    first = torch.where(real, 0, column)  # each padding token is a run of its own, so no real token attends to it
    return PackedSequences(gather("items", -1), gather("gaps", 0), gather("kinds", 0), first), tokens - 1
