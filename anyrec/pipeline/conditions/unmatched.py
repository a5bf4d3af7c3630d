"""Constants of conditions that no record has, which are likely to be misspelt."""

from __future__ import annotations

from anyrec.core.errors import did_you_mean
from anyrec.core.values import show
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.features import split_name, values_of
from anyrec.pipeline.conditions.syntax import Test

NAMING = ("eq", "ne", "in", "not_in", "contains", "overlaps")
"""Operators whose constants are values that records can have."""


def unmatched(test: Test, model: ModelData) -> list[str]:
    """Return a sentence for each text that a test compares with a feature, and that no record has."""
    if test.operator not in NAMING or test.feature.startswith("context."):
        return []
    side, column = split_name(test.feature)
    table = model.dataset.users if side == "user" else model.dataset.items
    values = values_of(table, column, len(table))
    if values.names is None or column.startswith("text."):
        return []
    known = values.names.to_pylist()
    wanted = [str(value) for operand in test.operands for value in operand.constants]
    return [
        f"no {side} has {show(value)} in '{test.feature}'. {did_you_mean(value, known)}".rstrip()
        for value in dict.fromkeys(wanted)
        if value not in set(known)
    ]
