"""The commands that add users, items and interactions to a saved model: without training, and with a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.load import load, model_place
from anyrec.cli.options import (
    Changes,
    ChangesPath,
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Strict,
    Trust,
    app,
    out,
)
from anyrec.cli.terminal import is_quiet
from anyrec.core.errors import Fault, InputError
from anyrec.core.hub_address import is_on_hub

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

NewData = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Users, items, interactions: a JSON, JSON Lines, CSV or Parquet file, a folder, or the log of a server.",
    ),
]
ReplaceKnown = Annotated[
    bool, typer.Option("--replace-known", help="Give known items the records of the data instead of their own.")
]


@app.command()
def add(
    data: NewData,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the wider model to.")],
    model_path: ModelPath = None,
    replace_known: ReplaceKnown = False,
    config: ChangesPath = None,
    overrides: Changes = [],
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    strict: Strict = None,
) -> None:
    """Add users, items and interactions to a saved model without training, and save it to another folder.

    New users and items are encoded by their features and interactions. Interactions of known users extend their
    histories; they need no record. The weights stay as they are; `anyrec update` also trains them.
    """
    from anyrec.storage.model_directory import check_model_output

    check_model_output(output.resolve())
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, overrides=overrides)
    _save(recommender.add(data, replace_known=replace_known, strict=strict), output)


@app.command()
def update(
    data: NewData,
    model_path: ModelPath = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write the model to; by default its own, replaced.")
    ] = None,
    replace_known: ReplaceKnown = False,
    config: ChangesPath = None,
    overrides: Changes = [],
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    strict: Strict = None,
) -> None:
    """Add users, items and interactions to a saved model, and train on the interactions if that improves its lists.

    The data joins as with `anyrec add`. The towers are then trained on the new interactions for a few epochs. The last
    of these by time are held out, and the steps are kept only if they improve the metric of the training on them. The
    model's folder is replaced in one step.
    """
    from anyrec.storage.model_directory import check_model_output, find_model

    if output is None and is_on_hub(model_path):
        hint = "Give the folder to write the model to."
        raise InputError(Fault("--output", "a model of the Hub cannot be replaced by this command.", hint, "option"))
    place = find_model(model_place(model_path, model_dir, model_name)) if output is None else output.resolve()
    check_model_output(place)
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, overrides=overrides)
    updated = recommender.update(data, replace_known=replace_known, strict=strict, progress=not is_quiet())
    out.print(str(updated.updated), markup=False)
    _save(updated, place)


def _save(recommender: Recommender, output: Path) -> None:
    """Save a model, and print what joined it and the folder."""
    out.print(f"{recommender.joined} -> {recommender.save(output)}", markup=False)
