"""The body of a request: strict JSON in UTF-8, as `application/json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from anyrec.core.strict_json import MAX_DEPTH, Repeated, parse_json
from anyrec.core.types import Json
from anyrec.core.values import show


def parsed(body: bytes) -> Json:
    """Return the value of a body.

    Raises:
        HTTPException: With status 400, if it is not JSON as RFC 8259 has it (NaN, infinity and halves of surrogate
            pairs are none), if a key occurs twice in an object, which programs read differently, or if it is nested
            more than MAX_DEPTH levels deep.
    """
    try:
        text = body.decode("utf-8-sig")
        value = parse_json(text)
        msgspec.json.decode(text)  # it refuses what Python's parser takes for JSON
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The body is not JSON: byte {error.start} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"The body is not JSON: {error.msg} (character {error.pos}).") from None
    except RecursionError:
        raise HTTPException(400, _too_deep()) from None
    except msgspec.MsgspecError as error:
        what = f"{error}".replace("JSON is malformed: ", "")
        hint = "NaN, infinity and halves of surrogate pairs are no JSON."
        raise HTTPException(400, f"The body is not JSON: {what}. {hint}") from None
    except ValueError:
        raise HTTPException(400, "The body has a whole number of thousands of digits.") from None
    _check(value)
    return value


def _check(value: Json) -> None:
    """Check the objects and lists of a value, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [one for one in level if isinstance(one, (dict, list))]
        for one in level:
            if isinstance(one, Repeated):
                raise HTTPException(400, f"The key {show(one.repeated[0])} occurs more than once in one object.")
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return
    raise HTTPException(400, _too_deep())


def _too_deep() -> str:
    return f"The values of the body are nested more than {MAX_DEPTH} levels deep."


class _StrictRequest(Request):
    """A request whose body is read as above."""

    async def body(self) -> bytes:
        """Return the body. Raises HTTPException with status 415 if it is said to be something else than plain JSON."""
        body = await super().body()
        coding = self.headers.get("content-encoding", "").strip().lower()
        if body and coding not in ("", "identity"):
            raise HTTPException(415, f"send the body without `content-encoding`; found {show(coding)}.")
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            found = f"; found {show(kind)}" if kind else ""
            raise HTTPException(415, f"send JSON with the header `content-type: application/json`{found}.")
        return body

    async def json(self) -> Json:
        return parsed(await self.body())


class StrictRoute(APIRoute):
    """A route whose requests have strict JSON as their bodies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        """Return the handler of the route."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict
