"""Which requests may come to a server of this machine that asks for no keys: not those of other websites."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing; a browser shows their answers to no other website."""


def is_loopback(host: str) -> bool:
    """Return whether a name or an address, without a port, is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"


def refusal(method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Return the status and the reason to refuse a request that reaches a local server; None to accept it.

    A website can have its own name lead to this machine (DNS rebinding): then `Host` is that name. It can also send
    requests here from its own page, whose `Origin` is then another one than ours.

    Args:
        method: The method.
        headers: The headers, with names in small letters.
    """
    host = headers.get("host", "")
    if not is_loopback(_name_of(host)):
        detail = "without keys this server answers at localhost and 127.0.0.1 only; see --api-key-file and --insecure."
        return 421, detail
    origin = headers.get("origin")
    if method not in SAFE and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return 403, "another website may not change anything here; see --api-key-file."
    return None


def _name_of(host: str) -> str:
    """Return the `Host` of a request without its port; empty if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        return "" if parts.netloc != host or "@" in host else parts.hostname or ""
    except ValueError:
        return ""
