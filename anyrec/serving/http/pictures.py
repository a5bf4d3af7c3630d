"""Thumbnails of the pictures that records name."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from anyrec.data.ids import Side
from anyrec.data.images import ImageFault, open_image
from anyrec.serving.http.host import Host, known_id
from anyrec.serving.http.lists import TheHost
from anyrec.serving.http.problems import ERRORS, Refused
from anyrec.serving.http.records import get_item, get_user
from anyrec.serving.http.tags import tagged
from anyrec.serving.live.query import Id
from anyrec.serving.live.served import Served

routes = APIRouter(prefix="/v1", responses=ERRORS)
Number = Annotated[int, Query(ge=0, le=1000, description="Which picture of a feature with several, from 0.")]
Pixels = Annotated[int, Query(ge=16, le=512, description="Longest side of the thumbnail in pixels.")]
THUMBNAILS = 2000
"""Thumbnails that are kept in memory: about 10 kB each."""
KEPT = "private, max-age=3600"
"""How long a browser keeps a thumbnail without asking for it again."""


class WebP(Response):
    """A picture."""

    media_type = "image/webp"


@routes.get("/items/{item_id:path}/image/{feature}", response_class=WebP)
async def item_image(
    item_id: str, feature: str, request: Request, host: TheHost, n: Number = 0, size: Pixels = 256
) -> Response:
    """Return a thumbnail of a picture of an item, as WebP."""
    if _is_id(request):
        return JSONResponse(await get_item(f"{item_id}/image/{feature}", host))
    return await _answer(request, host, "item", item_id, feature, n, size)


@routes.get("/users/{user_id:path}/image/{feature}", response_class=WebP)
async def user_image(
    user_id: str, feature: str, request: Request, host: TheHost, n: Number = 0, size: Pixels = 256
) -> Response:
    """Return a thumbnail of a picture of a user, as WebP."""
    if _is_id(request):
        return JSONResponse(await get_user(f"{user_id}/image/{feature}", host))
    return await _answer(request, host, "user", user_id, feature, n, size)


def _is_id(request: Request) -> bool:
    """Whether the path is that of a record whose id looks like the path of a picture: its slashes are encoded."""
    return request.scope.get("raw_path", b"").count(b"/") == 3


async def _answer(request: Request, host: Host, side: Side, text: str, feature: str, n: int, size: int) -> Response:
    served = host.served
    key = known_id(served, side, text)
    data = await host.call_slowly(thumbnail, served, side, key, feature, n, size)
    return tagged(request, data, WebP.media_type, KEPT)


def thumbnail(served: Served, side: Side, key: Id, feature: str, n: int, size: int) -> bytes:
    """Return a thumbnail of a picture that a record names.

    Only files within the image root are opened, whatever the config allows the training: no link out of it, no URL.

    Args:
        served: The model.
        side: Whose record.
        key: A known id.
        feature: The feature without its group, such as `photo`.
        n: Which picture of a feature with several.
        size: Longest side in pixels.

    Raises:
        Refused: With status 404, if there is no such picture.
    """
    model = served.recommender.model
    table = model.dataset.table(side)
    value = None
    if side == "user" and key in served.users:
        value = (served.users[key].get("image") or {}).get(feature)
    elif f"image.{feature}" in table.column_names:
        value = table.column(f"image.{feature}")[int(served.rows(side, [key])[0])].as_py()
    names = [] if value is None else value if isinstance(value, list) else [value]
    if n >= len(names):
        raise Refused(404, f"this {side} has no picture {n} of '{feature}'.")
    if not model.context.open_files:
        raise Refused(404, "this server may not open the pictures: start it with --image_root, the folder of the data.")
    root = Path(model.config.data.image_root) if model.config.data.image_root else model.context.root
    try:
        return _webp(names[n], root, size)
    except ImageFault:
        raise Refused(404, f"the picture {n} of '{feature}' cannot be opened here.") from None


@lru_cache(THUMBNAILS)
def _webp(name: str, root: Path, size: int) -> bytes:
    image = open_image(name, root, side=size)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
