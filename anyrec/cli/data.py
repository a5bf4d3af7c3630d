"""Commands on data, configs and plugins; `synth` is in a file of its own.

Each command imports what it needs when it runs, so that `anyrec --help` loads neither Arrow nor torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.complete import component_names
from anyrec.cli.datasets import read_dataset
from anyrec.cli.options import (
    DEMO,
    ConfigPath,
    ImageRoot,
    Overrides,
    PluginFolders,
    app,
    err,
    log,
    out,
    print_tables,
    sizes,
    with_overrides,
    write,
)
from anyrec.core.errors import Fault, InputError, did_you_mean
from anyrec.core.outputs import check_output
from anyrec.data.presets.load_preset import load_preset, preset_names

if TYPE_CHECKING:
    from anyrec.core.config import Config
    from anyrec.core.registry import Plugin
    from anyrec.data.dataset import Dataset

MOVIELENS = "movielens"
"""The preset of all forms of MovieLens, which is read by code of its own."""

DataArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="The data: JSON, YAML, a folder of tables or of MovieLens, the log of a server, or - for JSON from "
        "standard input; by default the tables of the config's data.sources. Of several, later records replace earlier "
        "ones."
    ),
]


@app.command()
def validate(
    data: DataArgument = None,
    config: ConfigPath = None,
    image_root: ImageRoot = None,
    images: Annotated[bool, typer.Option(help="Open every image file as well.")] = True,
    overrides: Overrides = [],
) -> None:
    """Check data, and a config against them, and report every fault with its place and how to correct it."""
    from anyrec.core.errors import DataError
    from anyrec.core.load_config import load_config
    from anyrec.data.labels import check_weights

    settings, config_notes = load_config(config, with_overrides(overrides, image_root, None, None))
    dataset = read_dataset(data, settings)
    check_weights(dataset)
    if images:
        from anyrec.data.images import check_images

        faults, counts = check_images(dataset, settings.data)
        if faults and settings.data.strict:
            raise DataError(faults, counts)
        for kind, count in counts.items():
            first = next(fault for fault in faults if fault.kind == kind)
            log.warning(f"{count} of kind '{kind}', which count as absent; the first: {first}")
    from anyrec.core.discovery import discover
    from anyrec.data.checks.config_fits import unread_features

    registry = discover(settings.plugins)
    notes = [*dataset.notes, *unread_features(settings, registry, dataset)]
    if config is not None or overrides:
        from anyrec.cli.run import resolved

        notes += [*config_notes, *resolved(settings, registry, dataset).notes]
    for note in notes:
        log.info(note)
    out.print(f"valid: {sizes(dataset)}")


@app.command()
def describe(
    data: DataArgument = None,
    config: ConfigPath = None,
    overrides: Overrides = [],
) -> None:
    """Print counts of users, items and interactions, types, ratings and times, and how complete each feature is."""
    from anyrec.core.load_config import load_config
    from anyrec.data.describe import describe_dataset

    settings, _ = load_config(config, overrides)
    dataset = read_dataset(data, settings)
    for note in dataset.notes:
        log.info(note)
    out.print(describe_dataset(dataset))


@app.command()
def doctor(
    data: DataArgument = None,
    config: ConfigPath = None,
    image_root: ImageRoot = None,
    images: Annotated[bool, typer.Option(help="Compare the images as well.")] = True,
    overrides: Overrides = [],
) -> None:
    """Report oddities of the data: leaks, duplicates, drift, dead features, suspicious ids; and how to correct them."""
    from anyrec.core.load_config import load_config
    from anyrec.data.doctor.examine import examine
    from anyrec.data.interpretation import interpretation

    settings, _ = load_config(config, with_overrides(overrides, image_root, None, None))
    dataset = read_dataset(data, settings)
    for note in dataset.notes:
        log.info(note)
    plain = [one for one in interpretation(dataset, settings.data) if one.level == "note"]
    findings = [*examine(dataset, settings, images), *plain]
    for finding in findings:
        style = {"problem": "bold red", "warning": "yellow"}.get(finding.level)
        out.print(f"{finding.level}:", style=style, end=" ")
        out.print(f"{finding.text} {finding.advice}")
    if not any(finding.level != "note" for finding in findings):
        out.print("nothing to worry about.")


@app.command()
def plugins(
    name: Annotated[
        str | None,
        typer.Argument(
            autocompletion=component_names, help="A kind or a type, whose components are listed with their options."
        ),
    ] = None,
    folders: PluginFolders = [],
) -> None:
    """List every component, with its kind, what it reads and where it is from; with a name, the options as well."""
    from rich.table import Table

    from anyrec.core.discovery import discover

    registry = discover(folders, warn=False)
    found = [plugin for plugin in registry.plugins() if name in (None, plugin.kind, plugin.type)]
    if not found and name is not None:
        known = {one for plugin in registry.plugins() for one in (plugin.kind, plugin.type)}
        what = f"there is no component or kind '{name}'."
        raise InputError([Fault("plugins", what, did_you_mean(name, known), "option"), *registry.broken])
    table = Table("kind", "type", "reads", "from", "what it is", box=None, header_style="bold")
    for plugin in found:
        reads = plugin.group + (f" ({plugin.role})" if plugin.role else "")
        table.add_row(plugin.kind, plugin.type, reads, plugin.origin, plugin.doc)
    print_tables(table)
    if name is not None:
        for plugin in found:
            _print_options(plugin)
    if registry.broken:
        raise InputError(registry.broken)


def _print_options(plugin: Plugin) -> None:
    """Print the options of a component with their defaults. It is imported for that."""
    from rich.table import Table

    fields = plugin.load().Params.model_fields
    out.print(f"\nOptions of the {plugin.kind} {plugin.type}:" + ("" if fields else " none"), markup=False)
    table = Table("option", "default", "meaning", box=None, header_style="bold")
    for key, field in fields.items():
        value = field.get_default(call_default_factory=True)
        default = "required" if field.is_required() else json.dumps(value, default=str)
        table.add_row(key, default, field.description or "")
    if fields:
        print_tables(table)


@app.command()
def schema(
    which: Annotated[
        str, typer.Argument(autocompletion=lambda: ["config", "dataset", "result"], help="config, dataset or result.")
    ] = "config",
    folders: PluginFolders = [],
) -> None:
    """Print a JSON Schema: of the config with all plugins' parameters, of the dataset, or of results."""
    if which == "config":
        from anyrec.core.discovery import discover
        from anyrec.core.schema import config_schema

        write(json.dumps(config_schema(discover(folders)), indent=2), None)
    elif which in ("dataset", "result"):
        write((Path(__file__).parent.parent / "schemas" / f"{which}.schema.json").read_text().rstrip(), None)
    else:
        raise InputError(Fault("schema", f"there is no schema '{which}'.", "Use config, dataset or result.", "option"))


@app.command()
def convert(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET",
            autocompletion=lambda: [MOVIELENS, *preset_names()],
            help=f"The data set: {', '.join([MOVIELENS, *preset_names()])}.",
        ),
    ],
    source: Annotated[Path, typer.Argument(help="The folder with the unpacked files.")],
    destination: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    config: ConfigPath = None,
    overrides: Overrides = [],
) -> None:
    """Convert a published data set to the data format. `anyrec init --preset` writes a config that reads it as it is.

    The preset movielens reads what GroupLens packs (100K, 1M, 10M, 20M, 25M, 32M, latest), or a Parquet copy. Limits of
    the config's data section apply, for example --set data.max_users=1000.
    """
    from anyrec.core.load_config import load_config
    from anyrec.data.formats.movielens import convert_movielens, is_movielens

    if preset == MOVIELENS and not is_movielens(source):
        what, hint = "this folder holds no MovieLens.", "Give the folder with u.data, ratings.dat or ratings.csv."
        raise InputError(Fault(str(source), what, hint, "no data"))
    check_output(destination)
    settings, _ = load_config(config, overrides)
    if preset == MOVIELENS:
        dataset, notes = convert_movielens(source, destination, settings.data), []
    else:
        dataset, notes = _convert_by_preset(preset, source, destination, settings)
    for note in [*notes, *dataset.notes]:
        log.info(note)
    err.print(f"{sizes(dataset)} -> {destination}")


def _convert_by_preset(name: str, source: Path, destination: Path, settings: Config) -> tuple[Dataset, list[str]]:
    """Read a data set by a preset and write it. Options of the given config take precedence over the preset's."""
    from anyrec.core.load_config import load_config
    from anyrec.data.dataset import Dataset
    from anyrec.data.formats.write_json import write_json

    data, notes = load_preset(name, source)
    data |= settings.data.model_dump(mode="json", exclude_unset=True)
    dataset = Dataset.from_sources(load_config({"data": data})[0])
    write_json(dataset, destination)
    return dataset, notes


@app.command()
def demo(folder: Annotated[Path, typer.Option(help="Where the demo's files go.")] = DEMO) -> None:
    """Make multi-modal data, train on it, and recommend to new people."""
    from anyrec.cli.demo import run_demo

    run_demo(folder, out)
