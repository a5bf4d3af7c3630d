"""The command `init`: a config for data in the project's format, or for tables as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.options import ConfigPath, Overrides, app, err, log, write
from anyrec.cli.terminal import is_quiet
from anyrec.core.errors import Fault, InputError
from anyrec.core.secrets import keep_secrets, whole_address
from anyrec.core.strict_json import split_pair
from anyrec.core.types import JsonObject
from anyrec.data.presets.load_preset import load_preset, preset_names

if TYPE_CHECKING:
    from anyrec.core.config import Config
    from anyrec.core.registry import Registry
    from anyrec.data.infer.infer_sources import Inferred

PARTS = ("users", "items", "interactions")
STDIN = "-"
PASSWORDS = "docs/data-sources.md lists the variables and files that it is read from."
Places = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATA]...",
        help="Tables as they are: files, patterns, folders, addresses, or a database with all its tables or the "
        "results of --query. Or data in the format of docs/data-format.md. By default the tables of the config's "
        "data.sources.",
    ),
]
Users = Annotated[list[str], typer.Option("--users", metavar="TABLE", help="A table of users. Can be repeated.")]
Items = Annotated[list[str], typer.Option("--items", metavar="TABLE", help="A table of items. Can be repeated.")]
Interactions = Annotated[
    list[str], typer.Option("--interactions", metavar="TABLE", help="A table of interactions. Can be repeated.")
]
Queries = Annotated[
    list[str],
    typer.Option(
        "--query",
        metavar="PART=SQL",
        help='A query of the database DATA for users, items or interactions, for example items="select * from items". '
        "Can be repeated.",
    ),
]


@app.command()
def init(
    data: Places = None,
    users: Users = [],
    items: Items = [],
    interactions: Interactions = [],
    query: Queries = [],
    preset: Annotated[
        str | None, typer.Option("--preset", help=f"DATA is a folder of this data set: {', '.join(preset_names())}.")
    ] = None,
    config: ConfigPath = None,
    overrides: Overrides = [],
) -> None:
    """Print a config for the data: for tables as they are, what each column means; and settings that fit the data.

    What each column was taken for, and why, is printed to standard error. A meaning that begins with a question mark is
    for you to decide: edit that line. The data section of a given config is used to read the data, and kept.
    """
    from anyrec.core.load_config import load_config

    settings, _ = load_config(config, overrides)
    places = [keep_secrets(place) for place in data or []]
    if preset is not None:
        _print_preset(settings, preset, places)
        return
    users, items, interactions = ([keep_secrets(one) for one in named] for named in (users, items, interactions))
    forced = {"users": users, "items": items, "interactions": interactions}
    if not (places or query or any(forced.values())) or (len(places) == 1 and not query and _is_own_format(places[0])):
        _print_config(settings, Path(places[0]) if places else None)
        return
    from anyrec.core.discovery import discover
    from anyrec.data.infer.infer_sources import infer_sources, is_remote

    registry = discover(settings.plugins)
    tables, parts = _tables(places, forced, query, registry)
    remote = any(is_remote(table, registry) for table in tables)
    found = infer_sources(tables, registry, forced=parts, allow_urls=remote or settings.data.allow_urls)
    if remote:
        found.data["allow_urls"] = True
        found.lines.append("data.allow_urls is true, because you named an address.")
    if any(whole_address(one) != one for one in [*places, *users, *items, *interactions]):
        found.lines.append(f"The password of the address is not written down: {PASSWORDS}")
    for line in [] if is_quiet() else found.lines:
        err.print(line, markup=False, soft_wrap=True)
    _print_inferred(settings, found, _name(tables))


def _print_preset(settings: Config, name: str, places: list[str]) -> None:
    """Print a config that reads a published data set as it is."""
    from anyrec.data.infer.infer_sources import Inferred

    if len(places) != 1:
        what = f"--preset needs one folder as DATA; there are {len(places)}."
        raise InputError(Fault("--preset", what, "Name the folder with the unpacked files.", "option"))
    data, notes = load_preset(name, Path(places[0]))
    for note in notes:
        log.info(note)
    _print_inferred(settings, Inferred(data), Path(places[0]))


def _is_own_format(place: str) -> bool:
    """Return whether the data is in the project's format: a JSON or YAML document, or a folder of named parts."""
    if place == STDIN:
        return True
    path = Path(place)
    if path.is_dir():
        from anyrec.data.formats.containers import stem_and_kind
        from anyrec.data.formats.movielens import is_movielens
        from anyrec.data.formats.table_files import KINDS
        from anyrec.data.sources.log_files import is_event_log

        found = [stem_and_kind(one) for one in path.iterdir()]
        return is_movielens(path) or is_event_log(path) or any(stem in PARTS and kind in KINDS for stem, kind in found)
    if not path.is_file():
        return "://" not in place and not any(mark in place for mark in "*?[") and not path.suffix
    from anyrec.data.infer.documents import is_document

    return is_document(path)


def _tables(
    places: list[str], forced: dict[str, list[str]], queries: list[str], registry: Registry
) -> tuple[list[JsonObject], dict[str, str]]:
    """Return the tables as the config has them, and the part of those that the options name, by number.

    Raises:
        InputError: For queries that name no part, or without one database.
    """
    from anyrec.data.infer.infer_sources import tables_at, tables_within

    tables, parts = [], {}
    if queries:
        if len(places) != 1:
            what = f"--query needs one database as DATA; there are {len(places)}."
            raise InputError(Fault("--query", what, "Name the database file or its address.", "option"))
        for text in queries:
            part, sql = split_pair(text) or ("", "")
            if part not in PARTS:
                what = f"'{text:.60}' does not begin with users=, items= or interactions=."
                raise InputError(Fault("--query", what, 'Write it like items="select * from items".', "option"))
            parts[str(len(tables))] = part
            tables.append({"database": places[0], "query": sql})
    else:
        tables = [one for table in tables_at(places) for one in tables_within(table, registry)]
    for part, more in forced.items():
        for one in tables_at(more):
            same = [n for n, table in enumerate(tables) if table == one]
            parts[str(same[0] if same else len(tables))] = part
            tables += [] if same else [one]
    return tables, parts


def _name(tables: list[JsonObject]) -> Path:
    """Return the path after which the run is named."""
    first = tables[0].get("path") or tables[0].get("database") or "model"
    path = Path(str(first).split("://")[-1])
    return path if path.stem.isascii() and "*" not in path.stem else path.parent


def _print_config(settings: Config, data: Path | None) -> None:
    """Print a config for data in the project's format, or for the tables of a config."""
    from anyrec.cli.datasets import read_dataset
    from anyrec.data.suggest_config import suggest_config

    suggested, reasons = suggest_config(read_dataset(data, settings), data)
    given = settings.data.model_dump(mode="json", exclude_unset=True)
    if given:
        suggested["data"] = {**suggested.get("data", {}), **given}
    for reason in reasons:
        log.info(reason)
    write(json.dumps(suggested, indent=2), None)


def _print_inferred(settings: Config, found: Inferred, path: Path) -> None:
    """Print a config with inferred sources. Settings that fit the data are added if the data can be read already."""
    from anyrec.core.load_config import load_config
    from anyrec.data.dataset import Dataset
    from anyrec.data.suggest_config import suggest_config

    given = settings.data.model_dump(mode="json", exclude_unset=True)
    given.pop("sources", None)
    data = {**found.data, **given}
    for question in found.questions:
        err.print(f"please decide: {question}", markup=False, soft_wrap=True)
    if found.questions:
        write(json.dumps({"data": data}, indent=2, ensure_ascii=False), None)
        return
    try:
        dataset = Dataset.from_sources(load_config({"plugins": settings.plugins, "data": data})[0])
    except InputError:
        write(json.dumps({"data": data}, indent=2, ensure_ascii=False), None)
        raise
    suggested, reasons = suggest_config(dataset, path)
    for note in [*dataset.notes, *reasons]:
        log.info(note)
    suggested["data"] = {**suggested.get("data", {}), **data}
    write(json.dumps(suggested, indent=2, ensure_ascii=False), None)
