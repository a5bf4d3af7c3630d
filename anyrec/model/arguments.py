"""Checks of the arguments of the Python interface: each says what was found and what to give instead."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from anyrec.core.errors import DataError, Fault, InputError, did_you_mean
from anyrec.core.values import is_unicode, show
from anyrec.data.dataset import Dataset

MOMENTS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""Microseconds since 1970 of the years 1 and 9999, the bounds of what a time can be."""


def checked_k(k: Any, most: int = 2**62) -> int:
    """The number of items to list, `most` if it is larger. Raises InputError unless it is a whole number of at least 1."""
    try:
        whole = not isinstance(k, bool) and int(k) == k
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or k < 1:
        raise InputError(
            Fault("k", f"expected a whole number of at least 1; found {show(k)}.", "Give 10, say.", "option")
        )
    return min(int(k), most)


def checked_dataset(dataset: Any) -> Dataset:
    """Raises DataError for anything but a Dataset."""
    if isinstance(dataset, Dataset):
        return dataset
    hint = (
        "Read a file or a folder by Dataset.read(path), and tables by Dataset.from_tables(users, items, interactions)."
    )
    raise DataError(Fault("dataset", f"expected a Dataset; found {show(dataset)}.", hint, "option"))


def checked_now(now: Any) -> int | None:
    """A moment in microseconds since 1970, or None. Raises InputError outside the years 1 to 9999."""
    if now is None:
        return None
    if isinstance(now, bool) or not isinstance(now, Integral) or not MOMENTS[0] <= int(now) <= MOMENTS[1]:
        what = f"expected microseconds since 1970, of a year from 1 to 9999; found {show(now)}."
        raise InputError(Fault("now", what, "Give time.time_ns() // 1000, say.", "option"))
    return int(now)


def checked_context(context: Any) -> dict[str, Any]:
    """Values of the moment by name. Raises InputError with every value that rules cannot read."""
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


def checked_choice(value: Any, choices: Sequence[str], where: str) -> str:
    """One of the names that an option takes. Raises InputError for any other. where: the option, with its noun last: --space."""
    if isinstance(value, str) and value in choices:
        return value
    raise InputError(
        Fault(
            where, f"there is no {where.lstrip('-')} {show(value)}.", did_you_mean(str(value)[:100], choices), "option"
        )
    )


def checked_share(value: Any, where: str) -> float:
    """A number from 0 to 1. Raises InputError for anything else."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise InputError(Fault(where, f"{show(value)} is not a number between 0 and 1.", "Give a share.", "option"))
    return float(value)


def checked_text(value: Any, where: str) -> str | None:
    """A text of whole characters, or None. Raises InputError for anything else."""
    if value is None:
        return None
    if not isinstance(value, str) or not is_unicode(value):
        raise InputError(Fault(where, f"expected a text; found {show(value)}.", kind="option"))
    return value


def log(source: Any, warnings: Iterable[str]) -> None:
    """Log what a request's answer could not take into account. source: what the caller gave; records read before were logged then."""
    from anyrec.model.records import Records

    if not isinstance(source, Records):
        for warning in dict.fromkeys(warnings):
            logging.getLogger("anyrec").warning(warning)


def _is_value(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return is_unicode(value)
    return isinstance(value, (int, float)) and abs(value) < 2**63 and math.isfinite(value)
