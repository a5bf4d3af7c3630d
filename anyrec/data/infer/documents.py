"""Whether a file is a dataset in the project's own format."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from anyrec.core.errors import DataError
from anyrec.data.formats.decode import DOCUMENT_PARTS
from anyrec.data.sources.contract import SourceFile
from anyrec.data.sources.unpack import open_container

YAML = (".yaml", ".yml")


def is_document(path: Path) -> bool:
    """Return whether a file is one document of users, items and interactions: JSON with these keys, or YAML."""
    if path.suffix.lower() in YAML:
        return True
    try:
        head = open_container(SourceFile(str(path), lambda: pa.OSFile(str(path)), ""), None, []).text_head
    except DataError:
        return False
    first = re.match(r'\s*\{\s*"([^"]*)"\s*:\s*\[', head)
    return first is not None and first[1] in DOCUMENT_PARTS
