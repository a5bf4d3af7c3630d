"""Values as messages show them, and texts that UTF-8 can hold."""

from __future__ import annotations

import reprlib

SHOWN = 60
"""Characters of a value that a message shows by default."""


def show(value: object, length: int = SHOWN) -> str:
    """Return a value as Python writes it, in at most `length` characters.

    Long texts lose their middle, long lists their end. A value without a `repr` (an integer of thousands of digits, or
    nesting beyond Python's recursion limit) is described by its type.
    """
    if type(value) is int and value.bit_length() > 200:
        return f"a whole number of {int(value.bit_length() * 0.30103) + 1} digits"
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 4, length, length, length
    try:
        text = short.repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= length else text[: length - 3] + "..."


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8. Half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
