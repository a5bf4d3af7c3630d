"""Serves each version of a model that is saved in the folder of the present one (`anyrec serve --watch`)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from anyrec.core.errors import AnyrecError
from anyrec.core.manifest import MANIFEST
from anyrec.serving.http.host import Host

SECONDS = 1.0
"""Time between two looks at the folder."""
log = logging.getLogger("anyrec.serving")

Stamp = list[tuple[str, int, int]]


async def follow(host: Host) -> None:
    """Load the model again whenever its folder was replaced, until the task is cancelled.

    A model that cannot be loaded is logged, and the present one keeps serving until the folder changes again.
    """
    directory = host.served.recommender.model.directory
    if directory is None or host.folder is None:
        return
    before = stamp(directory)
    while True:
        await asyncio.sleep(SECONDS)
        now = await host.call_slowly(stamp, directory)
        if not now or now == before:  # an empty one: the folder is being replaced
            continue
        before = now
        try:
            served = await host.call_slowly(host.service.reload, host.folder)
        except AnyrecError as error:
            log.error("%s has changed, but the model before keeps serving: %s", directory, error)
        except Exception:  # this task would otherwise end without a word
            log.exception("%s has changed, but the model before keeps serving", directory)
        else:
            log.info("%s has changed: serving version %s", directory, served.digest)


def stamp(directory: Path) -> Stamp:
    """Return what changes when the model of a folder is saved, or an index of it: its manifests and their times."""
    try:
        found = [(path, path.stat()) for path in sorted(directory.glob(f"**/{MANIFEST}"))]
    except OSError:
        return []
    return [(str(path), status.st_mtime_ns, status.st_ino) for path, status in found]
