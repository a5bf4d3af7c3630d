"""Names of types that many modules share."""

from __future__ import annotations

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object as Python has it. Values that code looks into are checked where they are read."""
Json: TypeAlias = Any
"""Any JSON value."""
ComponentClass: TypeAlias = type[Any]
"""The class of a component, whose contract depends on its kind."""
ComponentParams: TypeAlias = Any
"""The options of a component: an instance of the `Params` that its own class declares."""
SparseMatrix: TypeAlias = Any
"""A scipy.sparse.csr_matrix; scipy has no type stubs."""
AutogradContext: TypeAlias = Any
"""What `forward` of a `torch.autograd.Function` keeps for `backward`, as attributes that torch does not declare."""
Dispatched: TypeAlias = Any
"""An operation that torch dispatches, its arguments or its result."""
