"""The command that adds users, items and interactions to a saved model without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.load import load
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
    log,
    out,
)
from anyrec.core.errors import DataError, Fault

if TYPE_CHECKING:
    from anyrec.model.records import Records


@app.command()
def add(
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="Users, items, interactions: a JSON, JSON Lines, CSV or Parquet file, or a folder."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the wider model to.")],
    model_path: ModelPath = None,
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
    histories. The weights stay as they are.
    """
    from anyrec.serving.result import read_request
    from anyrec.storage.model_directory import check_model_output

    check_model_output(output.resolve())
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, overrides=overrides)
    request = read_request(recommender, data)
    faults: list[Fault] = []
    new_items = 0
    if len(request.items):
        items = recommender.read_records("item", request, strict=strict, faults=faults)
        new_items = int((items.rows < 0).sum())
        recommender = recommender.add_items(items)
    users = recommender.read_records("user", request, strict=strict, faults=faults)
    if faults and users.context.strict:
        raise DataError(faults)
    for note in [*request.notes, *map(str, faults)]:
        log.warning(note)
    recommender = recommender.add_users(users)
    place = recommender.save(output)
    out.print(f"{_counts(users, new_items)} -> {place}", markup=False)


def _counts(users: Records, items: int) -> str:
    """Return how many users are new, how many known ones have interactions, and how many items are new."""
    from anyrec.model.records import counted

    new, active = users.rows < 0, (users.rows >= 0) & users.active
    more = counted(int(active.sum()), "known user")
    return f"{counted(int(new.sum()), 'new user')}, {more} with interactions, {counted(items, 'new item')}"
