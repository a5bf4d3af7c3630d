"""Writes the generated parts of the documentation from the code: `make docs`.

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end -->`; the text around it is written by hand.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # describe the code of this checkout, whatever is installed

import reference_commands
import reference_config
import reference_data
import reference_metrics

DOCS = Path(__file__).parent.parent / "docs"
PART = re.compile(r"<!-- generated: ([\w ]+) -->\n(.*?)<!-- end -->", re.DOTALL)
PAGES: dict[str, Callable[[str], str]] = {
    "cli.md": reference_commands.part,
    "components.md": reference_config.components,
    "config.md": reference_config.sections,
    "data-errors.md": reference_data.errors,
    "metrics.md": reference_metrics.table,
}
"""The pages with generated parts, and the function that returns the text of a part by its name."""


def generated(page: str) -> str:
    """Return the text of a page with every generated part as it is now."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return PART.sub(lambda match: f"<!-- generated: {match[1]} -->\n{PAGES[page](match[1])}\n<!-- end -->", text)


if __name__ == "__main__":
    os.environ["ANYREC_NO_PLUGINS"] = "1"
    for page in PAGES:
        (DOCS / page).write_text(generated(page), encoding="utf-8")
