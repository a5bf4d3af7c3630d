"""Whether a list is a person's own, or the one for all people that are unknown to the model."""

from __future__ import annotations

from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records

NOBODY = "nothing is known of this person: the list is the one for people without a history and features"
UNREAD = "the model does not read anything that is known of this person: the list is the one for unknown people"


def fallback_reasons(model: FittedModel, records: Records) -> list[str | None]:
    """Return for each user of a request why the list is not the user's own; None if it is.

    It is for users of the training, and if the model reads a feature or the history of the request.

    Args:
        model: The model.
        records: The users as it reads them.
    """
    reads, table = model.reads(), records.table
    own, given = records.rows >= 0, records.active | ~records.bare
    if reads.history and reads.personal:
        own |= records.active
    if table is not None:
        rules = model.config.pipeline is not None  # they can read every feature
        for name in table.column_names if rules else reads.features["user"]:
            if name in table.column_names and name != "user_id":
                own |= table.column(name).is_valid().to_numpy(zero_copy_only=False)
    return [None if one else UNREAD if has else NOBODY for one, has in zip(own, given, strict=True)]
