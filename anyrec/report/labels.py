"""Labels of figures: texts of the data as the installed fonts can draw them.

The figures of report.html are SVG whose texts the browser draws, in its own fonts. PNG figures are drawn with the fonts
that matplotlib finds. A label with a character that none of these has is numbered, and report.md says what the numbers
stand for.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable
from functools import cache

MOST_WIDTH = 17.0
"""Greatest width of a label in em: under half of a figure."""
BLANK = "\N{NO-BREAK SPACE}"
BLANK_WIDTH, NARROW, WIDE = 0.318, 0.62, 1.0
"""Widths of characters in em, in DejaVu Sans."""
FIRST = ("Noto Sans CJK", "Noto Sans", "Source Han Sans", "WenQuanYi", "Arial Unicode", "Noto Emoji", "Symbola")
"""Beginnings of the names of fonts that are tried before all others, because they have many characters."""
UNUSABLE = ("Last Resort", "Color Emoji", "LastResort")
"""Fonts whose glyphs are placeholders, or pictures that matplotlib does not draw."""


class Labels:
    """The labels of one figure.

    Attributes:
        families: Names of the installed fonts that have characters which the default font lacks.
        numbered: By the text that is drawn instead of it, each label with a character that no font has.
    """

    def __init__(self, texts: Iterable[str]):
        cleaned = {text: _shortened(_printable(text)) for text in texts}
        self.families, missing = _fonts_for(frozenset("".join(cleaned.values())))
        self.numbered: dict[str, str] = {}
        self._drawn: dict[str, str] = {}
        for text, label in cleaned.items():
            if missing & set(label):
                number = f"[{len(self.numbered) + 1}]"
                blanks = max(1, math.ceil((_width(label) - _width(number)) / BLANK_WIDTH))
                drawn = BLANK * blanks + number  # as wide as the label, which replaces it in the SVG
                self.numbered[drawn] = label
            else:
                drawn = BLANK + label if label.startswith("_") else label  # matplotlib hides labels with a leading _
            self._drawn[text] = drawn

    def __getitem__(self, text: str) -> str:
        """Return the text that is drawn."""
        return self._drawn[text]

    def written_out(self, svg: str) -> str:
        """Return an SVG with the labels instead of their numbers."""
        for drawn, label in self.numbered.items():
            svg = svg.replace(f">{drawn}</text>", f">{html.escape(label, quote=False)}</text>")
        return svg

    def explained(self) -> str:
        """Return what the numbers stand for, as `[1] is ...; [2] is ...`; empty without numbers."""
        return "; ".join(f"{drawn.strip(BLANK)} is {label}" for drawn, label in self.numbered.items())


def _printable(text: str) -> str:
    """Replace line breaks, tabs and other control characters, and half surrogates, by spaces."""
    return "".join(" " if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") else one for one in text).strip()


def _shortened(text: str) -> str:
    """Replace the middle of a text that is too wide by an ellipsis: the end may be what tells two names apart."""
    if _width(text) <= MOST_WIDTH:
        return text
    start, end = text[: len(text) // 2], text[len(text) // 2 :]
    while _width(start) + _width(end) > MOST_WIDTH - WIDE:
        start, end = (start[:-1], end) if len(start) >= len(end) else (start, end[1:])
    return f"{start}\N{HORIZONTAL ELLIPSIS}{end}"


def _width(text: str) -> float:
    """Return the approximate width of a text in em."""
    return sum(WIDE if unicodedata.east_asian_width(one) in ("W", "F") else NARROW for one in text)


@cache
def _fonts_for(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Return the fonts that have characters which the default font lacks, and the characters that no font has."""
    from matplotlib import font_manager

    missing = characters - _characters(font_manager.findfont("DejaVu Sans"))
    if not missing:
        return [], missing
    files = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.style == "normal"}
    usable = [name for name in files if not any(word in name for word in UNUSABLE)]
    families = []
    for name in sorted(usable, key=lambda name: (not name.startswith(FIRST), name)):
        found = missing & _characters(files[name])
        if found:
            families.append(name)
            missing = missing - found
        if not missing:
            break
    return families, missing


def _characters(file: str) -> frozenset[str]:
    """Return the characters of a font file; none if matplotlib cannot draw it."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
