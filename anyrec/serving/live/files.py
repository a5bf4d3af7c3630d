"""Files that records of requests name, as pictures and sounds: a request never has a file or an address opened."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from anyrec.core.types import JsonObject
from anyrec.data.images import ImageFault, find_file
from anyrec.recommender import Recommender

NOTE = (
    "The files (pictures, sounds) that a record names were not opened and count as absent: requests bring pictures of "
    "a person as `images`, in base64. serving.image_names of the config allows names of files within the image root."
)


def root_of_names(recommender: Recommender, allowed: bool) -> Path | None:
    """Return the folder in which requests can name files; None if they cannot.

    Args:
        recommender: The model that serves.
        allowed: Whether the config allows it (`serving.image_names`).
    """
    model = recommender.model
    if not allowed or not model.context.open_files:  # the folder of the images was not named
        return None
    return Path(model.config.data.image_root) if model.config.data.image_root else model.context.root


@dataclass(frozen=True)
class FileRules:
    """Which files the records of requests can name.

    Addresses and files outside the roots are never opened, whatever the config of the model allows its training data.

    Attributes:
        features: Groups and features whose values name files, as `anyrec.model.file_features` returns them.
        root: Folder in which records can name any file; None for none.
        own_root: Folder in which a record can name the files that the model's record of the same id names, so that a
            record that was read and is put back keeps its pictures; None for none.
    """

    features: frozenset[str]
    root: Path | None
    own_root: Path | None

    def readable(self, record: JsonObject, own: Callable[[], JsonObject | None]) -> JsonObject:
        """Return a record without the files that may not be opened; the same object if there are none.

        Args:
            record: Groups of features.
            own: Returns the model's record of the same id, or None; called if the record names files.
        """
        if not names_files(record, self.features):
            return record
        known = own() or {}
        found = dict(record)
        for group, values in record.items():
            if isinstance(values, dict):  # others are refused when the record is read
                before = known.get(group) or {}
                found[group] = {
                    name: self._allowed(value, before.get(name)) if _is_named(group, name, self.features) else value
                    for name, value in values.items()
                }
        return record if found == record else found

    def _allowed(self, value: object, own: object) -> object:
        """Return a name, or those of several, that can be opened; None for none. own: the known value."""
        if isinstance(value, list):
            return [one for one in value if self._allowed(one, own) is not None] or None
        if not isinstance(value, str):
            return None
        known = value in own if isinstance(own, list) else value == own
        return value if _is_inside(value, self.root) or (known and _is_inside(value, self.own_root)) else None


def names_files(record: JsonObject, features: Set[str]) -> bool:
    """Whether a record has a value that names a file. features: as `anyrec.model.file_features` returns them."""
    return any(
        value is not None and _is_named(group, name, features)
        for group, values in record.items()
        if isinstance(values, dict)
        for name, value in values.items()
    )


def _is_named(group: str, name: str, features: Set[str]) -> bool:
    return group in features or f"{group}.{name}" in features


def _is_inside(name: str, root: Path | None) -> bool:
    """Return whether a name is no address and leads to no file outside a root."""
    if root is None or "://" in name:
        return False
    try:
        find_file(name, root)
    except ImageFault as fault:
        return fault.kind != "outside"  # others have no file, which the model reports
    return True
