"""Memory for the gradients of large tables, which is kept between the steps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from anyrec.core.runtime import LARGEST

SMALLEST = LARGEST
"""Bytes of a gradient up to which glibc keeps its memory itself."""


class KeptGradients:
    """The gradients of tables of which a step reads few rows, and whose optimizer moves all rows.

    A gradient of 256 MB in new memory took 0.12 s of processor time in each step, four times as long as AdamW: glibc
    returns such large blocks to the system, which must clear them again. Therefore autograd makes a sparse gradient,
    which is copied into memory of zeros for the optimizer. Only the rows that it has are cleared afterwards.

    Args:
        model: The model. Its large tables have sparse gradients until `remove` is called.
        dense: Parameters whose optimizer reads dense gradients.

    Attributes:
        parameters: The weights of the large tables.
    """

    def __init__(self, model: nn.Module, dense: Sequence[nn.Parameter]):
        wanted = {id(one) for one in dense if one.device.type == "cpu" and one.nbytes > SMALLEST}
        self.tables = [
            table for table in model.modules() if isinstance(table, nn.Embedding) and id(table.weight) in wanted
        ]
        for table in self.tables:
            table.sparse = True
        self.parameters: list[nn.Parameter] = [table.weight for table in self.tables]
        self.memory = [one.detach().new_zeros(one.shape) for one in self.parameters]
        self.rows: list[Tensor | None] = [None] * len(self.memory)

    def fill(self) -> None:
        """Replace the sparse gradients by dense ones."""
        for place, (one, memory) in enumerate(zip(self.parameters, self.memory, strict=True)):
            if one.grad is not None and one.grad.is_sparse:
                gradient = one.grad.coalesce()
                self.rows[place] = gradient.indices()[0]
                one.grad = memory.index_copy_(0, gradient.indices()[0], gradient.values())

    def clear(self) -> None:
        """Remove the gradients, and clear the memory for the next step."""
        for place, (one, memory) in enumerate(zip(self.parameters, self.memory, strict=True)):
            rows, self.rows[place], one.grad = self.rows[place], None, None
            if rows is not None:
                memory.index_fill_(0, rows, 0.0)

    def remove(self) -> None:
        """Give the tables dense gradients again."""
        for table in self.tables:
            table.sparse = False
