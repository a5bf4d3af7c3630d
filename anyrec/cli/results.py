"""Tables of results for people: lists, scores, explanations, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyrec.cli.terminal import err, log, out, print_tables
from anyrec.core.types import JsonObject

if TYPE_CHECKING:  # these load torch and Arrow, which the terminal's help does without
    import pyarrow as pa
    from rich.table import Table

    from anyrec.data.dataset import Dataset
    from anyrec.evaluation.slices import Slice
    from anyrec.recommender import Recommender

MOST_USERS, MOST_PAIRS = 20, 50
"""Users and scored pairs of a result that are printed."""


def show_result(recommender: Recommender, request: Dataset, result: JsonObject) -> None:
    """Print the lists and scores of a result document as tables; notes and warnings to standard error.

    Args:
        recommender: The model, which knows the titles of items.
        request: The request, which may have items of its own.
        result: A result document, without explanations.
    """
    for note in [*result["notes"], *result.get("warnings", [])]:
        log.info(note)
    for entry in result["users"][:MOST_USERS]:
        print_tables(_items_table(recommender, entry["recommendations"], f"user {entry['user_id']}", request))
    if len(result["users"]) > MOST_USERS:
        more = len(result["users"]) - MOST_USERS
        err.print(f"and the lists of {more:,} more users: --json prints all, and --output writes them.")
    scores = result["scores"]
    if scores:
        table = _table("scores of pairs", *scores[0])
        for pair in scores[:MOST_PAIRS]:
            table.add_row(*map(_cell, pair.values()))
        print_tables(table)
    if len(scores) > MOST_PAIRS:
        err.print(f"and {len(scores) - MOST_PAIRS:,} more pairs: --json prints all.")


def show_items(recommender: Recommender, table: pa.Table, caption: str) -> None:
    """Print a list of items with titles and categories.

    Args:
        recommender: The model that knows the items.
        table: `item_id`, `score` and `rank`.
        caption: Title of the table.
    """
    print_tables(_items_table(recommender, table.to_pylist(), caption))


def show_explained(result: JsonObject) -> None:
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


def show_metrics(metrics: Mapping[str, object]) -> None:
    """Print metrics, one in a line; those of an object with the object's name before theirs."""
    table = _table(None, "metric", "value")
    for name, value in metrics.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        for key, one in inner.items():
            table.add_row(f"{name} {key}".strip(), _cell(one))
    print_tables(table)


def show_slices(slices: Sequence[Slice], metric: str) -> None:
    """Print a table of groups for each kind of group, with the metrics at the cut-off of the main metric.

    Args:
        slices: The groups of one model.
        metric: The main metric, as `ndcg@10`.
    """
    cutoff = metric.split("@")[-1]
    for kind in dict.fromkeys(one.kind for one in slices):
        entries = [one.as_dict() for one in slices if one.kind == kind]
        shown = [next(iter(entry["metrics"].values())) for entry in entries]
        names = [name for name in dict.fromkeys(name for one in shown for name in one) if cutoff in name.split("@")]
        table = _table(kind, "", "users", "held-out items", *names)
        for entry, means in zip(entries, shown, strict=True):
            cells = [_cell(means[name]["mean"]) if name in means else "" for name in names]
            table.add_row(entry["name"], *map(_cell, (entry["users"], entry["held_out_items"])), *cells)
        print_tables(table)


def _items_table(
    recommender: Recommender, entries: list[JsonObject], caption: str, request: Dataset | None = None
) -> Table:
    """Return a table of `item_id`, `score` and `rank` of each entry, with the titles and categories of the items."""
    from anyrec.data.item_facts import category_feature, title_of

    dataset = recommender.dataset
    category = category_feature(dataset, recommender.config.evaluation.category)
    places = _places(dataset, [entry["item_id"] for entry in entries])
    new = {} if request is None else {one: row for row, one in enumerate(request.ids("item").to_pylist())}
    table = _table(caption, "rank", "item", "title", (category or "").split(".")[-1], "score")
    for entry in entries:
        name = entry["item_id"]
        about, title = "", str(name)
        if name in places:
            value = None if category is None else dataset.items.column(category)[places[name]].as_py()
            about = ", ".join(value) if isinstance(value, list) else str(value or "")
            title = title_of(dataset, places[name])
        elif request is not None and name in new:
            about, title = "new", title_of(request, new[name])
        table.add_row(str(entry["rank"]), str(name), title, about, f"{entry['score']:.3f}")
    return table


def _places(dataset: Dataset, items: list[Any]) -> dict[Any, int]:
    """Return the rows of the items that a dataset knows."""
    import pyarrow as pa

    from anyrec.data.ids import rows_of

    rows = rows_of(pa.array(items, dataset.ids("item").type), dataset.ids("item"))
    return {name: int(row) for name, row in zip(items, rows, strict=True) if row >= 0}


def _table(title: str | None, *columns: str) -> Table:
    """Return an empty table; columns of numbers are aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in ("rank", "score", "value") else "left")
    return table


def _cell(value: object) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _event(event: JsonObject) -> str:
    """Return one event of a trace as a text."""
    place = f" at {event['rank']}" if "rank" in event else ""
    before = f" from {event['before']}" if "before" in event else ""
    return f"{event['event']} {event['by']}{before}{place}"
