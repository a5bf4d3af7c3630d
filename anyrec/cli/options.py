"""What the commands share: the application, its options, loading of a model and writing of a result."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.models import OptionInfo

from anyrec.cli.terminal import Application, Quiet, Verbose, WithDefault, console, err, log, out, print_tables
from anyrec.core.errors import Fault, InputError, checked_path
from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair
from anyrec.core.types import JsonObject
from anyrec.core.values import is_unicode
from anyrec.core.version import __version__

if TYPE_CHECKING:
    from anyrec.data.tables import Tables

__all__ = ["console", "err", "log", "out", "print_tables"]

CONFIGS = Path("configs")
"""Folder in which configs are found by name."""

DEMO = Path("demo")
"""Folder of the demo."""

app, synth_app = Application(), Application(cls=WithDefault)
app.add_typer(
    synth_app,
    name="synth",
    help="Generate data: with planted preferences (the default), or in the manner of an online shop.",
)


def _print_version(wanted: bool) -> None:
    """Print the version and end the process, for the option `--version`."""
    if wanted:
        out.print(f"anyrec {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]


@app.callback()
def common_options(
    ctx: typer.Context, version: Version = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """Train, evaluate and serve recommenders from users, items and interactions with any mix of features."""
    ctx.obj = {"verbose": verbose, "quiet": quiet}


def finite(value: float | None) -> float | None:
    """Check the value of an option: NaN and infinite numbers pass an option's bounds, but are errors here."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def check_arguments(arguments: Sequence[str]) -> None:
    """Check the texts of the command line.

    Raises:
        InputError: For arguments that are not UTF-8 (Python reads such bytes as half surrogates) or contain NUL.
    """
    faults = [
        Fault(
            f"argument {n}", f"{argument!r:.60} is not UTF-8 text.", "Write it, or rename the file, in UTF-8.", "text"
        )
        for n, argument in enumerate(arguments, 1)
        if "\0" in argument or not is_unicode(argument)
    ]
    if faults:
        raise InputError(faults)


def find_config(path: Path | None) -> Path | None:
    """Return the path that `--config` names, or else the file of that name in `configs/`, with or without ending."""
    if path is None or path.exists() or path.is_absolute():
        return path
    names = [CONFIGS / f"{path}{ending}" for ending in ("", ".json", ".yaml", ".yml")]
    return next((place for place in names if place.is_file()), path)


def config_option(help: str) -> OptionInfo:
    """Return the option `--config` with all of its names."""
    return typer.Option("--config", "--config_path", "--config-path", callback=find_config, metavar="FILE", help=help)


ConfigPath = Annotated[
    Path | None, config_option("The config, a JSON or YAML file: a path, or the name of a file in configs/.")
]
DataPath = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "--data_path",
        "--data-path",
        help="The data: a file (JSON, YAML), a folder of tables, or the log of a server; by default the tables of the "
        "config's data.sources. Can be repeated: later records replace earlier ones.",
    ),
]
ModelPath = Annotated[
    Path | None,
    typer.Option(
        "--model-path",
        "--model_path",
        metavar="PATH",
        help="The run's folder, the model's folder, or any file in them (models/NAME.pth is models/NAME); or "
        "hf://OWNER/NAME, with @REVISION if needed, for a model of the Hugging Face Hub.",
    ),
]
ModelDir = Annotated[
    Path | None,
    typer.Option("--model-dir", "--model_dir", metavar="FOLDER", help="Folder of run folders; by default `models`."),
]
ModelName = Annotated[
    str | None,
    typer.Option("--model-name", "--model_name", metavar="NAME", help="Name of the run in the folder --model-dir."),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a config value, for example fusion.type=gated. Can be repeated."
    ),
]
PluginFolders = Annotated[
    list[Path], typer.Option("--plugins", metavar="FOLDER", help="A folder of plugin files. Can be repeated.")
]
ChangesPath = Annotated[
    Path | None,
    config_option(
        "A config, a JSON or YAML file, whose pipeline, index and evaluation are used instead of the model's. It may "
        "repeat what the model was trained with."
    ),
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value that is read after training, for example index.type=exact. Can be repeated.",
    ),
]
ImageRoot = Annotated[
    Path | None,
    typer.Option("--image-root", "--image_root", help="Folder for relative image paths; by default the data file's."),
]
TopK = Annotated[
    int,
    typer.Option("--top-k", "--top_k", "--k", min=1, max=1_000_000_000, help="Number of items to list for each user."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        "--output-file",
        "--output_file",
        metavar="FILE",
        help="File to write; by default standard output.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        "--filters",
        metavar="JSON",
        help="A condition that items must meet, as JSON or the name of a JSON or YAML file (docs/rules.md), for "
        'example {"item.continuous.price": {"lt": 20}}.',
    ),
]
AsJson = Annotated[
    bool | None,
    typer.Option("--json/--table", help="Print JSON, or tables; by default tables on a terminal, and JSON elsewhere."),
]
ContextValues = Annotated[
    list[str],
    typer.Option(
        "--context", metavar="KEY=VALUE", help="A value that rules can read, for example country=fr. Can be repeated."
    ),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--lenient",
        help="Refuse a request with values that the model cannot read, or report them as notes; by default as "
        "data.strict in the config says.",
    ),
]
Now = Annotated[
    str | None,
    typer.Option("--now", help="Time of the request, for example 2026-11-21T12:00; by default the current time."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-plugins",
        "--trust_plugins",
        help="Allow the model to use what its config names outside its folder: plugins, modules, files and addresses "
        "(docs/security.md).",
    ),
]


def with_overrides(overrides: list[str], image_root: Path | None, output: Path | None, seed: int | None) -> list[str]:
    """Return the config overrides that the options mean, as `key=value` texts.

    Args:
        overrides: Values of `--set`. They come first, so that the other options take precedence.
        image_root: Value for `data.image_root`.
        output: Value for `output_dir`.
        seed: Value for `seed`.
    """
    named = {"data.image_root": image_root, "output_dir": output, "seed": seed}
    return [
        *overrides,
        *(
            f"{key}={json.dumps(value if isinstance(value, int) else str(value))}"
            for key, value in named.items()
            if value is not None
        ),
    ]


def read_context(values: list[str]) -> JsonObject:
    """Parse `key=value` pairs. A value is parsed as JSON if it is JSON, and is a text otherwise.

    Raises:
        InputError: For pairs without a key, repeated keys, and values that are NaN or infinite; all in one error.
    """
    found, faults = {}, []
    for text in values:
        pair = split_pair(text)
        if pair is None:
            faults.append(Fault("--context", f"'{text:.60}' is not key=value.", "Write it like country=fr.", "option"))
            continue
        key, value = pair
        if key in found:
            faults.append(Fault("--context", f"'{key:.60}' is given twice.", "Give a list: device=[1, 2].", "option"))
        try:
            found[key] = json_or_text(value)
        except UnusableJson:
            found[key] = value
        if not _is_finite(found[key]):
            faults.append(Fault("--context", f"the value of '{key:.60}' is not a finite number.", kind="option"))
    if faults:
        raise InputError(faults)
    return found


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, (int, float)) or math.isfinite(value)
    except OverflowError:
        return False


def read_moment(context: list[str], now: str | None) -> JsonObject:
    """Parse `--context` and `--now`.

    Returns:
        `context`, the values by name, and `now`, microseconds since 1970 or None: keyword arguments of `answer`.

    Raises:
        InputError: With the faults of both options.
    """
    moment, faults = {}, []
    for name, read in (("context", lambda: read_context(context)), ("now", lambda: read_now(now))):
        try:
            moment[name] = read()
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return moment


def read_now(text: str | None) -> int | None:
    """Parse an ISO 8601 time; UTC if it has no zone.

    Returns:
        Microseconds since 1970, or None for no text.

    Raises:
        InputError: If the text is not a time.
    """
    if text is None:
        return None
    from anyrec.data.formats.times import parse_time  # loads Arrow, which `--help` does not need

    moment = parse_time(text)
    if moment is None:
        raise InputError(Fault("--now", f"'{text:.60}' is not a time.", "Write it as 2026-11-21T12:00.", "option"))
    return moment


def read_object(text: str, option: str) -> JsonObject:
    """Return the JSON object that an option gives, or the file that it names.

    Raises:
        InputError: If it is neither.
    """
    if not text.lstrip().startswith("{") and text.endswith((".json", ".yaml", ".yml")):
        from anyrec.core.config_file import read_config_file

        return read_config_file(checked_path(text, option))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # thousands of digits are a ValueError
        raise InputError(Fault(option, f"this is not valid JSON: {error}.", kind="option")) from None
    if not isinstance(found, dict):
        raise InputError(Fault(option, "a JSON object was expected.", kind="option"))
    return found


def sizes(dataset: Tables) -> str:
    """Return the numbers of users, items and interactions as a text."""
    return f"{len(dataset.users):,} users, {len(dataset.items):,} items, {len(dataset.interactions):,} interactions"


def wants_json(as_json: bool | None) -> bool:
    """Return whether to print JSON: as `--json` and `--table` say, else if standard output is not a terminal."""
    return not sys.stdout.isatty() if as_json is None else as_json


def write(text: str, output: Path | None) -> None:
    """Write a text to a file, or to standard output if `output` is None.

    Raises:
        OutputError: If the file cannot be written.
    """
    if output is None:
        sys.stdout.write(text + "\n")
        return
    from anyrec.core.files import atomic_write

    with atomic_write(output) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
