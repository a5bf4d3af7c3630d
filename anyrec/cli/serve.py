"""The commands `serve` and `key`: a model over HTTP."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.load import load, model_place
from anyrec.cli.options import (
    DEMO,
    Changes,
    ChangesPath,
    ImageRoot,
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Trust,
    app,
    err,
)
from anyrec.cli.terminal import out
from anyrec.core.errors import Fault, InputError, MissingDependency
from anyrec.core.runtime import no_collection

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

Host = Annotated[str, typer.Option("--host", help="Address to listen at. Others than this machine's need API keys.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen at.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", "--api_key_file", metavar="FILE", help="File of API keys (`anyrec key`)."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen at an address that other machines reach without API keys.")
]
EventsFolder = Annotated[
    Path | None,
    typer.Option(
        "--events",
        metavar="FOLDER",
        help="Folder of the log of events; by default `events` in the folder of the run.",
    ),
]


@app.command()
def serve(
    model_path: ModelPath = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: KeyFile = None,
    insecure: Insecure = False,
    events: EventsFolder = None,
    config: ChangesPath = None,
    overrides: Changes = [],
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    image_root: ImageRoot = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Load the model again whenever its folder changes, and serve it.")
    ] = False,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Serve the model of `anyrec demo`, which is trained first if it is not there."),
    ] = False,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Serve a model over HTTP: lists, scores, searches, events, changes of records, and a page in the browser.

    The page is at http://127.0.0.1:8000, and the API is described at /docs. It needs `pip install 'anyrec[serve]'`.
    """
    try:
        with no_collection():
            from anyrec.serving.http.keys import read_keys
            from anyrec.serving.http.origin import is_loopback
            from anyrec.serving.http.run import check_address, listen
            from anyrec.serving.http.run import serve as run
            from anyrec.serving.http.starting import Starting
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "serve", "the HTTP server") from None
    keys = None if api_key_file is None else read_keys(api_key_file)
    check_address(host, keys, insecure)
    with ExitStack() as held:
        places = [held.enter_context(place) for place in listen(host, port)]
        starting = held.enter_context(Starting(places))
        if demo:
            model_path = _demo(model_path)
            image_root = image_root or model_path
        folder = model_place(model_path, model_dir, model_name)

        def loaded(place: Path) -> Recommender:
            """Return a version of the model, with the changes that the options make."""
            found = load(place, None, None, config, plugins, trust_plugins, image_root, overrides)
            return found if image_root is None else found.with_image_root(image_root)

        with no_collection():  # until the server is ready
            recommender = loaded(folder)
            place = recommender.model.directory or folder
            err.print(f"http://{host}:{places[0].getsockname()[1]}  (stop with Ctrl+C)", markup=False, highlight=False)
            log = events or place.parent / "events"
            local = keys is None and not insecure and is_loopback(host)
            options = {"places": places, "starting": starting, "local": local, "keys": keys, "events": log}
            run(recommender, folder, load=loaded, watch=watch, **options)


def _demo(folder: Path | None) -> Path:
    """Return the folder of the demo, and train its model if it is not there.

    Args:
        folder: The folder that the user names; by default the one of `anyrec demo`.
    """
    from anyrec.cli.demo import run_demo
    from anyrec.core.manifest import MANIFEST

    place = folder or DEMO
    if not (place / "model" / MANIFEST).is_file():
        run_demo(place, err)
    return place


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="File of API keys; it is created.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Who uses the key; it is in the log of requests.")] = "client",
    scopes: Annotated[
        str, typer.Option("--scopes", help="What it may do, between commas: read, write, admin.")
    ] = "read",
) -> None:
    """Make an API key for `anyrec serve`, and print it. The file keeps only its hash."""
    from anyrec.serving.http.keys import SCOPES, new_key

    wanted = tuple(one for one in SCOPES if one in scopes.split(","))
    if not wanted or set(scopes.split(",")) - set(SCOPES):
        raise InputError(Fault("--scopes", f"expected some of {','.join(SCOPES)}; found {scopes!r}.", kind="option"))
    out.print(new_key(file, name, wanted), markup=False, highlight=False)
