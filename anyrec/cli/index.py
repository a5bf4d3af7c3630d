"""The command that builds an index of a model's items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.complete import index_types
from anyrec.cli.load import load, model_place
from anyrec.cli.options import (
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Trust,
    app,
    finite,
    log,
    out,
)
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair
from anyrec.core.types import JsonObject

if TYPE_CHECKING:
    from anyrec.retrieval.choose import Trial

COLUMNS = {
    "recall@10": "recall@10",
    "queries_per_second": "alone /s",
    "queries_per_second_in_batch": "batch /s",
    "bytes": "bytes",
    "build_seconds": "build s",
}
"""Figures of an index and their headings; `alone`: queries searched one at a time, `batch`: all at once."""


@app.command()
def index(
    model_path: ModelPath = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    kind: Annotated[
        str | None,
        typer.Option("--type", autocompletion=index_types, help="Type of the index; by default that of the config."),
    ] = None,
    options: Annotated[
        list[str], typer.Option("--set", help="Option of the index, as kind=ivf; may be repeated.")
    ] = [],
    recall: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="Recall to reach; without --type and --set, by the cheapest index that is installed.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; by default `index` next to the model's folder."),
    ] = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Build an index of a model's items, measure it, and save it."""
    from anyrec.core.config import Component
    from anyrec.core.files import exclusive
    from anyrec.core.renamed import noting_former_names
    from anyrec.retrieval.choose import Trial, choose
    from anyrec.retrieval.item_index import ItemIndex, check_index_output
    from anyrec.retrieval.model_index import vectors_to_index
    from anyrec.storage.model_directory import find_model

    directory = find_model(model_place(model_path, model_dir, model_name))
    place = output or directory.parent / "index"
    check_index_output(place)
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    ids, items, users = vectors_to_index(recommender.model)
    about: JsonObject = {"model": recommender.model.model_id, "queries": users}
    with exclusive(place), noting_former_names() as renamed:
        if recall is not None and kind is None and not options:
            item_index, tried = choose(recommender.registry, ids, items, recall, **about)
        else:
            component = Component(type=kind) if kind else recommender.config.index
            chosen = {**component.options(), **({"recall": recall} if recall is not None else {}), **_options(options)}
            component = Component(type=component.type, **chosen)
            item_index = ItemIndex.build(component, recommender.registry, ids, items, **about)
            tried = [Trial(component, item_index.figures)]
        place = item_index.save(place)
    for note in renamed:
        log.info(note)
    _print(tried)
    if item_index.missed:
        log.warning(item_index.missed)
    options_used = " ".join(f"{key}={value}" for key, value in item_index.component.options().items())
    name = f"{item_index.component.type} {options_used}".strip()
    out.print(f"{name}, {len(item_index):,} items -> {place}", markup=False)


def _options(options: list[str]) -> JsonObject:
    """Read `name=value` pairs, each value as JSON if it is JSON. Raises ConfigError for anything else."""
    found = {}
    for option in options:
        pair = split_pair(option)
        if pair is None:
            raise ConfigError(Fault(f"--set {option}", "an option is set as name=value.", kind="option"))
        try:
            found[pair[0]] = json_or_text(pair[1])
        except UnusableJson as error:
            raise ConfigError(Fault(f"--set {pair[0]}", str(error), kind="option")) from None
    return found


def _print(tried: list[Trial]) -> None:
    """Print one line of figures for each index that was tried."""
    from rich.table import Table

    table = Table("index", *COLUMNS.values(), box=None, header_style="bold")
    for component, figures in tried:
        values = [str(value) for key, value in component.options().items() if key != "recall"]
        name = " ".join([component.type, *values])
        table.add_row(name, *(f"{figures[key]:,}" if key in figures else "" for key in COLUMNS))
    out.print(table)
