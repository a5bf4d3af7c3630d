"""The commands `feast generate` and `feast push`: feature definitions for Feast, and embeddings to its online store."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from anyrec.cli.datasets import read_dataset
from anyrec.cli.load import load
from anyrec.cli.options import (
    ConfigPath,
    DataPath,
    ModelDir,
    ModelName,
    ModelPath,
    Overrides,
    PluginFolders,
    Trust,
    app,
    err,
    log,
)
from anyrec.cli.terminal import Application
from anyrec.core.errors import ConfigError, Fault

feast_app = Application()
app.add_typer(feast_app, name="feast", help="Features in Feast: definitions of its store, embeddings to its server.")


@feast_app.command()
def generate(
    data: DataPath = [],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the feature repository.")
    ] = Path("feature_repo"),
    project: Annotated[str, typer.Option(help="Name of the project in Feast: letters, digits and _.")] = "anyrec",
    ttl_days: Annotated[
        int, typer.Option("--ttl-days", min=0, max=36_500, help="Days after which values expire; 0 for never.")
    ] = 0,
    time: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the features were true; by default now.")
    ] = None,
    config: ConfigPath = None,
    overrides: Overrides = [],
) -> None:
    """Write entities, feature views and their Parquet files for the users and items of a data set.

    `feast apply` in the folder registers them, and `feast materialize-incremental` fills the online store.
    """
    from anyrec.cli.options import read_now
    from anyrec.core.load_config import load_config
    from anyrec.data.feast.definitions import PROJECT, write_repository

    if not PROJECT.fullmatch(project):
        what = f"'{project:.60}' is no name of a project."
        raise ConfigError(Fault("--project", what, "Use letters, digits and underscores.", "option"))
    moment = read_now(time)
    loaded, notes = load_config({} if config is None else config, overrides)
    dataset = read_dataset(data, loaded)
    at = None if moment is None else dt.datetime.fromtimestamp(moment / 1e6, dt.timezone.utc)
    for note in [*notes, *dataset.notes, *write_repository(dataset, output, project, ttl_days, at)]:
        log.info(note)
    err.print(f"{len(dataset.users):,} users, {len(dataset.items):,} items -> {output}", markup=False)
    err.print(f"next: cd {output} && feast apply && feast materialize-incremental $(date -u +%FT%T)", markup=False)


@feast_app.command()
def push(
    model_path: ModelPath = None,
    url: Annotated[str, typer.Option(help="Feast's feature server.")] = "http://localhost:6566",
    side: Annotated[str, typer.Option(metavar="SIDE", help="user, item or both.")] = "both",
    timeout: Annotated[float, typer.Option(min=0.001, max=600, help="Seconds for one request of 1,000 rows.")] = 10.0,
    token_env: Annotated[
        str | None, typer.Option("--token-env", metavar="NAME", help="Environment variable with the server's token.")
    ] = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Push a model's embeddings to the online store, as the push sources that `feast generate` defines."""
    from anyrec.core.post_json import is_http
    from anyrec.data.feast.server import FeatureServer

    sides = {"user": ["user"], "item": ["item"], "both": ["user", "item"]}.get(side)
    faults = [] if is_http(url) else [Fault("--url", f"'{url:.100}' is no http address.", kind="option")]
    if sides is None:
        faults.append(Fault("--side", f"'{side:.60}' is no side.", "Give user, item or both.", "option"))
    if faults or sides is None:
        raise ConfigError(faults)
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    server = FeatureServer(url, timeout, token_env)
    for one in sides:
        table = recommender.embed_users() if one == "user" else recommender.embed_items()
        server.push(f"{one}_embeddings_push", table)
        err.print(f"{len(table):,} {one}s -> {url} ({one}_embeddings)", markup=False)
