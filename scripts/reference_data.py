"""The messages about faults in data, from the faults that the tests plant; for generate_docs.py."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"


def errors(part: str) -> str:
    """Return a table of the message for each fault of tests/test_read.py, and for files that are empty or cut short."""
    sys.path.insert(0, str(TESTS))
    from test_read import FAULTY, document

    rows = []
    for name, (spoil, where, _) in FAULTY.items():
        spoil(bad := document())
        lines = [line.strip() for line in _message(bad) if line.strip().startswith(f"{where}:")]
        rows.append(f"| {name} | `{lines[0].replace('|', chr(92) + '|')}` |")
    for label, text in {"an empty file": "", "a file cut short": '{"user_data": ['}.items():
        rows.append(f"| {label} | `{re.sub(r'/tmp/[^/]+/', '', _message(text)[1].strip())}` |")
    return "\n".join(["| fault | message |", "|---|---|", *rows])


def _message(bad: Any) -> list[str]:
    from test_read import read

    from anyrec.core.errors import DataError

    with tempfile.TemporaryDirectory() as folder:
        try:
            read(Path(folder), bad)
        except DataError as error:
            return str(error).splitlines()
    raise AssertionError(f"no fault was found in {bad}")
