"""API keys: made once, kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from anyrec.core.errors import Fault, InputError
from anyrec.core.files import atomic_write, exclusive

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may do: ask for lists and records, send events and records, and change the server's model."""


@dataclass(frozen=True)
class Key:
    """One API key.

    Attributes:
        name: Who uses it; it is in the log of requests.
        scopes: What it may do.
        sha256: Hash of the key. A key has 256 random bits, so a fast hash protects it.
    """

    name: str
    scopes: tuple[str, ...]
    sha256: str


class Keys:
    """The keys of a file.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: list[Key]):
        self.keys = keys

    def find(self, secret: str) -> Key | None:
        """Return the key that a client sent; None if there is no such key. The time taken says nothing of any key."""
        digest, found = _hash(secret), None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def read_keys(path: Path) -> Keys:
    """Read a file of keys.

    Raises:
        InputError: If it is no file of keys, or others than its owner can write it.
    """
    try:
        found = [Key(one["name"], tuple(one["scopes"]), one["sha256"]) for one in json.loads(path.read_text())["keys"]]
        mode = path.stat().st_mode
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"this is no file of API keys ({type(error).__name__})."
        raise InputError(Fault(str(path), what, "Make one with `anyrec key`.", "keys")) from None
    if mode & 0o022:
        raise InputError(Fault(str(path), "others can write this file of API keys.", f"chmod 600 {path}", "keys"))
    if any(set(key.scopes) - set(SCOPES) for key in found):
        raise InputError(Fault(str(path), f"a scope is one of {', '.join(SCOPES)}.", kind="keys"))
    return Keys(found)


def new_key(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Add a key to a file of keys, and return its secret, which is not kept.

    Raises:
        InputError: If the file is no file of keys, or has a key of this name.
    """
    secret = f"anyrec-{secrets.token_urlsafe(32)}"
    with exclusive(path):
        keys = read_keys(path).keys if path.exists() else []
        if any(key.name == name for key in keys):
            raise InputError(Fault(str(path), f"there is a key of the name {name!r}.", "Choose another.", "keys"))
        document = {"keys": [asdict(key) for key in [*keys, Key(name, tuple(scopes), _hash(secret))]]}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n")
        path.chmod(0o600)
    return secret


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
