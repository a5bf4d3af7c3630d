"""JSON over HTTP to one address, within a time limit for the whole exchange. No redirect and no proxy is followed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from anyrec.core.deadline import Deadline
from anyrec.core.errors import AnyrecError
from anyrec.core.types import Json

MAX_BYTES = 16 << 20
"""Maximum size of an answer."""
SHOWN = 200
"""Characters of an answer with an error status that the message shows."""


def is_http(url: str) -> bool:
    """Return whether a text is an address that begins with http:// or https://."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or beyond 65535
        return False


def post_json(url: str, document: Json, seconds: float, headers: Mapping[str, str] | None = None) -> Json:
    """Return the JSON that an address answers with; None for an empty answer.

    Args:
        url: An address for which `is_http` is true.
        document: The body.
        seconds: Time limit.
        headers: Further headers.

    Raises:
        AnyrecError: Without an answer in time, or for one that is too long, has another status than 200, or is no JSON.
    """
    parts = urlsplit(url)
    make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = make(parts.hostname or "", parts.port, timeout=seconds)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    late = AnyrecError(f"{url} took more than {seconds} s")
    deadline = Deadline(seconds)
    try:
        with deadline:
            body = json.dumps(document, default=str).encode()
            connection.connect()
            deadline.watch(connection.sock)
            accepted = {"Content-Type": "application/json", "Accept": "application/json"}
            connection.request("POST", path, body, {**accepted, **(headers or {})})
            answer = connection.getresponse()
            data = answer.read(MAX_BYTES + 1)
            deadline.left()
        if answer.status != 200:
            said = " ".join(data[: 4 * SHOWN].decode("utf-8", "replace").split())[:SHOWN]
            raise AnyrecError(f"{url} answered with status {answer.status}, not 200" + (f": {said}" if said else ""))
        if len(data) > MAX_BYTES:
            raise AnyrecError(f"{url} answered with more than {MAX_BYTES >> 20} MB")
        return json.loads(data) if data else None
    except TimeoutError:
        raise late from None
    except (OSError, HTTPException) as error:
        if deadline.over():
            raise late from None
        raise AnyrecError(f"{url} did not answer ({type(error).__name__}: {error})") from None
    except ValueError as error:
        raise AnyrecError(f"{url} did not answer with JSON ({error})") from None
    finally:
        connection.close()
