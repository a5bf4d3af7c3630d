"""The syntax of conditions (docs/rules.md): JSON to groups of tests, with every fault of its form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.pipeline.conditions.constants import is_constant
from anyrec.pipeline.conditions.features import SIDES

MAX_DEPTH = 32
GROUPS = ("all", "any", "not")
ORDER: dict[str, Callable[..., np.ndarray]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
SETS = ("in", "not_in", "contains", "overlaps")
EXAMPLE = 'For example {"item.continuous.price": {"lt": 20}}.'
OPERATORS = ("eq", "ne", *ORDER, "between", *SETS, "is_null")


@dataclass(frozen=True)
class Operand:
    """One side of a comparison: a feature or constants.

    Attributes:
        where: JSON pointer from the root of the condition.
        feature: Name of the feature; None for constants.
        constants: The constants; () for a feature.
    """

    where: str
    feature: str | None = None
    constants: tuple[Json, ...] = ()


@dataclass(frozen=True)
class Test:
    """A comparison of a feature with operands.

    Attributes:
        feature: Name of the feature on the left side.
        operator: One of `OPERATORS`.
        operands: The right side: two for `between`, else one.
        where: JSON pointer from the root of the condition.
    """

    feature: str
    operator: str
    operands: tuple[Operand, ...]
    where: str


@dataclass(frozen=True)
class Group:
    """Conditions joined by `all`, `any` or `not`.

    Attributes:
        how: One of `GROUPS`.
        parts: The conditions; one for `not`.
    """

    how: str
    parts: tuple[Test | Group, ...]


def tests_of(node: Test | Group) -> list[Test]:
    """Return all tests of a condition."""
    return [node] if isinstance(node, Test) else [test for part in node.parts for test in tests_of(part)]


def read_condition(document: Json, where: str, depth: int, faults: list[Fault]) -> Group:
    """Read a JSON object, all members of which must hold.

    Args:
        document: The object.
        where: Its JSON pointer.
        depth: The number of objects around it.
        faults: The faults found are appended.
    """
    if depth > MAX_DEPTH:
        faults.append(
            Fault(where, f"conditions are nested more than {MAX_DEPTH} deep.", "Use fewer levels.", "too deep")
        )
    elif not isinstance(document, dict) or not document:
        faults.append(Fault(where, "a condition is an object with at least one member.", EXAMPLE, "bad condition"))
    else:
        return Group(
            "all", tuple(part for key, value in document.items() for part in _member(key, value, where, depth, faults))
        )
    return Group("all", ())


def _member(key: Json, value: Json, where: str, depth: int, faults: list[Fault]) -> list[Test | Group]:
    """Read one member of a condition: a group, or the tests of a feature."""
    if not isinstance(key, str):
        faults.append(Fault(where, f"a member's name is a text; found {show(key)}.", EXAMPLE, "bad condition"))
        return []
    where = f"{where}/{escape(key)}"
    if key == "not":
        return [Group("not", (read_condition(value, where, depth + 1, faults),))]
    if key in GROUPS:
        if not isinstance(value, list) or not value:
            faults.append(Fault(where, f"'{key}' holds a list of conditions.", "Give at least one.", "bad condition"))
            return []
        return [
            Group(key, tuple(read_condition(part, f"{where}/{n}", depth + 1, faults) for n, part in enumerate(value)))
        ]
    if not is_feature(key):
        known = did_you_mean(key, GROUPS) if "." not in key else did_you_mean(key.split(".")[0], SIDES)
        what = f"'{key}' is neither a feature (item.…, user.…, context.…) nor one of {', '.join(GROUPS)}."
        faults.append(Fault(where, what, known, "bad condition"))
        return []
    tests = value if isinstance(value, dict) and "value" not in value else {"eq": value}
    if not tests:
        faults.append(Fault(where, "no operator is given.", EXAMPLE, "bad condition"))
    return [test for name, operand in tests.items() if (test := _test(key, name, operand, where, faults))]


def _test(feature: str, operator: str, value: Json, where: str, faults: list[Fault]) -> Test | None:
    """Read one operator with its operand; None if it has a fault."""
    where = f"{where}/{escape(str(operator))}"
    if operator not in OPERATORS:
        faults.append(
            Fault(
                where, f"there is no operator '{operator}'.", did_you_mean(str(operator), OPERATORS), "unknown operator"
            )
        )
        return None
    expected = ""
    if operator == "is_null" and not isinstance(value, bool):
        expected = "true or false"
    elif operator == "between" and not (isinstance(value, list) and len(value) == 2):
        expected = "a list of two values, lowest and highest"
    elif operator in ("in", "not_in") and not isinstance(value, list) and not is_feature(value):
        expected = "a list of values or a feature"
    elif operator not in ("between", *SETS) and isinstance(value, list):
        expected = "one value"
    if expected:
        faults.append(Fault(where, f"'{operator}' takes {expected}; found {show(value)}.", "", "bad condition"))
        return None
    parts = value if operator == "between" and isinstance(value, list) else [value]
    operands = [_operand(part, where, operator in SETS, faults) for part in parts]
    return Test(feature, operator, tuple(operands), where)


def _operand(value: Json, where: str, several: bool, faults: list[Fault]) -> Operand:
    """Read an operand. several: whether a list is several constants."""
    if is_feature(value):
        return Operand(where, value)
    if isinstance(value, dict) and set(value) == {"value"}:
        value = value["value"]
    constants = value if several and isinstance(value, list) else [value]
    if not constants or not all(map(is_constant, constants)):
        hint = "Test for missing values with is_null." if any(constant is None for constant in constants) else ""
        what = f"expected a text, a finite number, true or false; found {show(value)}."
        faults.append(Fault(where, what, hint, "bad condition"))
    return Operand(where, None, tuple(constants))


def is_feature(value: Json) -> bool:
    """Return whether a value names a feature; a text that only looks like one is written `{"value": "user.x"}`."""
    return isinstance(value, str) and value.split(".", 1)[0] in SIDES and "." in value


def escape(key: str) -> str:
    """Return a key as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
