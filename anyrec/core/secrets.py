"""Passwords and keys in addresses of data: kept in memory, and out of configs, files and messages.

An address that a config or a command line names is split: the config keeps it without its secrets, and this module
remembers the whole address for the rest of the process, so that it can still be opened.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

SECRET_KEY = re.compile(r"pass|secret|token|signature|credential|^sig$|(?<!ssl)key(_?id)?$|^auth$", re.IGNORECASE)
"""Names of parameters of an address whose values are secrets; `sslkey` names a file."""
USERS = ("postgresql", "postgres", "kafka", "ftp", "sftp", "ssh", "webdav", "abfs", "abfss")
"""Schemes whose user name is no secret. Elsewhere it can be a token or an access key."""
HIDDEN = "***"
SHORTEST = 3
"""Remembered secrets with fewer characters are not searched for in texts: they are in any text."""
_PASSWORD = re.compile(r"(://[^/\s:@'\"]*:)[^\s'\"]*@")
_PARAMETER = re.compile(r"([?&]([\w.-]+)=)[^&\s'\"#]+")
_WHOLE: dict[str, str] = {}
"""Whole addresses by what the config keeps of them."""


class Address(NamedTuple):
    """The parts of an address.

    Attributes:
        scheme: Its scheme in lower case; empty for paths.
        user: User name; empty for none.
        password: Password; None for none.
        rest: Host, port, path and parameters.
    """

    scheme: str
    user: str
    password: str | None
    rest: str

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Names and values after the question mark, as they are written."""
        query = self.rest.partition("#")[0].partition("?")[2]
        pairs = [part.partition("=") for part in query.split("&") if part]
        return [(name, value) for name, _, value in pairs]

    @property
    def path(self) -> str:
        """Host, port and path."""
        return re.split(r"[?#]", self.rest)[0]


def parse_address(text: str) -> Address:
    """Split an address. A password can hold any character, also if it should have been percent-encoded."""
    scheme, mark, rest = text.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return Address("", "", None, text)
    scheme, host = scheme.lower(), re.split(r"[/?#]", rest)[0]
    end = host.rfind("@")
    cut = re.search(r":(?!\d*$)[^\]]*$", host) is not None  # what follows the colon is no port: a password with a slash
    if (end < 0 and cut) or scheme in USERS:
        end = max(end, rest.rfind("@") if cut else rest.partition("?")[0].rfind("@"))
    if end < 0:
        return Address(scheme, "", None, rest)
    user, mark, password = rest[:end].partition(":")
    return Address(scheme, user, password if mark else None, rest[end + 1 :])


def public_address(text: str) -> str:
    """Return an address without its password and without parameters that hold secrets."""
    parts = parse_address(text)
    if not parts.scheme:
        return text
    user = f"{parts.user}@" if parts.user and parts.scheme in USERS else ""
    place, mark, fragment = parts.rest.partition("#")
    kept = "&".join(f"{name}={value}" for name, value in parts.parameters if not SECRET_KEY.search(unquote(name)))
    return f"{parts.scheme}://{user}{place.partition('?')[0]}" + (f"?{kept}" if kept else "") + mark + fragment


def keep_secrets(text: str) -> str:
    """Return an address without its secrets, and remember them for `whole_address`."""
    public = public_address(text)
    if secrets_of(text):
        _WHOLE[public] = text
    return public


def whole_address(text: str) -> str:
    """Return an address with the secrets that it was given with in this process."""
    return _WHOLE.get(text, text)


def secrets_of(text: str) -> list[str]:
    """Return the password, the secret parameters and a user name that can be a token."""
    parts = parse_address(text)
    found = [parts.password or "", *(value for name, value in parts.parameters if SECRET_KEY.search(unquote(name)))]
    return [one for one in [*found, parts.user if parts.scheme not in USERS else ""] if one]


def redacted(text: str) -> str:
    """Return a text without passwords of addresses in it, and without every secret that is remembered."""
    for whole in _WHOLE.values():
        for secret in secrets_of(whole):
            for form in {secret, unquote(secret), quote(unquote(secret), safe="")}:
                if len(form) >= SHORTEST:
                    text = text.replace(form, HIDDEN)
    if "://" not in text:
        return text
    text = _PASSWORD.sub(rf"\1{HIDDEN}@", text)
    return _PARAMETER.sub(lambda found: found[1] + HIDDEN if SECRET_KEY.search(found[2]) else found[0], text)
