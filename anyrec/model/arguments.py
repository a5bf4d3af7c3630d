"""Checks of the arguments of the Python interface. Each error says what was found and what to give instead."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import SupportsIndex, SupportsInt

from anyrec.core.errors import DataError, Fault, InputError, did_you_mean
from anyrec.core.types import JsonObject
from anyrec.core.values import is_unicode, show
from anyrec.data.dataset import Dataset
from anyrec.model.records import Records

MOMENTS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""The first moment of year 1 and the last of year 9999, in microseconds since 1970: the bounds of a timestamp."""


def checked_k(k: object, most: int = 2**62) -> int:
    """Check a number of items to list.

    Args:
        k: The argument.
        most: Returned if `k` is larger.

    Raises:
        InputError: If it is not a whole number of at least 1.
    """
    number = k if type(k) is int else 0
    if not number and isinstance(k, (SupportsInt, SupportsIndex)) and not isinstance(k, bool):
        try:
            number = int(k) if int(k) == k else 0
        except (TypeError, ValueError, OverflowError):  # such as infinity
            number = 0
    if number < 1:
        what = f"expected a whole number of at least 1; found {show(k)}."
        raise InputError(Fault("k", what, "Give 10, say.", "option"))
    return min(number, most)


def checked_dataset(dataset: object) -> Dataset:
    """Return the argument if it is a Dataset.

    Raises:
        DataError: If it is not.
    """
    if isinstance(dataset, Dataset):
        return dataset
    hint = (
        "Read a file or a folder by Dataset.read(path), and tables by Dataset.from_tables(users, items, interactions)."
    )
    raise DataError(Fault("dataset", f"expected a Dataset; found {show(dataset)}.", hint, "option"))


def checked_now(now: object) -> int | None:
    """Check a moment.

    Args:
        now: Microseconds since 1970, or None.

    Raises:
        InputError: If it is not a whole number of the years 1 to 9999.
    """
    if now is None:
        return None
    if isinstance(now, bool) or not isinstance(now, Integral) or not MOMENTS[0] <= int(now) <= MOMENTS[1]:
        what = f"expected microseconds since 1970, of a year from 1 to 9999; found {show(now)}."
        raise InputError(Fault("now", what, "Give time.time_ns() // 1000, say.", "option"))
    return int(now)


def checked_context(context: object) -> JsonObject:
    """Check the values that rules read from a request, such as the country.

    Args:
        context: A dict of texts, finite numbers, booleans, and lists of these, by name. None counts as empty.

    Raises:
        InputError: With a fault for each invalid name or value.
    """
    if context is None:
        return {}
    if not isinstance(context, dict):
        fault = Fault("context", f"expected a dict; found {show(context)}.", "Give {'country': 'fr'}, say.", "option")
        raise InputError(fault)
    faults = []
    for name, value in context.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not isinstance(name, str):
            faults.append(Fault("context", f"a name is a text; found {show(name)}.", kind="option"))
        elif not all(_is_value(part) for part in parts):
            what = f"a value is a text, a finite number, true or false, or a list of them; found {show(value)}."
            faults.append(Fault(f"context.{show(name)[1:-1]}", what, kind="option"))
    if faults:
        raise InputError(faults)
    return dict(context)


def checked_choice(value: object, choices: Sequence[str], where: str) -> str:
    """Check an option with named values.

    Args:
        value: The argument.
        choices: The names that are allowed.
        where: The option as the user writes it, for the error: `space` or `--space`.

    Raises:
        InputError: If the value is not among the names.
    """
    if isinstance(value, str) and value in choices:
        return value
    what = f"there is no {where.lstrip('-')} {show(value)}."
    raise InputError(Fault(where, what, did_you_mean(str(value)[:100], choices), "option"))


def checked_share(value: object, where: str) -> float:
    """Check a fraction.

    Args:
        value: The argument.
        where: The option as the user writes it, for the error.

    Raises:
        InputError: If it is not a number from 0 to 1.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise InputError(Fault(where, f"{show(value)} is not a number between 0 and 1.", "Give a share.", "option"))


def checked_text(value: object, where: str) -> str | None:
    """Check a text.

    Args:
        value: The argument; None is allowed.
        where: The option as the user writes it, for the error.

    Raises:
        InputError: If it is not a text, or has half of a surrogate pair.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not is_unicode(value):
        raise InputError(Fault(where, f"expected a text; found {show(value)}.", kind="option"))
    return value


def log(source: object, warnings: Iterable[str]) -> None:
    """Log the warnings of a request, each text once.

    Args:
        source: The caller's users or items. If they are `Records`, nothing is logged: their warnings belong to whoever
            read them.
        warnings: The warnings.
    """
    if not isinstance(source, Records):
        for warning in dict.fromkeys(warnings):
            logging.getLogger("anyrec").warning(warning)


def _is_value(value: object) -> bool:
    """Return whether rules can read a value of the context."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return is_unicode(value)
    return isinstance(value, (int, float)) and abs(value) < 2**63 and math.isfinite(value)
