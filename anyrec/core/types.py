"""Names of types that many modules share."""

from __future__ import annotations

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object as Python has it. Values that code looks into are checked where they are read."""
Json: TypeAlias = Any
"""Any JSON value."""
