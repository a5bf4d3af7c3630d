"""The command that builds an index of a model's items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from anyrec.cli.options import (
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Trust,
    app,
    err,
    finite,
    load,
    model_place,
    out,
)
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair

COLUMNS = {
    "recall@10": "recall@10",
    "queries_per_second": "alone /s",
    "queries_per_second_in_batch": "batch /s",
    "bytes": "bytes",
    "build_seconds": "build s",
}
"""Figures of an index and their headings: queries a second asked one at a time, and all at once."""


@app.command()
def index(
    model_path: ModelPath = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    kind: Annotated[str | None, typer.Option("--type", help="The index; by default the config's.")] = None,
    options: Annotated[list[str], typer.Option("--set", help="Its option, as kind=ivf; may be repeated.")] = [],  # noqa: B006
    recall: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, callback=finite, help="Recall to reach; without --type, by what is cheapest of all installed."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; by default `index` beside the model's.")
    ] = None,
    plugins: PluginFolders = [],  # noqa: B006
    trust_plugins: Trust = False,
) -> None:
    """Build an index over a model's items, measure it, and save it."""
    from anyrec.core.config import Component
    from anyrec.core.files import exclusive
    from anyrec.retrieval.choose import choose
    from anyrec.retrieval.item_index import ItemIndex, check_index_output
    from anyrec.storage.model_directory import find_model

    directory = find_model(model_place(model_path, model_dir, model_name))
    place = output or directory.parent / "index"
    check_index_output(place)
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    ids, items, users = vectors_of(recommender)
    about: dict[str, Any] = {"model": recommender.model_id, "queries": users}
    with exclusive(place):
        if recall is not None and kind is None and not options:
            catalogue, tried = choose(recommender.registry, ids, items, recall, **about)
        else:
            component = Component(type=kind) if kind else recommender.config.index
            chosen = {**component.options(), **({"recall": recall} if recall is not None else {}), **_options(options)}
            component = Component(type=component.type, **chosen)
            catalogue = ItemIndex.build(component, recommender.registry, ids, items, **about)
            tried = [(component, catalogue.figures)]
        place = catalogue.save(place)
    _print(tried)
    names = " ".join(f"{key}={value}" for key, value in catalogue.component.options().items())
    if catalogue.missed:
        err.print(f"warning: {catalogue.missed}", markup=False)
    out.print(f"{catalogue.component.type} {names}".strip() + f", {len(catalogue):,} items -> {place}", markup=False)


def vectors_of(recommender: Any) -> tuple[Any, Any, Any]:
    """ids, (items, dim) and (users, dim) whose dot products are the model's scores. Raises ConfigError where there are none."""
    if not recommender.has_vectors or not recommender.model.interaction.factorised:
        kind = recommender.config.interaction.type if recommender.has_vectors else recommender.config.model.type
        raise ConfigError(
            Fault(
                "/interaction/type",
                f"'{kind}' gives no score that is a dot product of a user's and an item's vector, which an index needs.",
                "Use a factorised interaction, as dot or cosine.",
                "not factorised",
            )
        )
    with recommender._inference():
        items, users = (
            recommender._vectors(side, recommender._known_rows(side)).float().cpu().numpy().copy()
            for side in ("item", "user")
        )
    return recommender.dataset.ids("item"), items, users


def _options(options: list[str]) -> dict[str, Any]:
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


def _print(tried: list[tuple[Any, dict[str, float]]]) -> None:
    from rich.table import Table

    table = Table("index", *COLUMNS.values(), box=None, header_style="bold")
    for component, figures in tried:
        told = [str(value) for key, value in component.options().items() if key != "recall"]
        name = " ".join([component.type, *told])
        table.add_row(name, *(f"{figures[key]:,}" if key in figures else "" for key in COLUMNS))
    out.print(table)
