"""What the commands share: the application, options, and how a model is loaded and a result written."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from anyrec.core.errors import Fault, InputError
from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair
from anyrec.core.values import is_unicode

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
convert_app = typer.Typer(no_args_is_help=True)
app.add_typer(convert_app, name="convert", help="Write a known data set in anyrec's format.")


def console(**options: Any) -> Console:
    """A console that prints texts as they are: brackets in data are no markup, and `:smile:` is no emoji."""
    return Console(highlight=False, markup=False, emoji=False, **options)


out, err = console(soft_wrap=True), console(stderr=True, soft_wrap=True)


def print_tables(*tables: Any, width: int = 160) -> None:
    """Print tables to standard output, as wide as the terminal, or `width` letters if it is none."""
    console(width=None if sys.stdout.isatty() else width).print(*tables, sep="\n")


def finite(value: float | None) -> float | None:
    """For options: refuses NaN and infinite numbers, which pass the bounds of an option."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises InputError for arguments that are not UTF-8 (half surrogates, as Python reads such bytes) or hold NUL."""
    faults = [
        Fault(
            f"argument {n}", f"{argument!r:.60} is not UTF-8 text.", "Write it, or rename the file, in UTF-8.", "text"
        )
        for n, argument in enumerate(arguments, 1)
        if "\0" in argument or not is_unicode(argument)
    ]
    if faults:
        raise InputError(faults)


ConfigPath = Annotated[
    Path | None, typer.Option("--config", "--config_path", "--config-path", help="The config, JSON.")
]
DataPath = Annotated[
    Path, typer.Option("--data", "--data_path", "--data-path", help="The data: a JSON file, or a folder.")
]
ModelPath = Annotated[
    Path | None,
    typer.Option("--model-path", "--model_path", help="The model's folder, or any file its training wrote."),
]
ModelDir = Annotated[
    Path | None, typer.Option("--model-dir", "--model_dir", help="Folder of run folders; with --model_name.")
]
ModelName = Annotated[str | None, typer.Option("--model-name", "--model_name", help="Name of the run in --model_dir.")]
Overrides = Annotated[list[str], typer.Option("--set", help="A config value, as fusion.type=gated; may be repeated.")]
PluginFolders = Annotated[list[Path], typer.Option("--plugins", help="A folder of drop-in plugins; may be repeated.")]
ImageRoot = Annotated[
    Path | None, typer.Option("--image-root", "--image_root", help="Folder that relative image paths start from.")
]
TopK = Annotated[int, typer.Option("--top-k", "--top_k", min=1, max=1_000_000_000, help="Items to list for each user.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write to; by default standard output.")]
ContextValues = Annotated[
    list[str],
    typer.Option("--context", help="A value of this moment that rules may read, as country=fr; may be repeated."),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--lenient",
        help="Refuse a request that holds what the model cannot read, or name it in the notes; by default as data.strict.",
    ),
]
Now = Annotated[str | None, typer.Option("--now", help="The moment, as 2026-11-21T12:00; by default this one.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-plugins",
        "--trust_plugins",
        help="Allow what the model names outside its folder: plugins, modules, files, addresses (docs/security.md).",
    ),
]


def with_overrides(overrides: list[str], image_root: Path | None, output: Path | None, seed: int | None) -> list[str]:
    named = {"data.image_root": image_root, "output_dir": output, "seed": seed}
    return [
        *overrides,
        *(
            f"{key}={json.dumps(value if isinstance(value, int) else str(value))}"
            for key, value in named.items()
            if value is not None
        ),
    ]


def read_context(values: list[str]) -> dict[str, Any]:
    """Read key=value pairs, each value as JSON if it is JSON, else as it stands.

    Raises:
        InputError: with every pair that has no key, names a key again, or holds NaN or an infinite number.
    """
    found, faults = {}, []
    for text in values:
        pair = split_pair(text)
        if pair is None:
            faults.append(Fault("--context", f"'{text:.60}' is not key=value.", "Write country=fr, say.", "option"))
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


def read_moment(context: list[str], now: str | None) -> dict[str, Any]:
    """Read `--context` and `--now`. Raises InputError with the faults of both."""
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
    """Microseconds since 1970 of an ISO 8601 time, which is UTC unless it says otherwise. Raises InputError for anything else."""
    if text is None:
        return None
    from anyrec.data.formats.times import parse_time  # loads Arrow, which `--help` does not need

    moment = parse_time(text)
    if moment is None:
        raise InputError(Fault("--now", f"'{text:.60}' is not a time.", "Write it as 2026-11-21T12:00.", "option"))
    return moment


def model_place(model_path: Path | None, model_dir: Path | None, model_name: str | None) -> Path:
    """The path that names the model. Raises InputError if none does."""
    if model_path is not None:
        return model_path
    if model_dir is None:
        what = "no model was named."
        raise InputError(Fault("--model_path", what, "Give --model_path, or --model_dir with --model_name.", "option"))
    return model_dir / model_name if model_name else model_dir


def load(
    model_path: Path | None,
    model_dir: Path | None,
    model_name: str | None,
    config: Path | None,
    plugins: list[Path],
    trust: bool,
    image_root: Path | None = None,
) -> Any:
    """The model that the options name; what was left out of it is printed."""
    model_path = model_place(model_path, model_dir, model_name)
    if config is not None:
        from anyrec.core.load_config import load_config

        load_config(
            config, plugins=plugins
        )  # the model carries its own config; one that is given is checked all the same
    from anyrec.recommender import Recommender

    recommender = Recommender.load(model_path, trust_plugins=trust, plugins=plugins, image_root=image_root)
    for note in recommender.notes:
        err.print(f"note: {note}", markup=False)
    return recommender


def write(text: str, output: Path | None) -> None:
    """Write text to a file, or to standard output. Raises OutputError if the file cannot be written."""
    if output is None:
        sys.stdout.write(text + "\n")
        return
    from anyrec.core.files import atomic_write

    with atomic_write(output) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
