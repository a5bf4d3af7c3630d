"""A query of a semantic search, and what can be wrong with it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from anyrec.core.contracts import Context
from anyrec.core.errors import Fault, InputError, did_you_mean
from anyrec.data.images import ImageFault, open_image

Kind = Literal["text", "image"]
"""What a query is, and what describes an item."""
SPACES = ("auto", "joint", "text", "image", "visual", "tower")
"""The spaces to choose from (docs/search.md)."""


class Query(NamedTuple):
    """What items should be like: a text, an image, or both.

    Attributes:
        text: A text.
        image: The name of an image file, or its URL.
    """

    text: str | None = None
    image: str | None = None

    def parts(self) -> list[tuple[Kind, str]]:
        """Return the kind and the value of each part that is given."""
        parts: list[tuple[Kind, str | None]] = [("text", self.text), ("image", self.image)]
        return [(kind, value) for kind, value in parts if value is not None]


def check_query(query: Query, space: str, personal: float, context: Context) -> None:
    """Check a query.

    Args:
        query: The query.
        space: One of SPACES.
        personal: The weight of the user's preferences, from 0 to 1.
        context: The folder of image files, and what may be opened.

    Raises:
        InputError: With every fault of the arguments.
    """
    faults = []
    if query.text is None and query.image is None:
        faults.append(Fault("--text", "there is nothing to look for.", "Give a text, an image, or both.", "no query"))
    if query.text is not None and not query.text.strip():
        faults.append(Fault("--text", "it is empty.", "Describe the items to look for.", "empty query"))
    if query.image is not None:
        try:
            open_image(query.image, context.root, allow_urls=context.allow_urls, allow_outside_root=True)
        except ImageFault as fault:
            what = f"'{query.image}' cannot be read: {fault}."
            faults.append(Fault("--image", what, "Give the file of an image.", "unreadable query"))
    if space not in SPACES:
        faults.append(Fault("--space", f"there is no space '{space}'.", did_you_mean(space, SPACES), "option"))
    if not 0 <= personal <= 1:
        faults.append(Fault("--personal", f"{personal} is not between 0 and 1.", "Give a fraction.", "option"))
    if faults:
        raise InputError(faults)
