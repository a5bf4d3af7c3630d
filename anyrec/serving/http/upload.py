"""Pictures that requests bring."""

from __future__ import annotations

import base64

from anyrec.serving.http.problems import Refused

IMAGES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}
"""The first bytes of the formats of images that are read."""


def decoded(where: str, text: str, most: int) -> bytes:
    """Return the bytes of a picture.

    Args:
        where: Its place in the request.
        text: The file in base64.
        most: Most bytes.

    Raises:
        Refused: If it is too large, or no picture.
    """
    if len(text) > 4 * most // 3 + 4:
        raise Refused(413, f"{where}: a picture has at most {most:,} bytes.")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused(422, f"{where}: this is not base64.") from None
    if not ending(data):
        raise Refused(415, f"{where}: this is no JPEG, PNG, WebP or GIF.")
    return data


def ending(data: bytes) -> str:
    """Return the usual ending of the name of a picture's file; empty for other data."""
    return next((ending for first, ending in IMAGES.items() if data.startswith(first)), "")
