"""The settings of a run or of a request that the preparation of a feature needs. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa


@dataclass
class Context:
    """Settings of the run that an encoder may need.

    Attributes:
        root: Folder that relative file names (images, audio) start from.
        allow_urls: Whether a feature may name a URL to fetch.
        allow_outside_root: Whether a feature may name a file outside `root`.
        strict: Whether unreadable files are errors instead of missing values.
        cache: Folder for vectors that are expensive to compute; None for the default folder.
        seed: Seed for any randomness in `fit`.
        device: Name of the torch device that `prepare` may compute on.
        items: Records of the items that the recommender knows, which the rows of a history refer to.
        trusted: False for a loaded model whose origin the user does not trust. An encoder must then neither open a file
            that the model names outside its own folder nor download anything.
        open_files: False if the files that the known records name must not be opened: the model is not trusted, and the
            caller has not named the folder of these files.
        locate: Returns the place of the data that names a file.
        shard_rows: Number of rows from which on `anyrec.core.sharded_tables.make_table` divides a table over the
            processes that train together; None to keep all tables whole.
        warnings: Sentences for the user, which encoders append to, for example the number of unreadable images.

    Example:
        encoder.context = Context(root=Path("images"), allow_urls=True)
    """

    root: Path = field(default_factory=Path)
    allow_urls: bool = False
    allow_outside_root: bool = False
    strict: bool = False
    cache: Path | None = None
    seed: int = 0
    device: str = "cpu"
    items: pa.Table | None = None
    trusted: bool = True
    open_files: bool = True
    locate: Callable[[str], str] = str
    shard_rows: int | None = None
    warnings: list[str] = field(default_factory=list)


_REQUEST_CONTEXT: ContextVar[Context | None] = ContextVar("context of a request", default=None)


@contextmanager
def during_request(context: Context | None) -> Iterator[None]:
    """Replace every encoder's `context` in this thread within the block.

    Args:
        context: The context of the request; None keeps the encoders' own.
    """
    token = _REQUEST_CONTEXT.set(context)
    try:
        yield
    finally:
        _REQUEST_CONTEXT.reset(token)


def context_of_request() -> Context | None:
    """Return the context that `during_request` set in this thread; None outside of such a block."""
    return _REQUEST_CONTEXT.get()
