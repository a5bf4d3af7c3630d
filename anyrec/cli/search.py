"""The commands that search items: `search` and `similar`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from anyrec.cli.load import id_array, load
from anyrec.cli.options import (
    AsJson,
    Changes,
    ChangesPath,
    ImageRoot,
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Strict,
    TopK,
    Trust,
    Where,
    app,
    err,
    finite,
    log,
    read_object,
    wants_json,
    write,
)
from anyrec.cli.results import show_items


@app.command()
def search(
    text: Annotated[str | None, typer.Option("--text", help="Words that describe the items.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="An image file that the items should look like.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="A user id, or a user record as JSON, to personalise the results for.")
    ] = None,
    model_path: ModelPath = None,
    config: ChangesPath = None,
    overrides: Changes = [],
    top_k: TopK = 10,
    personal: Annotated[
        float, typer.Option(callback=finite, help="Weight of the user's preferences, from 0 to 1.")
    ] = 0.3,
    where: Where = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", "--exclude_seen", help="Leave out items that the user interacted with.")
    ] = False,
    space: Annotated[
        str,
        typer.Option(
            autocompletion=lambda: ["auto", "joint", "text", "image", "visual", "tower"],
            help="Vector space of the comparison: auto, joint, text, image, visual or tower (docs/search.md).",
        ),
    ] = "auto",
    as_json: AsJson = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    strict: Strict = None,
    image_root: ImageRoot = None,
) -> None:
    """Search items by a text, an image or both, with or without a user."""
    condition, space = None if where is None else read_object(where, "--where"), _present_space(space)
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, image_root, overrides)
    table = recommender.search(
        text=text,
        image=image,
        user=None if user is None else _user(recommender, user),
        k=top_k,
        space=space,
        where=condition,
        personal=personal,
        exclude_seen=exclude_seen,
        strict=strict,
    )
    _note_index(table)
    if wants_json(as_json):
        write(json.dumps(table.to_pylist(), indent=1, ensure_ascii=False), None)
        return
    if not len(table):
        err.print("no item is left after the filters.")
        return
    from anyrec.pipeline.item_search import searcher
    from anyrec.retrieval.semantic.queries import Query

    show_items(recommender, table, ", ".join(searcher(recommender.model).spaces_of(Query(text, image), space)))


@app.command()
def similar(
    item: Annotated[list[str], typer.Option("--item", help="An item id. Can be repeated.")],
    model_path: ModelPath = None,
    config: ChangesPath = None,
    overrides: Changes = [],
    top_k: TopK = 10,
    as_json: AsJson = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """List the items most similar to the given items."""
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, overrides=overrides)
    ids = id_array(recommender, "item", item, "--item")
    table = recommender.similar(ids, top_k)
    _note_index(table)
    if wants_json(as_json):
        write(json.dumps(table.to_pylist(), indent=1, ensure_ascii=False), None)
        return
    from anyrec.data.item_facts import title_of

    rows = recommender.model.rows_of("item", ids)
    for query, row in zip(ids.to_pylist(), rows, strict=True):
        like = table.filter(_equal(table.column("query_id"), query))
        show_items(recommender, like, f"like {title_of(recommender.dataset, int(row))} ({query})")


def _present_space(space: str) -> str:
    """Return the present name of a search space, and print a note if it was renamed."""
    from anyrec.core.renamed import noting_former_names, present_name

    with noting_former_names() as renamed:
        space = present_name("search space", space)
    for note in renamed:
        log.info(note)
    return space


def _note_index(table: Any) -> None:
    """Log the index that the items of a table were found by."""
    from anyrec.model.result_tables import index_of

    index = index_of(table)
    if index is not None:
        log.info("index: %s", " ".join(map(str, index.values())))


def _equal(column: Any, value: Any) -> Any:
    import pyarrow.compute as pc

    return pc.equal(column, value)


def _user(recommender: Any, given: str) -> Any:
    """Parse `--user`: a record if it is a JSON object, otherwise an id of the model's type."""
    if given.lstrip().startswith("{"):
        return read_object(given, "--user")
    return id_array(recommender, "user", [given], "--user")[0].as_py()
