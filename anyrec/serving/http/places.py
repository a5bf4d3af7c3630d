"""Where a fault is, in the words of the request: JSON pointers instead of options and documents of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from pydantic import BaseModel

from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.types import JsonObject

OPTIONS = {"where": "filter", "user": "user_id", **{one: one for one in ("text", "image", "space", "personal")}}
"""Options of the command line with the keys of requests that mean the same."""
RECORDS = {
    ("/v1/recommend", "user"): "/user",
    ("/v1/search", "user"): "/user",
    ("/v1/embed", "user"): "/users/{}",
    ("/v1/embed", "item"): "/items/{}",
    ("/v1/users", "user"): "/users/{}",
    ("/v1/items", "item"): "/items/{}",
}
"""Where each route has the record of a number; other routes have records in several places."""
IDS = {
    ("/v1/recommend", "item"): "/candidates",
    ("/v1/similar", "item"): "/item_ids",
    ("/v1/embed", "item"): "/item_ids",
    ("/v1/embed", "user"): "/user_ids",
    ("/v1/score", "item"): "/pairs",
    ("/v1/score", "user"): "/pairs",
}
"""Where each route has ids that must be known."""
TYPES = ("constrained-int", "constrained-str", "bool", "list[str]")
"""Names that pydantic gives to the types of a value that can be of several; they are no keys of the request."""
RELOAD = "/v1/reload"
_OPTION = re.compile(rf"--({'|'.join(OPTIONS)})\b(?![-_])")
_RECORD = re.compile(r"/(user|item)_data/(\d+)")
_ID = re.compile(r"(user|item)_id ('.*'|-?\d+)")
_PATH = re.compile(r"(?<![\w.])/(?:[^\s'\":,;()/]+/)+[^\s'\":,;()/]+")


def in_request(path: str, text: str) -> str:
    """Return a sentence with its options and places in the words of a request.

    Args:
        path: The path of the route; of `/v1/recommend` for each request of a batch.
        text: The sentence.
    """
    text = _OPTION.sub(lambda found: OPTIONS[found[1]], text)
    return _RECORD.sub(lambda found: RECORDS.get((path, found[1]), f"{found[1]} {{}}").format(found[2]), text)


def translated(path: str, faults: Sequence[Fault]) -> list[Fault]:
    """Return faults with their places in the request; path: as for `in_request`."""
    return [_translated(path, one) for one in faults]


def _translated(path: str, fault: Fault) -> Fault:
    what, hint = in_request(path, fault.what), in_request(path, fault.hint)
    if path == RELOAD:  # the client knows no folder of the server
        return replace(fault, where="/name", what=_PATH.sub(lambda found: PurePath(found[0]).name, what), hint="")
    of_id = _ID.fullmatch(fault.where)
    if of_id and (path, of_id[1]) in IDS:
        what = f"{of_id[2]}: {what}"
        hint = f"Add it with PUT /v1/{of_id[1]}s." if hint == "Give its record." else hint
        return replace(fault, where=IDS[path, of_id[1]], what=what, hint=hint)
    option = _OPTION.match(fault.where)
    if option:
        return replace(fault, where=f"/{OPTIONS[option[1]]}{fault.where[option.end() :]}", what=what, hint=hint)
    record = _RECORD.match(fault.where)
    if record and (path, record[1]) not in RECORDS:  # of an event, whose number is not known any more
        what = f"{record[1]}{fault.where[record.end() :]}: {what}"
        return replace(fault, where=f"/{path.rsplit('/', 1)[-1]}", what=what, hint=hint)
    return replace(fault, where=in_request(path, fault.where), what=what, hint=hint)


def of_messages(errors: Sequence[JsonObject], message: type[BaseModel] | None) -> list[Fault]:
    """Return errors of pydantic as faults, one for each place, with the known keys or the expected value as its hint.

    Args:
        errors: The errors.
        message: What the body should be; None for a request without a body.
    """
    found: dict[str, Fault] = {}
    for one in (_of_message(error, message) for error in errors):
        first = found.setdefault(one.where, one)
        if first is not one:  # a value that can be of several types has an error for each of them
            found[one.where] = replace(first, what=f"{first.what.rstrip('.')}, or: {one.what}")
    return list(found.values())


def _of_message(error: JsonObject, message: type[BaseModel] | None) -> Fault:
    place = [str(part) for part in error["loc"] if part != "body" and part not in TYPES]
    hint = ""
    for part in place:
        if message is None or part.isdecimal():
            continue
        field = message.model_fields.get(part)
        if field is None:
            is_extra = error["type"] == "extra_forbidden"
            hint = did_you_mean(part, sorted(message.model_fields)) if is_extra else hint
            break
        hint, message = field.description or "", _message_in(field.annotation)
    what = "there is no such key." if error["type"] == "extra_forbidden" else f"{error['msg'].rstrip('.')}."
    return Fault("/" + "/".join(place), what, hint, error["type"])


def _message_in(annotation: object) -> type[BaseModel] | None:
    """Return the message that a field, or a list or an optional one, consists of; None for other values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((one for one in map(_message_in, getattr(annotation, "__args__", ())) if one is not None), None)
