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
from anyrec.core.errors import ConfigError, Fault, InputError
from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair
from anyrec.core.types import JsonObject

if TYPE_CHECKING:
    from anyrec.recommender import Recommender
    from anyrec.retrieval.choose import Trial
    from anyrec.retrieval.item_index import ItemIndex

COLUMNS = {
    "recall@10": "recall@10",
    "queries_per_second": "alone /s",
    "queries_per_second_in_batch": "batch /s",
    "bytes": "bytes",
    "build_seconds": "build s",
}
"""Figures of an index and their headings; `alone`: queries searched one at a time, `batch`: all at once."""
Push = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Store the item vectors in a vector database instead: qdrant://HOST:6333/COLLECTION, "
        "milvus:FILE.db/COLLECTION, milvus://HOST:19530/COLLECTION or postgresql://HOST/DATABASE/TABLE "
        "(docs/vector-databases.md).",
    ),
]
Fields = Annotated[
    list[str],
    typer.Option(
        "--field", metavar="FEATURE", help="With --push: a feature to store, as categorical.kind. Can be repeated."
    ),
]
RemoveStale = Annotated[
    bool, typer.Option("--remove-stale", help="With --push: remove items from the collection that the model lacks.")
]
BatchSize = Annotated[int, typer.Option(min=1, max=100_000, help="With --push: items of one request.")]


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
    push: Push = None,
    fields: Fields = [],
    remove_stale: RemoveStale = False,
    batch_size: BatchSize = 1000,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Build an index of a model's items, measure it, and save it; or push the item vectors to a vector database."""
    _check_index({"--type": kind, "--set": options, "--recall": recall, "--output": output}, push, fields, remove_stale)
    if push is not None:
        recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
        done = recommender.push_items(push, fields=fields, remove_stale=remove_stale, batch_size=batch_size)
        text = f"{done.items:,} items -> {done.place} ({done.removed:,} others removed; recall@10 {done.recall:.3f})"
        out.print(text, markup=False)
        return
    from anyrec.core.files import exclusive
    from anyrec.core.renamed import noting_former_names
    from anyrec.retrieval.item_index import check_index_output
    from anyrec.storage.model_directory import find_model

    directory = find_model(model_place(model_path, model_dir, model_name))
    place = output or directory.parent / "index"
    check_index_output(place)
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    with exclusive(place), noting_former_names() as renamed:
        item_index, tried = _build(recommender, kind, _options(options), recall)
        place = item_index.save(place)
    for note in renamed:
        log.info(note)
    _print(tried)
    if item_index.missed:
        log.warning(item_index.missed)
    options_used = " ".join(f"{key}={value}" for key, value in item_index.component.options().items())
    name = f"{item_index.component.type} {options_used}".strip()
    out.print(f"{name}, {len(item_index):,} items -> {place}", markup=False)


def _build(
    recommender: Recommender, kind: str | None, options: JsonObject, recall: float | None
) -> tuple[ItemIndex, list[Trial]]:
    """Build the index that the options name, or the cheapest one that reaches the recall, and measure it."""
    from anyrec.core.config import Component
    from anyrec.retrieval.choose import Trial, choose
    from anyrec.retrieval.item_index import ItemIndex
    from anyrec.retrieval.model_index import vectors_to_index

    ids, items, users = vectors_to_index(recommender.model)
    about: JsonObject = {"model": recommender.model.model_id, "queries": users}
    if recall is not None and kind is None and not options:
        return choose(recommender.registry, ids, items, recall, **about)
    component = Component(type=kind) if kind else recommender.config.index
    chosen = {**component.options(), **({"recall": recall} if recall is not None else {}), **options}
    component = Component(type=component.type, **chosen)
    item_index = ItemIndex.build(component, recommender.registry, ids, items, **about)
    return item_index, [Trial(component, item_index.figures)]


def _check_index(building: JsonObject, push: str | None, fields: list[str], remove_stale: bool) -> None:
    """Check that options of --push and options of an index (`building`) are not mixed. Raises InputError with all."""
    pushing = {"--field": fields, "--remove-stale": remove_stale}
    wrong, hint = (
        (pushing, "Give --push.") if push is None else (building, "It is an option of an index; leave it out.")
    )
    what = "it has an effect only with --push." if push is None else "it has no effect with --push."
    faults = [Fault(name, what, hint, "option") for name, value in wrong.items() if value not in (None, [], False)]
    if faults:
        raise InputError(faults)


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
