"""A config in the making: keys of another format are put into their places, with a note or a fault for each."""

from __future__ import annotations

from dataclasses import replace

from anyrec.core.errors import Fault
from anyrec.core.strict_json import pointer
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show


class Translation:
    """The translated config, what the user should know, and what cannot be translated.

    Keys and places are dotted paths, such as `training.num_epochs`.

    Attributes:
        document: The config in the current format.
        notes: One sentence for each translated key and for each that is left out.
        faults: Unknown keys and values that cannot be translated.
        origins: By place, the key that its value is from.
    """

    def __init__(self) -> None:
        self.document: JsonObject = {}
        self.notes: list[str] = []
        self.faults: list[Fault] = []
        self.origins: dict[str, str] = {}

    def put(self, key: str, place: str, value: Json, why: str = "") -> None:
        """Set a place of the config, unless a key of the current format has set it.

        Args:
            key: The key that the value is from.
            place: The place.
            value: The value.
            why: A remark for the note.
        """
        *parents, last = place.split(".")
        section = self.document
        for part in parents:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                self.fault(key, f"it goes into '{place}', but '{part}' is {show(section)}.")
                return
        if last in section and place not in self.origins:
            self.notes.append(f"'{key}' is not used, as '{place}' is set: {section[last]!r}.")
            return
        section[last] = value
        self.origins[place] = key
        self.notes.append(f"'{key}' became '{place}': {value!r}{f' ({why})' if why else ''}.")

    def keep(self, key: str, value: Json) -> None:
        """Copy a key of the current format, which wins over others. An object is merged with the one there."""
        *parents, last = key.split(".")
        section = self.document
        for part in parents:
            section = section.setdefault(part, {})
        old = section.get(last)
        section[last] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
        self.origins.pop(key, None)

    def leave_out(self, key: str, why: str = "") -> None:
        """Note that a key has no counterpart."""
        self.notes.append(f"'{key}' has no counterpart and is left out{f': {why}' if why else ''}.")

    def fault(self, key: str, what: str, hint: str = "", kind: str = "invalid") -> None:
        """Add a fault at a key."""
        self.faults.append(Fault(pointer(key.split(".")), what, hint, kind))

    def traced(self, fault: Fault) -> Fault:
        """Return a fault of the translated config that also names the key that the value is from."""
        place = ".".join(fault.where.strip("/").split("/"))
        for where, key in self.origins.items():
            if place == where or place.startswith(f"{where}."):
                return replace(fault, hint=f"{fault.hint} It is from '{key}'.".strip())
        return fault
