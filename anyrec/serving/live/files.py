"""Files that records of requests name, as pictures and sounds: a request never has a file or an address opened."""

from __future__ import annotations

from collections.abc import Set
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


def without_files(record: JsonObject, features: Set[str], root: Path | None) -> JsonObject:
    """Return a record of a request without the files that may not be opened; the same object if there are none.

    Addresses and files outside the root are never opened, whatever the config of the model allows its training data.

    Args:
        record: Groups of features.
        features: As `anyrec.model.file_features` returns it.
        root: As `root_of_names` returns it.
    """
    found = dict(record)
    for group, values in record.items():
        if isinstance(values, dict):  # others are refused when the record is read
            found[group] = {
                name: _inside(value, root) if group in features or f"{group}.{name}" in features else value
                for name, value in values.items()
            }
    return record if found == record else found


def names_files(record: JsonObject, features: Set[str]) -> bool:
    """Whether a record has a value that names a file. Arguments as for `without_files`."""
    return any(
        value is not None and (group in features or f"{group}.{name}" in features)
        for group, values in record.items()
        if isinstance(values, dict)
        for name, value in values.items()
    )


def _inside(value: object, root: Path | None) -> object:
    """Return a name, or those of several, that can be opened; None for none."""
    if isinstance(value, list):
        return [one for one in value if _inside(one, root) is not None] or None
    return value if root is not None and isinstance(value, str) and _is_inside(value, root) else None


def _is_inside(name: str, root: Path) -> bool:
    """Return whether a name is no address and leads to no file outside the root."""
    if "://" in name:
        return False
    try:
        find_file(name, root)
    except ImageFault as fault:
        return fault.kind != "outside"  # others have no file, which the model reports
    return True
