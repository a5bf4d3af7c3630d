"""Features of the users of a request that the request does not have, from Feast's feature server."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import AnyrecError, DataError, Fault, InputError, did_you_mean
from anyrec.data.dataset import Dataset
from anyrec.data.feast.server import FeatureServer
from anyrec.data.formats.parts import no_records
from anyrec.data.partial import of_other_type, request_of
from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records, conformed
from anyrec.model.request_reader import Users


def with_online_features(model: FittedModel, users: Users) -> Users:
    """Return the users of a request with the online features that they do not have themselves.

    A value of the request goes first, then that of the server, then that of the training (`completed`). A value that
    none of them has is missing, so the feature is masked.

    Args:
        model: The model. Nothing is fetched if its config names no server, or if neither the model nor a pipeline reads
            features of users.
        users: The users of a request. All known users (None) and records that were read before stay as they are.

    Raises:
        DataError: For invalid records, and for ids that neither the model nor the server knows.
        InputError: If the server fails and `feast.on_error` is refuse, or `feast.features` names unknown features.
    """
    feast = model.config.feast
    if feast.url is None or users is None or isinstance(users, Records):
        return users
    kinds = _wanted(model)
    if not kinds:
        return users
    request = request_of("user", users, model.dataset, model.config.data)
    named = not isinstance(request, Dataset)
    if not isinstance(request, Dataset):
        if of_other_type(request, model.dataset.ids("user")):
            return users  # reading them raises the error
        users_only = pa.table({"user_id": request}), no_records("items"), no_records("interactions")
        request = Dataset(*users_only, root=model.context.root)
    server = FeatureServer(feast.url, feast.timeout_seconds, feast.token_env)
    try:
        found = server.online_features(feast.view, request.ids("user"), kinds)
    except InputError:
        raise
    except AnyrecError as error:
        if feast.on_error == "refuse":
            raise InputError(Fault("/feast/url", f"{error}.", "Check the feature server.", "no features")) from None
        if named:
            model.rows_of("user", request.ids("user"))  # raises DataError for ids without a record
        note = f"The online features of {len(request.users):,} users are missing: {error}."
        return replace(request, notes=[*request.notes, note])
    if named:
        _check_known(model, request.ids("user"), found)
    return replace(request, users=_completed(request.users, found, model))


def _wanted(model: FittedModel) -> dict[str, pa.DataType]:
    """Return the features to fetch, and their types."""
    schema = model.dataset.users.schema
    known = model.dataset.features("user")
    if not model.reads().features["user"] and model.config.pipeline is None:
        return {}
    wanted = known if model.config.feast.features is None else model.config.feast.features
    faults = [
        Fault(f"/feast/features/{n}", f"users have no feature '{name}'.", did_you_mean(name, known), "unknown feature")
        for n, name in enumerate(wanted)
        if name not in known
    ]
    if faults:
        raise InputError(faults)
    return {name: schema.field(name).type for name in wanted}


def _check_known(model: FittedModel, ids: pa.Array, found: pa.Table) -> None:
    """Raise DataError for ids without a record and without any online feature."""
    bare = pc.invert(reduce(pc.or_, [column.combine_chunks().is_valid() for column in found.columns]))
    unknown = ids.filter(pc.and_(bare, pc.invert(pc.is_in(ids, value_set=model.dataset.ids("user")))))
    if len(unknown):
        shown = ", ".join(map(repr, unknown.slice(0, 5).to_pylist()))
        what = f"neither the model nor Feast knows {len(unknown):,} users: {shown}."
        raise DataError(Fault("user_id", what, "Check the ids, or give their records.", "unknown id"))


def _completed(users: pa.Table, found: pa.Table, model: FittedModel) -> pa.Table:
    """Fill the missing values of a request's users. A column whose values cannot be cast keeps them as they are."""
    for name in found.column_names:
        fetched = found.column(name).combine_chunks()
        if name not in users.column_names:
            users = users.append_column(name, fetched)
            continue
        faults: list[Fault] = []
        own = conformed(users.select(["user_id", name]), model.dataset.users, "user", faults).column(name)
        if not faults and own.type == fetched.type:
            users = users.set_column(users.column_names.index(name), name, pc.coalesce(own.combine_chunks(), fetched))
    return users
