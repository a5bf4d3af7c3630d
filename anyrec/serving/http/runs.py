"""Routes of training runs: their curves, also while they train, and their reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from anyrec.core.types import JsonObject
from anyrec.serving.http.problems import ERRORS, Refused
from anyrec.serving.runs import Run, Runs

routes = APIRouter(prefix="/v1", responses=ERRORS)
EVERY = 0.5
"""Seconds between two looks for news."""
QUIET = 30
"""Looks without news after which a comment keeps the connection open."""
STREAM = "text/event-stream"


def runs_of(request: Request) -> Runs:
    """Return the runs that a request's application shows."""
    return request.app.state.runs


TheRuns = Annotated[Runs, Depends(runs_of)]


@routes.get("/runs")
def all_runs(runs: TheRuns) -> JsonObject:
    """List the training runs in the folder of the model that serves, with their metrics and settings."""
    return {"current": runs.current, "runs": [run.about() for run in runs.all()]}


@routes.get("/runs/{name}")
def one_run(name: str, runs: TheRuns) -> JsonObject:
    """Return a run with its curves: one entry for each epoch."""
    run = _known(runs, name)
    return {**run.about(), "epochs": run.epochs()}


@routes.get("/runs/{name}/report", response_class=PlainTextResponse)
def report(name: str, runs: TheRuns) -> PlainTextResponse:
    """Return the report of a run, as the text of a page."""
    text = _known(runs, name).report()
    if text is None:
        raise Refused(404, f"the run {name!r} has no report: `anyrec report` writes it.")
    return PlainTextResponse(text)


@routes.get("/runs/{name}/events", response_class=StreamingResponse, include_in_schema=False)
async def follow_run(name: str, request: Request, runs: TheRuns) -> StreamingResponse:
    """Send the epochs of a run as server-sent events: all that are there, then each one as it ends."""
    run, state = _known(runs, name), request.app.state
    return events(follow(run, state.stopping, state.training))


async def follow(
    run: Run, stopping: Callable[[], bool], training: Callable[[], bool | None], every: float = EVERY
) -> AsyncIterator[tuple[str, object]]:
    """Yield the news of a run: `restart` if it begins again, `epoch` with its entry, `end` when training is over.

    Args:
        run: The run.
        stopping: Whether the server is about to stop.
        training: Whether the run trains in this process; None if another process may train it.
        every: Seconds between two looks.
    """
    sent: list[JsonObject] = []
    while not stopping():
        over = training() is False
        entries = await asyncio.to_thread(run.epochs)
        if entries[: len(sent)] != sent:
            sent = []
            yield "restart", {}
        for entry in entries[len(sent) :]:
            yield "epoch", entry
        sent = entries
        if over:
            yield "end", await asyncio.to_thread(run.about)
            return
        yield "", None
        await asyncio.sleep(every)


def events(source: AsyncIterator[tuple[str, object]]) -> StreamingResponse:
    """Return news as server-sent events: pairs of a name and a value; an empty name is no news."""

    async def lines() -> AsyncIterator[str]:
        quiet = 0
        async for name, value in source:
            quiet = 0 if name else quiet + 1
            if name:
                yield f"event: {name}\ndata: {json.dumps(value)}\n\n"
            elif quiet % QUIET == 1:
                yield ": no news\n\n"

    return StreamingResponse(lines(), media_type=STREAM, headers={"x-accel-buffering": "no"})


def _known(runs: Runs, name: str) -> Run:
    run = runs.named(name)
    if run is None:
        raise Refused(404, f"there is no run {name!r} here.")
    return run
