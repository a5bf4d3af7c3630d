"""The command `train`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.one_process import SharedCommand
from anyrec.cli.options import (
    ConfigPath,
    DataPath,
    ImageRoot,
    Overrides,
    PluginFolders,
    app,
    log,
    out,
    with_overrides,
    write,
)
from anyrec.cli.process import launched
from anyrec.cli.terminal import ResultsOnly, err, is_quiet
from anyrec.core.errors import MissingDependency

if TYPE_CHECKING:
    from anyrec.cli.run import RunInputs

COMPONENTS = "`anyrec plugins` lists the components that a config can name, and `anyrec schema` all keys of a config."
"""Printed below the help of commands that read a config."""


@app.command(epilog=COMPONENTS, cls=SharedCommand)
def train(
    data: DataPath = [],
    config: ConfigPath = None,
    overrides: Overrides = [],
    plugins: PluginFolders = [],
    image_root: ImageRoot = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--output_dir", "--output-dir", help="Folder for run folders; by default `models`."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of this run.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the curves in the browser while it trains; the address is printed.")
    ] = False,
    watch_port: Annotated[
        int, typer.Option("--watch-port", "--watch_port", min=0, max=65535, help="Port of --watch; 0: any free one.")
    ] = 0,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            "--print_config",
            help="Print the complete config for this data and exit without training.",
        ),
    ] = False,
) -> None:
    """Train a recommender, save it, evaluate it and write a report.

    Config keys that are not set are chosen to fit the data.
    """
    with launched() as first:
        from anyrec.core.load_config import load_config

        folders = [str(folder) for folder in plugins]
        settings, notes = load_config(config, with_overrides(overrides, image_root, output, seed), plugins=folders)
        from anyrec.cli.run import RunInputs

        _train(RunInputs(settings, data, folders, notes, resume), print_config, watch_port if watch else None, first)


def _train(inputs: RunInputs, print_config: bool, watch_port: int | None, first: bool) -> None:
    """Train, or print the complete config.

    Args:
        inputs: What the run is started from.
        print_config: Print the config only.
        watch_port: Port of the page that shows the curves; None for no page.
        first: Whether this process prints.
    """
    from anyrec.cli.run import complete_config, train_run

    if print_config:
        if not first:
            return
        complete, reasons = complete_config(inputs)
        for line in [*inputs.notes, *reasons]:
            log.info(line)
        write(json.dumps(complete.model_dump(mode="json"), indent=2, ensure_ascii=False), None)
        return
    start = partial(train_run, inputs, ResultsOnly() if is_quiet() else out)
    if inputs.config.cluster.type == "ray":
        from anyrec.cli.ray_train import train_on_ray

        start = partial(train_on_ray, inputs)
    if watch_port is None or not first:
        start()
        return
    try:
        from anyrec.serving.http.watch import watched
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "serve", "the page of --watch") from None
    with watched(inputs.run_dir, watch_port) as address:
        err.print(f"watch: {address}", markup=False, highlight=False)
        start()
