"""How the rows of a training step are divided between processes.

All processes know the whole step: its positives, their negatives and the distinct records of both. Each process encodes
a share of the records and a share of the users' histories, and computes the loss of a share of the positives. Every
share has at least one row, so that all processes run the same operations and draw the same random numbers; a share that
would be empty has a row that does not count. With one process the only share is everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from anyrec.core.contracts import Negatives
from anyrec.core.processes import Processes
from anyrec.core.row_masks import ForeignMasks, draws_itself, part_of
from anyrec.core.windows import Batch, PackedSequences
from anyrec.data.ids import Side
from anyrec.model.towers import IDENTITY, EntityTower
from anyrec.model.two_tower_network import TwoTower


class Held(NamedTuple):
    """The positives of a step whose users this process encodes.

    Attributes:
        batch: Their part of the batch.
        places: (positives,) their places in the batch of the step; None: they are all of it.
        lengths: The number of positives of each process.
        place: (positives of the step,) the place of each in the concatenation of all processes' positives.
        windows: The rows of the step's windows that are held, and how many there are; None without windows.
        users: The places of the users, one of each owner, among those of the step, and how many there are.
        encoded: Number of these users that count.
    """

    batch: Batch
    places: Tensor | None = None
    lengths: Sequence[int] = ()
    place: Tensor | None = None
    windows: tuple[slice | None, int] = (None, 0)
    users: tuple[slice | Tensor | None, int] = (None, 0)
    encoded: int = 0


class Own(NamedTuple):
    """The positives of a step whose loss this process computes.

    Attributes:
        places: (positives,) their places in the batch of the step; None: they are all of it.
        counts: Whether they count; if not, they fill an empty share.
        groups: Groups of the step, each of which has its own negatives.
        within: The rows of each group, if they are a share of it, and the size of a group.
        whole: The own groups, if the positives are those of whole groups.
    """

    places: Tensor | None = None
    counts: bool = True
    groups: int = 0
    within: tuple[slice | None, int] = (None, 0)
    whole: slice | None = None

    def of(self, values: Tensor) -> Tensor:
        """Return the own rows of `values: (positives of the step, ...)`."""
        return values if self.places is None else values.index_select(0, self.places)

    def part(self, mean: Tensor, count: int) -> Tensor:
        """Return the own part of a mean over the step's `count` positives, if `mean` is that over the own ones."""
        if self.places is None:
            return mean
        return mean * (len(self.places) / count if self.counts else 0.0)

    def cells(self, items: Tensor, count: int) -> Tensor | None:
        """Return which rows are read of the `count` positives and, after them, the flattened negatives; None: all.

        Args:
            items: (groups, negatives) the negatives of the step.
            count: Positives of the step.
        """
        if self.places is None:
            return None
        cells = torch.arange(items.numel(), device=items.device).view_as(items) + count
        return torch.cat([self.places, self._of_groups(cells, count).flatten()])

    def among(self, chosen: Tensor) -> Own:
        """Return the own positives among some of the step's rows. chosen: (rows of the step,) bool."""
        if self.places is None:
            return self
        place = chosen.cumsum(0) - 1
        return Own(place[self.places[chosen[self.places]]], self.counts)

    def negatives(self, drawn: Negatives, count: int) -> Negatives:
        """Return the negatives of the own positives, if `drawn` are those of `count` positives."""
        if self.places is None:
            return drawn
        valid = drawn.valid if drawn.valid is None else self.of(drawn.valid)
        log_q = drawn.log_q
        if log_q is not None and len(log_q) > 1:
            log_q = self.of(log_q) if len(log_q) == count else self._of_groups(log_q, count)
        return Negatives(self._of_groups(drawn.items, count), valid, log_q)

    def _of_groups(self, values: Tensor, count: int) -> Tensor:
        """Return the values of the own groups. values: (groups, ...) of a step with `count` positives."""
        if self.whole is not None:
            return values[self.whole]
        return self.of(values) if self.groups == count > 1 else values


class Division:
    """The share of this process in each step.

    Args:
        processes: The processes.
        model: The model that is trained.

    Attributes:
        fills: Whether a share of the present step is a row that does not count, whose gradients are zero.
    """

    def __init__(self, processes: Processes, model: TwoTower):
        self.processes, self.model = processes, model
        self.alone = processes.alone
        self._foreign = not self.alone and draws_itself(model)
        self.fills = False
        self._penalties: dict[Side, tuple[Tensor | float, Tensor]] = {}

    def masks(self) -> AbstractContextManager[object]:
        """Return the context of the forward pass: random masks of foreign code are cut from those of all rows."""
        return ForeignMasks() if self._foreign else nullcontext()

    def hold(self, batch: Batch) -> Held:
        """Return the positives whose users this process encodes: a share of the windows, users or rows."""
        self.fills = False
        if self.alone:
            return Held(batch)
        rank, size, count = self.processes.rank, self.processes.size, len(batch.rows)
        if batch.windows is None:
            share, lengths = self._share(count), self.processes.shares(count)
            places = torch.arange(count, device=batch.rows.device)
            own = places[share]
            return Held(Batch(batch.rows[share]), own, lengths, places, users=(own, count), encoded=lengths[rank])
        if batch.owners is not None:  # one row of tokens, user by user
            unit, units = batch.owners, int(batch.owners[-1]) + 1
        else:
            assert batch.read is not None
            units, length = batch.windows.items.shape
            unit = batch.read.clamp(min=0) // max(1, length)
        ends = torch.tensor([units * (one + 1) // size for one in range(size)], device=unit.device)
        holder = torch.bucketize(unit, ends, right=True)
        order = torch.argsort(holder, stable=True)
        lengths = torch.bincount(holder, minlength=size).tolist()
        start = sum(lengths[:rank])
        fills, index = not lengths[rank], order[start : start + lengths[rank]] if lengths[rank] else order[:1]
        place = torch.empty_like(order)
        place[order] = torch.arange(count, device=order.device)
        held = self._share(units)
        self.fills |= fills
        part = _part(batch, index, held, fills)
        if batch.owners is not None:
            own = self.processes.shares(units)[rank]
            return Held(part, index, lengths, place, users=(held, units), encoded=own)
        return Held(part, index, lengths, place, (held, units), (index, count), lengths[rank])

    def own(self, held: Held, count: int, groups: int | None) -> Own:
        """Return the positives whose loss this process computes.

        They are those that it holds. If some positives share their negatives, they are whole groups, or a share of each
        group if the processes cannot have equally many, or if the interaction may draw masks group by group.

        Args:
            held: What it holds.
            count: Positives of the step.
            groups: Groups of positives that share negatives; None for the whole catalogue.
        """
        if self.alone:
            return Own(groups=groups or 0)
        if groups is None or groups in (1, count):
            return Own(held.places, held.lengths[self.processes.rank] > 0, groups or 0)
        if groups % self.processes.size == 0 and self.model.interaction.factorised:
            share = self.processes.share(count)
            own = (
                held.places
                if held.batch.windows is None
                else torch.arange(share.start, share.stop, device=held.batch.rows.device)
            )
            return Own(own, True, groups, whole=self.processes.share(groups))
        rows = torch.arange(count, device=held.batch.rows.device).view(groups, -1)
        share, block = self._share(rows.shape[1]), rows.shape[1]
        counts = self.processes.shares(block)[self.processes.rank] > 0
        return Own(rows[:, share].flatten(), counts, groups, (share, block))

    def joined(self, side: Side, rows: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode records, each process a share. Ids are looked up by all: their vectors need not be exchanged.

        Args:
            side: The side of the records.
            rows: (records,) distinct rows that all processes know.
            encode: Encodes some of them.

        Returns:
            (records, ...).
        """
        if self.alone:
            return encode(rows)
        count = len(rows)
        if only_ids(self.model.tower(side)):
            found = encode(rows)
            self.note_penalty(side, count)
            return found
        share, lengths = self._share(count), self.processes.shares(count)
        with part_of(share, count):
            part = encode(rows[share])
        own = lengths[self.processes.rank]
        self.note_penalty(side, own)
        return self.processes.join(part[:own], lengths)

    def users(self, held: Held, rows: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode the users that this process holds.

        Args:
            held: What it holds.
            rows: (users,) rows of all users of the step, one of each owner; repeats are allowed.
            encode: Encodes some of them.
        """
        own, total = held.users
        if self.alone or own is None:
            return encode(rows)
        with part_of(own, total, rows):
            found = encode(rows[own])
        self.note_penalty("user", held.encoded)
        return found

    def of_own(self, held: Held, own: Own, vectors: Tensor) -> Tensor:
        """Return the vectors of the own positives. vectors: (held positives, ...)."""
        if own.places is None or own.places is held.places:
            return vectors
        assert held.place is not None
        joined = self.processes.join(vectors[: held.lengths[self.processes.rank]], held.lengths)
        return joined.index_select(0, held.place[own.places])

    def gathered(self, held: Held, values: Tensor) -> Tensor:
        """Return the values of all positives of the step. values: (held positives, ...)."""
        if self.alone:
            return values
        assert held.place is not None
        whole = self.processes.gather(values[: held.lengths[self.processes.rank]], held.lengths)
        return whole.index_select(0, held.place)

    def penalty(self) -> Tensor | float:
        """Return the own part of the penalties of both fusions in this step: their sum is the mean over all rows."""
        towers: list[tuple[Side, EntityTower]] = [("user", self.model.user), ("item", self.model.item)]
        if self.alone:
            return towers[0][1].fusion.take_penalty() + towers[1][1].fusion.take_penalty()
        noted = [self._penalties.pop(side, (0.0, torch.zeros(()))) for side, _ in towers]
        if not any(isinstance(penalty, Tensor) for penalty, _ in noted):
            return 0.0
        rows = torch.stack([rows.to(self.model.device, torch.float64) for _, rows in noted])
        parts = rows / self.processes.sum(rows.clone()).clamp(min=1)
        return sum((penalty * part for (penalty, _), part in zip(noted, parts, strict=True)), start=0.0)

    def _share(self, count: int) -> slice:
        """Return the share of `count` rows; the first row if it is empty."""
        share = self.processes.share(count)
        if share.stop > share.start:
            return share
        self.fills = True
        return slice(0, min(1, count))

    def note_penalty(self, side: Side, rows: int) -> None:
        """Keep the penalty of the latest forward pass of a side, over `rows` rows of this process."""
        fusion = self.model.tower(side).fusion
        counted = fusion.penalty_rows
        penalty, fusion.penalty_rows = fusion.take_penalty(), None
        if rows == 0 or counted is None:
            counted = torch.tensor(rows)
        self._penalties[side] = (penalty, counted)


def only_ids(tower: EntityTower) -> bool:
    """Return whether a tower reads nothing but ids."""
    return tower.features == [IDENTITY]


def _part(batch: Batch, index: Tensor, held: slice, fills: bool) -> Batch:
    """Return some positives of a batch, with the tokens that they need.

    Args:
        batch: The batch of the step.
        index: (positives,) their places in the batch.
        held: The rows of the windows, or with owners the owners.
        fills: Whether the positive is any one, which reads nothing.
    """
    assert batch.windows is not None and batch.read is not None and batch.events is not None
    rows, read, events = batch.rows[index], batch.read[index], batch.events[index]
    owners = None if batch.owners is None else batch.owners[index] - held.start
    if batch.owners is None:
        windows = PackedSequences(*(part[held] for part in batch.windows))
        start = held.start * batch.windows.items.shape[1]
    else:
        reads = batch.one_of_each().read
        assert reads is not None
        length = batch.windows.items.shape[1]
        start = _begin(reads, held.start, length) if held.start else 0
        items, gaps, kinds, first = (part[:, start : _begin(reads, held.stop, length)] for part in batch.windows)
        windows = PackedSequences(items, gaps, kinds, first - start)
    read = torch.where(read >= 0, read - start, -1)
    if fills:
        read, owners = torch.full_like(read, -1), None if owners is None else torch.zeros_like(owners)
    return Batch(rows, windows, read, events, owners)


def _begin(reads: Tensor, owner: int, length: int) -> int:
    """Return the first token of the users from `owner` on. reads: (owners,) first token of each; -1 without tokens."""
    later = reads[owner:]
    later = later[later >= 0]
    return int(later[0]) if len(later) else length
