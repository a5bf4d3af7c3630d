"""A user's past interactions as a set of items, without order."""

from __future__ import annotations

import pyarrow as pa
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import HistoryEncoder, Params
from anyrec.core.params import tunable
from anyrec.core.precision import at_least_float32
from anyrec.core.ragged import Padded, Prepared, Ragged, tensors
from anyrec.core.windows import Batch, Events
from anyrec.data.preparation.events import items_of_users
from anyrec.encoders.history import History


class ItemSet(HistoryEncoder):
    """The mean of the item tower's vectors over a user's items, plus a learned vector.

    In training a random fraction of each user's items is hidden and predicted from the mean of the others. As with
    `history`, new items are represented by their content, and a new user by the items that a request brings.

    References:
        Mao et al., SimpleX: A Simple and Strong Baseline for Collaborative Filtering, 2021, for the mean of the items'
        vectors as the user's vector. Unlike there, it does not include the item that is predicted, and the loss is that
        of the config.
    """

    type = "set"
    group = "history"
    preparation = "set"

    class Params(Params):
        hidden_share: float = Field(
            0.5,
            ge=0.01,
            le=0.99,
            description="Fraction of a user's items that are hidden in training and predicted.",
            json_schema_extra=tunable(0.1, 0.9),
        )

    def __init__(self, params: BaseModel | None = None, output_dim: int = 64):
        super().__init__(params, output_dim)
        self.window, self.ordered, self.unordered = None, False, True
        self.mask_share = self.params.hidden_share
        self.uses_own_threads = True  # one look-up: nearly all of a step is the loss

    @classmethod
    def example(cls) -> pa.Array:
        """Return a column for the conformance kit."""
        return History.example()

    def prepare(self, column: pa.Array) -> Prepared:
        """Convert the items of each user to tensors.

        Args:
            column: (users,) lists of `anyrec.data.histories.EVENT`.

        Returns:
            The items, as in `anyrec.core.windows.Events`. A user without an event is absent.
        """
        return tensors(items_of_users(column))

    def build(self) -> None:
        """Create the learned vector, and a map if the item tower's vectors have another dimension."""
        same = self.item_dim == self.output_dim
        self.resize = nn.Identity() if same else nn.Linear(self.item_dim, self.output_dim, bias=False)
        self.shift = nn.Parameter(torch.zeros(self.output_dim))

    def before(self, batch: Batch, values: Events, items: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the users' vectors from the visible items; arguments and result as of the base class."""
        windows, read = batch.windows, batch.read
        assert windows is not None and read is not None
        tokens, first = windows.items.flatten(), windows.first.flatten()
        if not len(tokens):
            return items.new_zeros(len(read), self.output_dim) + self.shift, read >= 0
        begins = first == torch.arange(len(tokens), device=first.device)
        vectors = self._mean(Ragged(tokens, functional.pad(begins.nonzero()[:, 0], (0, 1), value=len(tokens))), items)
        run = begins.cumsum(0) - 1
        return vectors.index_select(0, run[read.clamp(min=0)]), read >= 0

    def forward(self, values: Events, items: Tensor | None = None) -> Tensor:
        """Compute the users' vectors from all their items.

        Args:
            values: The items of a batch of users.
            items: (items, item_dim) vectors of the items that the events refer to.

        Returns:
            (batch, output_dim).
        """
        assert items is not None
        return self._mean(values["items"], items)

    def _mean(self, rows: Ragged | Padded, items: Tensor) -> Tensor:
        """Return (rows, output_dim): the mean of each row's items, mapped and shifted; the shift for an empty row."""
        vectors = at_least_float32(self.resize(items))
        if not rows.values.shape[0]:
            return vectors.new_zeros(rows.rows, self.output_dim) + self.shift
        return rows.bag(vectors) + self.shift
