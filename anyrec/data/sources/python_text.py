"""Python objects as programs print them ({'a': True, 'b': ["it's"]}) to JSON, by regular expressions on whole texts.

Files of this kind are common: the metadata of Amazon reviews of 2014, the Steam reviews, and lists in cells of CSV
files that a data frame wrote.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

STRING, BACKSLASH = "\x01", "\x02"
"""Stand for the quotes of texts, and for a pair of backslashes, while a text is converted."""
TRUE, FALSE, NONE = "\x03", "\x04", "\x05"
END = "\x06"


def is_python(head: str) -> bool:
    """Return whether the first line of a text is a Python object and no JSON."""
    line = head.lstrip().split("\n", 1)[0].strip()
    if not line.startswith("{") or "'" not in line:
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def python_as_json(data: bytes) -> bytes:
    """Return the text of Python objects as JSON."""
    text = pa.array([data], pa.large_binary()).cast(pa.large_string())
    return python_column_as_json(text)[0].as_py().encode()


def python_column_as_json(texts: pa.Array) -> pa.Array:
    """Return (rows,) texts of Python objects as JSON.

    RE2 replaces from left to right without overlap, so an alternative that matches whole texts keeps the others from
    matching inside of texts.
    """
    for search, replacement in (
        ("\\\\\\\\", BACKSLASH),
        # every text, in single or double quotes, gets the same marks around it
        (r"[uU]?'((?:[^'\\]|\\.)*)'|[uU]?\"((?:[^\"\\]|\\.)*)\"", rf"{STRING}\1\2{STRING}"),
        (r"\\(['\"])", r"\1"),
        (r"\\x([0-9a-fA-F]{2})", r"\\u00\1"),
        ('"', r"\\" + '"'),
        # constants outside of texts
        (
            rf"({STRING}[^{STRING}]*{STRING})|\b(True)\b|\b(False)\b|\b(None)\b",
            rf"\1{TRUE}\2{FALSE}\3{NONE}\4{END}",
        ),
        (f"{TRUE}True{FALSE}{NONE}{END}", "true"),
        (f"{TRUE}{FALSE}False{NONE}{END}", "false"),
        (f"{TRUE}{FALSE}{NONE}None{END}", "null"),
        (f"{TRUE}{FALSE}{NONE}{END}", ""),
        (STRING, '"'),
        (BACKSLASH, r"\\\\"),
    ):
        texts = pc.replace_substring_regex(texts, search, replacement)
    return texts
