"""Answers that a browser keeps, and asks for again by their tag."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response


def tagged(request: Request, data: bytes, kind: str, kept: str) -> Response:
    """Return data with a tag of their content, or status 304 if the browser has them.

    Args:
        request: The request.
        data: The body.
        kind: Its content type.
        kept: How long the browser keeps it: the value of `cache-control`.
    """
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"cache-control": kept, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)
