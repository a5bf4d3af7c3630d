"""Search of items by a text or an image, restricted by conditions and weighted by a user's taste."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.errors import Fault, InputError
from anyrec.core.renamed import present_name
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.model.arguments import checked_choice, checked_k, checked_share, checked_text, log
from anyrec.model.fitted import SEARCH, FittedModel
from anyrec.model.online_features import with_online_features
from anyrec.model.records import Records
from anyrec.model.result_tables import with_index
from anyrec.pipeline.conditions.conditions import fitting
from anyrec.pipeline.contracts import Request
from anyrec.pipeline.requests import make_requests
from anyrec.retrieval.semantic.queries import SPACES, Query
from anyrec.retrieval.semantic.search import Search


def searcher(model: FittedModel) -> Search:
    """Return the search spaces of a model, which are computed once."""
    base = None if model.base is None else searcher(model.base)
    return model.computed.get(SEARCH, lambda: Search(model, base))


def search_items(
    model: FittedModel,
    *,
    text: str | None = None,
    image: str | Path | None = None,
    user: object = None,
    k: int = 10,
    space: str = "auto",
    where: JsonObject | None = None,
    personal: float = 0.3,
    exclude_seen: bool = False,
    candidates: Sequence[str | int] | pa.Array | None = None,
    strict: bool | None = None,
) -> pa.Table:
    """Return the k items nearest to a text, an image or both; arguments as of `anyrec.Recommender.search`.

    Returns:
        item_id, score, rank (from 1); the metadata name the index.

    Raises:
        InputError: An argument is invalid, or needs a user and none is given.
        ConfigError: `where` does not fit the data.
    """
    k, text = checked_k(k, len(model.dataset.items)), checked_text(text, "text")
    personal = checked_share(personal, "personal")
    space = present_name("search space", space) if isinstance(space, str) else space
    space = checked_choice(space, SPACES, "--space")
    records = None if user is None else model.read_records("user", _online(model, user), strict=strict)
    allowed = _searchable(model, records, where, exclude_seen, candidates)
    represented = None if records is None else model.represent(records)
    query = Query(text, _image_name(image))
    found = searcher(model).find(query, k, space=space, allowed=allowed, user=represented, personal=personal)
    if records is not None:
        log(user, records.context.warnings)
    table = pa.table(
        {
            "item_id": model.dataset.ids("item").take(pa.array(found.items)),
            "score": pa.array(found.scores),
            "rank": pa.array(np.arange(1, len(found.items) + 1)),
        }
    )
    return with_index(table, found.found_by)


def _searchable(
    model: FittedModel,
    records: Records | None,
    where: JsonObject | None,
    exclude_seen: bool,
    candidates: Sequence[str | int] | pa.Array | None,
) -> np.ndarray | None:
    """Return (items,) bool, the items that may be found; None for all."""
    if exclude_seen and records is None:
        raise InputError(Fault("--exclude-seen", "it needs a user.", "Give --user as well.", "option"))
    allowed = np.ones(len(model.dataset.items), bool)
    if candidates is not None:
        allowed[:] = False
        allowed[model.rows_of("item", candidates)] = True
    if where is not None or exclude_seen:
        someone = model.read_records("user", [_unknown_user(model)], faults=[]) if records is None else records
        request = next(make_requests(model, someone))
        if where is not None:
            allowed &= _meets(model, where, request, records is not None)
        if exclude_seen:
            allowed[request.seen[1]] = False
    return None if allowed.all() else allowed


def _online(model: FittedModel, user: object) -> object:
    """Return the user of a search with online features."""
    return with_online_features(model, _one_user(model, user))


def _one_user(model: FittedModel, user: object) -> Records | JsonObject | list[object]:
    """Return the user of a search as `read_records` takes it. Raises InputError unless it is an id or a record."""
    if isinstance(user, Records):
        return user
    if isinstance(user, dict):
        document = set(user) & {"user_data", "interactions"}
        return user if document else [_unknown_user(model) | user]
    if isinstance(user, bool) or not isinstance(user, (str, int, np.integer)):
        raise InputError(Fault("user", f"expected an id or a record; found {show(user)}.", kind="option"))
    return [user]


def _unknown_user(model: FittedModel) -> JsonObject:
    """Return the record of a user without features and history."""
    return {"user_id": -1 if pa.types.is_integer(model.dataset.ids("user").type) else "-"}


def _image_name(image: object) -> str | None:
    """Return the image of a query as a name: the full path of an existing file, else the name as given.

    Raises:
        InputError: The image is not a name.
    """
    if image is None:
        return None
    if not isinstance(image, (str, Path)):
        raise InputError(Fault("image", f"expected the name of a file; found {show(image)}.", kind="option"))
    try:
        found = Path(image).is_file()
    except (OSError, ValueError):
        found = False
    return str(Path(image).resolve()) if found else str(image)


def _meets(model: FittedModel, where: JsonObject, request: Request, personal: bool) -> np.ndarray:
    """Return (items,) bool, the items that meet a condition.

    Raises:
        ConfigError: The condition does not fit the data.
        InputError: It names a feature of the user, and no user is given (`personal` is False).
    """
    condition = fitting(where, model, "--where")
    if condition.names_user and not personal:
        raise InputError(Fault("--where", "it names a feature of the user.", "Give --user as well.", "option"))
    return np.array(condition.holds(request)).reshape(-1)
