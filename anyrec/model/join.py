"""Add the users, items and interactions of a request to a model, without training."""

from __future__ import annotations

from dataclasses import dataclass

from anyrec.core.errors import DataError, Fault
from anyrec.data.dataset import Dataset
from anyrec.model.file_features import file_features
from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records, changed_items, counted


@dataclass(frozen=True)
class Joined:
    """A model that knows what a request brought.

    Attributes:
        model: The wider model.
        with_items: The model with the items, before the users and interactions were added.
        users: The users of the request, with their interactions.
        new_items: Number of items that the model did not know.
        changed_items: Number of known items whose record was replaced.
        notes: What the model could not read.
    """

    model: FittedModel
    with_items: FittedModel
    users: Records
    new_items: int
    changed_items: int
    notes: list[str]

    def __str__(self) -> str:
        """Return what joined in words."""
        new, active = self.users.rows < 0, (self.users.rows >= 0) & self.users.active
        more = f"{counted(int(active.sum()), 'known user')} with interactions"
        text = f"{counted(int(new.sum()), 'new user')}, {more}, {counted(self.new_items, 'new item')}"
        return text + (f", {counted(self.changed_items, 'changed item')}" if self.changed_items else "")


def join(model: FittedModel, request: Dataset, *, replace_known: bool = False, strict: bool | None = None) -> Joined:
    """Add what a request brings: first its items, which its interactions may be with, then its users.

    Args:
        model: The model.
        request: Users, items and interactions; each part may be empty.
        replace_known: As for `FittedModel.with_items`.
        strict: Raise for what cannot be read; by default `data.strict` of the config.

    Raises:
        DataError: For ids of another type than the model's, and if strict with everything that cannot be read.
        InputError: If there are new items and the model can only score those it was fitted on.
    """
    faults: list[Fault] = []
    wider, new, changed = model, 0, 0
    if len(request.items):
        items = model.read_records("item", request, strict=strict, faults=faults)
        new = int((items.rows < 0).sum())
        items = changed_items(model.dataset, items, file_features(model)) if replace_known else items
        changed = len(items.rows) - new if replace_known else 0
        wider = model.with_items(items, replace_known=replace_known)
    users = wider.read_records("user", request, strict=strict, faults=faults)
    if faults and users.context.strict:
        raise DataError(faults)
    notes = [*request.notes, *map(str, faults)]
    return Joined(wider.with_users(users), wider, users, new, changed, notes)
