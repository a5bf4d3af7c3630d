"""Conditions in JSON over features of items, users and the moment: checks against the data, and evaluation.

    {"item.continuous.price": {"lt": 20}, "item.categorical.tags": {"overlaps": "user.categorical.interests"}}

docs/rules.md describes the language. A comparison with a missing value is false, whatever the operator; only `is_null`
tests for missing values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field
from scipy import sparse

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.types import Json, JsonObject
from anyrec.model.model_data import ModelData
from anyrec.pipeline.conditions.constants import Wrong, constant_values, kind_of
from anyrec.pipeline.conditions.features import (
    PLURAL,
    Features,
    Kind,
    Type,
    Values,
    known_types,
    split_name,
    wrong_value,
)
from anyrec.pipeline.conditions.syntax import ORDER, SETS, Group, Operand, Test, read_condition, tests_of
from anyrec.pipeline.conditions.unmatched import unmatched
from anyrec.pipeline.contracts import Request


class Condition:
    """A condition that can be evaluated for requests.

    Args:
        document: The condition in JSON.

    Attributes:
        names_user: Whether it names a feature of the user, so that its result differs between users.
        lasting: Whether its result depends on the catalogue only; it is then computed once.

    Raises:
        ConfigError: With every fault of its form, each at a JSON pointer from the document's root.
    """

    def __init__(self, document: JsonObject):
        faults: list[Fault] = []
        self.root = read_condition(document, "", 0, faults)
        if faults:
            raise ConfigError(faults)
        self.tests = tests_of(self.root)
        names = [
            name for test in self.tests for name in (test.feature, *(one.feature for one in test.operands)) if name
        ]
        self.names_user = any(name.startswith("user.") for name in names)
        constants = [value for test in self.tests for one in test.operands for value in one.constants]
        moving = any(str(value).strip().startswith("now") for value in constants)
        self.lasting = all(name.startswith("item.") for name in names) and not moving
        self._found: tuple[pa.Table | None, np.ndarray | None] = (None, None)
        self.features = Features()

    def check(self, model: ModelData, where: str = "/where") -> list[Fault]:
        """Return the faults against the data: unknown features, values of the wrong type.

        Args:
            model: The model.
            where: JSON pointer of the condition within the options.
        """
        types = known_types(model)
        faults = [fault for test in self.tests for fault in _check_test(test, types)]
        return [Fault(where + fault.where, fault.what, fault.hint, fault.kind) for fault in faults]

    def unmatched(self, model: ModelData) -> list[str]:
        """Return a sentence for each constant that no record has in the feature that is compared with it.

        Args:
            model: The model.
        """
        return [text for test in self.tests for text in unmatched(test, model)]

    def holds(self, request: Request, items: np.ndarray | None = None) -> np.ndarray:
        """Evaluate the condition.

        Args:
            request: The request.
            items: (items,) item rows to evaluate, in this order; None for all.

        Returns:
            (items,) bool; (users, items) bool if the condition names a feature of the user.

        Raises:
            InputError: A value of the request has the wrong type.
        """
        if self.lasting:  # the result changes only with the catalogue
            table, found = self._found
            if table is not request.items or found is None:
                found = self._holds(self.root, request, None)[0]
                found.flags.writeable = False
                self._found = request.items, found
            return found if items is None else found[items]
        rows = len(request.items) if items is None else len(items)
        found = self._holds(self.root, request, items)
        if self.names_user:
            return np.broadcast_to(found, (len(request.rows), rows))
        return np.broadcast_to(found, (1, rows))[0]

    def _holds(self, node: Test | Group, request: Request, items: np.ndarray | None) -> np.ndarray:
        """Return a bool array that broadcasts to (users, items)."""
        if isinstance(node, Test):
            return _Comparison(node, request, items, self.features).result()
        parts = [self._holds(part, request, items) for part in node.parts]
        if node.how == "not":
            return ~parts[0]
        found = parts[0]
        for part in parts[1:]:
            found = found & part if node.how == "all" else found | part
        return found


def fitting(document: JsonObject, model: ModelData, where: str) -> Condition:
    """Return a condition that a request brings.

    Args:
        document: The condition.
        model: The model.
        where: The place of the condition, before the pointer of each fault within it.

    Raises:
        ConfigError: With every fault of its form, or every fault against the data.
    """
    try:
        condition = Condition(document)
        if faults := condition.check(model, ""):
            raise ConfigError(faults)
    except ConfigError as error:
        raise ConfigError([replace(one, where=where + one.where) for one in error.faults]) from None
    return condition


def well_formed(document: JsonObject) -> JsonObject:
    """Return the document itself, as a validator of options. Raises ValueError with every fault of its form."""
    try:
        Condition(document)
    except ConfigError as error:
        texts = [
            f"{fault.where or '/'}: {fault.what.rstrip('.')}" + (f" ({fault.hint.rstrip('.')})" if fault.hint else "")
            for fault in error.faults
        ]
        raise ValueError("; ".join(texts)) from None
    return document


Where = Annotated[JsonObject, AfterValidator(well_formed)]
"""Type of an option that is a condition."""


def where_field(description: str, default: Any = ...) -> Any:  # the types of pydantic's Field
    """Return the field of an option that is a condition."""
    return Field(default, description=f"{description} A condition (docs/rules.md).")


class _Comparison:
    """Evaluates one test for one request.

    Each of its two sides has one row for each item, for each user, or a single row (constants and values of the
    moment).
    """

    def __init__(self, test: Test, request: Request, items: np.ndarray | None, features: Features):
        self.test, self.request, self.items, self.features = test, request, items, features
        self.kind: Kind | None = None

    def result(self) -> np.ndarray:
        """Return a bool array that broadcasts to (users, items)."""
        test = self.test
        self.kind = self._kind()
        left = self._values(Operand(test.where, test.feature))
        if test.operator == "is_null":
            missing = test.operands[0].constants[0]
            return self._place((left.counts == 0) if missing else (left.counts > 0), test.feature)
        operator, operands = test.operator, test.operands
        if operator == "between":
            return self._compare("ge", left, operands[0]) & self._compare("le", left, operands[1])
        if operator in SETS:
            return self._sets(operator, left, operands[0])
        return self._compare(operator, left, operands[0])

    def _kind(self) -> Kind | None:
        """Return the kind of the comparison: that of the first column, else of the moment's values."""
        test = self.test
        named = [test.feature, *(one.feature for one in test.operands if one.feature)]
        for name in named:
            if not name.startswith("context.") and (values := self.features.of(self.request, name)).kind != "other":
                return values.kind
        values = [value for name in named for value in self._context_values(name)]
        kind = kind_of(values) if values else None
        return "time" if kind == "text" and test.operator in (*ORDER, "between") else kind

    def _context_values(self, name: str) -> tuple[Json, ...]:
        """Return the values of the moment with a name; none if it is the name of a feature."""
        value = self.request.context.get(split_name(name)[1]) if name.startswith("context.") else None
        return tuple(value) if isinstance(value, (list, tuple)) else () if value is None else (value,)

    def _column(self, name: str) -> Values | None:
        """Return the values of a feature of items or users; None for a value of the moment."""
        if name.startswith("context."):
            return None
        values = self.features.of(self.request, name)
        return values.take(self.items) if self.items is not None and name.startswith("item.") else values

    def _values(self, operand: Operand) -> Values:
        """Return an operand as values; constants and values of the moment are read as the kind of the comparison."""
        if operand.feature and (column := self._column(operand.feature)) is not None:
            if self.test.operator != "is_null" and column.kind not in ("other", self.kind):
                other = PLURAL[self.kind or "other"]
                what = f"'{operand.feature}' holds {PLURAL[column.kind]} here, and is compared with {other}."
                raise wrong_value(f"/{operand.feature}", what)
            return column
        constants = self._context_values(operand.feature) if operand.feature else operand.constants
        try:
            return constant_values(constants, self.kind, self.request.now)
        except Wrong as wrong:
            raise wrong_value(f"/{operand.feature or operand.where}", f"{wrong}.") from None

    def _compare(self, operator: str, left: Values, operand: Operand) -> np.ndarray:
        """Compare single values by eq, ne or an operator of `ORDER`; False for missing values (NaN)."""
        right = self._values(operand)
        right = _same_names(left, right)
        a, b = self._place(self._one(left), self.test.feature), self._place(self._one(right), operand.feature)
        if operator == "eq":
            return np.asarray(a == b)
        if operator == "ne":
            return (a != b) & ~np.isnan(a) & ~np.isnan(b)
        return ORDER[operator](a, b)

    def _one(self, values: Values) -> np.ndarray:
        """Return (rows,) float64, the single value of each row. Raises InputError if a row has several."""
        if values.many and len(values.owners) and values.counts.max() > 1:
            raise wrong_value(
                f"/{self.test.feature}", f"several values were given where '{self.test.operator}' compares one."
            )
        return values.single()

    def _sets(self, operator: str, left: Values, operand: Operand) -> np.ndarray:
        """Compare sets of values by an operator of `SETS`."""
        column = split_name(self.test.feature)[1]
        if column.startswith("text.") and operator in ("contains", "overlaps"):
            return self._place(_within_texts(operator, left, operand.constants), self.test.feature)
        right = self._values(operand)
        common = self._common(left, _same_names(left, right), operand.feature)
        if operator == "contains":
            wanted = self._place(right.counts, operand.feature)
            return (common == wanted) & (wanted > 0)
        if operator == "not_in":
            return (
                (common == 0)
                & self._place(left.counts > 0, self.test.feature)
                & self._place(right.counts > 0, operand.feature)
            )
        return common > 0

    def _common(self, left: Values, right: Values, right_name: str | None) -> np.ndarray:
        """Count the values that each pair of rows of the two sides shares; broadcasts to (users, items)."""
        sides = _side(self.test.feature), _side(right_name)
        if sides[1] is None or sides[0] is None:
            wide, narrow, name = (left, right, self.test.feature) if sides[1] is None else (right, left, right_name)
            shared = _among(wide, narrow)
            return self._place(np.bincount(wide.owners[shared], minlength=wide.rows), name)
        mine, others, width = _codes(left, right)
        if sides[0] == sides[1]:
            shared = np.isin(left.owners * width + mine, right.owners * width + others)
            return self._place(np.bincount(left.owners[shared], minlength=left.rows), self.test.feature)
        a, b = _matrix(left, mine, width), _matrix(right, others, width)
        users, items = (a, b) if sides[0] == "user" else (b, a)
        return (users @ items.T).toarray()

    def _place(self, array: np.ndarray, name: str | None) -> np.ndarray:
        """Reshape (rows,) to (users, 1), (1, items) or (1, 1)."""
        return array[:, None] if _side(name) == "user" else array[None, :]


def _side(name: str | None) -> str | None:
    """Return `item` or `user`; None for constants and values of the moment."""
    side = name.split(".", 1)[0] if name else None
    return None if side == "context" else side


def _matrix(values: Values, codes: np.ndarray, width: int) -> sparse.csr_matrix:
    """Return (rows, width), 1 for each value of a row."""
    offsets = np.searchsorted(values.owners, np.arange(values.rows + 1))
    return sparse.csr_matrix((np.ones(len(codes), np.int32), codes, offsets), (values.rows, width))


def _among(wide: Values, narrow: Values) -> np.ndarray:
    """Return (values,) bool: which values of `wide` are among those of `narrow`."""
    if wide.names is None or narrow.names is None:
        return np.isin(wide.data, narrow.data)
    few = np.zeros(int(max(wide.data.max(initial=0), narrow.data.max(initial=0))) + 1, bool)
    few[narrow.data] = True
    return few[wide.data]


def _codes(left: Values, right: Values) -> tuple[np.ndarray, np.ndarray, int]:
    """Encode the values of both sides as integers, equal for equal values; the third is an exclusive upper bound."""
    if left.names is not None and right.names is not None:
        return left.data, right.data, int(max(left.data.max(initial=0), right.data.max(initial=0))) + 1
    distinct, codes = np.unique(np.concatenate([left.data, right.data]), return_inverse=True)
    return codes[: len(left.data)], codes[len(left.data) :], len(distinct)


def _same_names(left: Values, right: Values) -> Values:
    """Re-encode the texts of the right side by their place in the left side's names.

    Texts that the left side does not have get places past the end of its names.
    """
    if left.names is None or right.names is None:
        return right
    place = pc.index_in(right.names, value_set=left.names)
    own = pa.array(np.arange(len(right.names)) + len(left.names), pa.int64())
    places = pc.coalesce(place.cast(pa.int64()), own).to_numpy(zero_copy_only=False)
    return Values(right.kind, right.many, right.rows, right.owners, places[right.data.astype(np.int64)], left.names)


def _within_texts(operator: str, texts: Values, parts: tuple[Json, ...]) -> np.ndarray:
    """Return (rows,) whether all parts occur in a record's text (contains), or any part (overlaps), ignoring case."""
    held = np.zeros((len(parts), texts.rows), bool)
    if texts.names is not None:
        for row, part in zip(held, parts, strict=True):
            with_it = pc.match_substring(texts.names, str(part), ignore_case=True).to_numpy(zero_copy_only=False)
            row[texts.owners[with_it[texts.data]]] = True
    return np.asarray(held.all(0) if operator == "contains" else held.any(0))


def _check_test(test: Test, types: dict[str, Type]) -> list[Fault]:
    """Return the faults of one test. types: of all features of the data."""
    sides = [
        (test.feature, test.where.rsplit("/", 1)[0]),
        *((one.feature, one.where) for one in test.operands if one.feature),
    ]
    unknown = [(name, where) for name, where in sides if name not in types and not name.startswith("context.")]
    if unknown:
        hint = 'For a plain text write {"value": "…"}.'
        suggest = {name: did_you_mean(name, [known for known in types if known[:5] == name[:5]]) for name, _ in unknown}
        return [
            Fault(
                where,
                f"the data has no feature '{name}'.",
                suggest[name] + (f" {hint}" if name != test.feature else ""),
                "unknown feature",
            )
            for name, where in unknown
        ]
    if test.operator == "is_null":
        return []
    found = [types[name] for name, _ in sides if name in types]
    if not found:
        return _check_order(test)
    what = _misfit(test, found)
    if what:
        return [Fault(test.where, f"{what}.", kind="wrong type")]
    return _check_constants(test, found[0].kind)


def _misfit(test: Test, found: list[Type]) -> str:
    """Return the fault in the types of the features that a test compares; an empty text if there is none."""
    operator, kind = test.operator, found[0].kind
    if "other" in {one.kind for one in found}:
        return f"'{test.feature}' has a type that rules cannot read; only is_null is possible"
    if len({one.kind for one in found}) > 1:
        return " cannot be compared with ".join(PLURAL[one.kind] for one in found)
    if operator not in SETS and any(one.many for one in found):
        several = f"'{test.feature}' or its operand holds several: use contains or overlaps"
        return f"'{operator}' compares single values, and {several}"
    if operator in ("in", "not_in") and found[0].many and not test.feature.startswith("context."):
        return f"'{test.feature}' holds several values: use overlaps"
    if operator in (*ORDER, "between") and kind in ("text", "flag"):
        return f"{PLURAL[kind]} have no order: '{operator}' compares numbers and times"
    if (
        test.feature.split(".")[1] == "text"
        and operator in ("contains", "overlaps")
        and any(one.feature for one in test.operands)
    ):
        return "a text is searched for constants only"
    return ""


def _check_order(test: Test) -> list[Fault]:
    """Return the faults of a test of a value of the moment, whose type only a request knows."""
    constants = [value for one in test.operands for value in one.constants]
    if test.operator not in (*ORDER, "between") or not constants:
        return []
    kind = kind_of(constants)
    if kind != "flag":
        return _check_constants(test, "number" if kind == "number" else "time")
    what = f"true and false have no order: '{test.operator}' compares numbers and times."
    return [Fault(test.where, what, kind="wrong type")]


def _check_constants(test: Test, kind: Kind) -> list[Fault]:
    """Return a fault for each constant of a test that cannot be read as a kind."""
    faults = []
    for operand in test.operands:
        if operand.feature is None:
            try:
                constant_values(operand.constants, kind, 0)
            except Wrong as wrong:
                hint = f"'{test.feature}' is compared as {PLURAL[kind]}."
                faults.append(Fault(operand.where, f"{wrong}.", hint, "wrong type"))
    return faults
