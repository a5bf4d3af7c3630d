"""The commands that search items: `search` and `similar`; and printing of explained lists."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from anyrec.cli.options import (
    ImageRoot,
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Strict,
    TopK,
    Trust,
    app,
    err,
    finite,
    load,
    out,
    print_tables,
    write,
)
from anyrec.core.errors import Fault, InputError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def search(
    text: Annotated[str | None, typer.Option("--text", help="Words that describe the items.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="An image file that the items should look like.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="A user id, or a user record as JSON, to personalise the results for.")
    ] = None,
    model_path: ModelPath = None,
    top_k: TopK = 10,
    personal: Annotated[
        float, typer.Option(callback=finite, help="Weight of the user's preferences, from 0 to 1.")
    ] = 0.3,
    where: Annotated[
        str | None, typer.Option("--where", help="A condition that items must meet, as JSON (docs/rules.md).")
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", "--exclude_seen", help="Leave out items that the user interacted with.")
    ] = False,
    space: Annotated[
        str,
        typer.Option(
            help="Vector space of the comparison: auto, joint, text, image, visual or tower (docs/search.md)."
        ),
    ] = "auto",
    as_json: AsJson = False,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    strict: Strict = None,
    image_root: ImageRoot = None,
) -> None:
    """Search items by a text, an image or both, with or without a user."""
    from anyrec.core.renamed import noting_former_names, present_name

    condition = None if where is None else _json(where, "--where")
    with noting_former_names() as renamed:
        space = present_name("search space", space)
    for note in renamed:
        err.print(f"note: {note}", markup=False)
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins, image_root)
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
    if as_json:
        write(json.dumps(table.to_pylist(), indent=1, ensure_ascii=False), None)
        return
    if not len(table):
        err.print("no item is left after the filters.")
        return
    from anyrec.pipeline.item_search import searcher
    from anyrec.retrieval.semantic.queries import Query

    _show(recommender, table, ", ".join(searcher(recommender.model).spaces_of(Query(text, image), space)))


@app.command()
def similar(
    item: Annotated[list[str], typer.Option("--item", help="An item id. Can be repeated.")],
    model_path: ModelPath = None,
    top_k: TopK = 10,
    as_json: AsJson = False,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    trust_plugins: Trust = False,
) -> None:
    """List the items most similar to the given items."""
    recommender = load(model_path, model_dir, model_name, None, [], trust_plugins)
    ids = _ids(recommender, "item", item, "--item")
    table = recommender.similar(ids, top_k)
    if as_json:
        write(json.dumps(table.to_pylist(), indent=1), None)
        return
    from anyrec.data.item_facts import title_of

    rows = recommender.model.rows_of("item", ids)
    for query, row in zip(ids.to_pylist(), rows, strict=True):
        like = table.filter(_equal(table.column("query_id"), query))
        _show(recommender, like, f"like {title_of(recommender.dataset, int(row))} ({query})")


def show_explained(result: dict[str, Any]) -> None:
    """Print lists with their explanations.

    Args:
        result: A result document to which `explain_result` has added the explanations.
    """
    for entry in result["users"]:
        out.print(f"{entry['user_id']}", markup=False, style="bold")
        events: dict[Any, list[str]] = {}
        for event in entry.get("trace", []):
            events.setdefault(event["item_id"], []).append(_event(event))
        for one in entry["recommendations"]:
            reasons = one["explanation"]
            out.print(f"{one['rank']:>4}  {reasons['title']} ({one['item_id']}, {one['score']:.3f})", markup=False)
            out.print(f"      {reasons['sentence']}", markup=False)
            if one["item_id"] in events:
                out.print("      " + "; ".join(events[one["item_id"]]), markup=False)


def _event(event: dict[str, Any]) -> str:
    """Return one event of a trace as a text."""
    place = f" at {event['rank']}" if "rank" in event else ""
    before = f" from {event['before']}" if "before" in event else ""
    return f"{event['event']} {event['by']}{before}{place}"


def _equal(column: Any, value: Any) -> Any:
    import pyarrow.compute as pc

    return pc.equal(column, value)


def _show(recommender: Any, table: Any, caption: str) -> None:
    """Print a table of items with titles and categories.

    Args:
        recommender: The model that knows the items.
        table: `item_id`, `score` and `rank`.
        caption: Title of the table.
    """
    from rich import box
    from rich.table import Table

    from anyrec.data.item_facts import category_feature, title_of

    dataset = recommender.dataset
    category = category_feature(dataset, recommender.config.evaluation.category)
    shown = Table(box=box.SIMPLE, title=caption, title_justify="left")
    for name, justify in (("rank", "right"), ("item", "left"), ("title", "left"), ("", "left"), ("score", "right")):
        shown.add_column(name if name else (category or "").split(".")[-1], justify=justify)  # type: ignore[arg-type]
    rows = recommender.model.rows_of("item", table.column("item_id"))
    for entry, row in zip(table.to_pylist(), rows.tolist(), strict=True):
        value = None if category is None else dataset.items.column(category)[row].as_py()
        about = ", ".join(value) if isinstance(value, list) else str(value or "")
        title = title_of(dataset, row)
        cells = (str(entry["rank"]), str(entry["item_id"]), title, about, f"{entry['score']:.3f}")
        shown.add_row(*cells)
    print_tables(shown)


def _user(recommender: Any, given: str) -> Any:
    """Parse `--user`: a record if it is a JSON object, otherwise an id of the model's type."""
    if given.lstrip().startswith("{"):
        return _json(given, "--user")
    return _ids(recommender, "user", [given], "--user")[0].as_py()


def _ids(recommender: Any, side: str, given: list[str], option: str) -> Any:
    import pyarrow as pa

    kind = recommender.dataset.ids(side).type
    try:
        return pa.array(given).cast(kind)
    except pa.ArrowInvalid:
        raise InputError(
            Fault(option, f"the ids of this model are {kind}.", "Give an id of this type.", "bad id")
        ) from None


def _json(text: str, option: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # thousands of digits are a ValueError
        raise InputError(Fault(option, f"this is not valid JSON: {error}.", kind="option")) from None
    if not isinstance(found, dict):
        raise InputError(Fault(option, "a JSON object was expected.", kind="option"))
    return found
