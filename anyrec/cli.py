"""The command line: thin commands over the facade. No torch before a command needs it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from anyrec.errors import AnyrecError, Fault, InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
convert_app = typer.Typer(no_args_is_help=True)
app.add_typer(convert_app, name="convert", help="Write a known data set in anyrec's format.")
out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

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
TopK = Annotated[int, typer.Option("--top-k", "--top_k", min=1, help="Items to list for each user.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write to; by default standard output.")]
Trust = Annotated[
    bool, typer.Option("--trust-plugins", "--trust_plugins", help="Import modules that the model names by path.")
]


@app.command()
def train(
    data: DataPath,
    config: ConfigPath = None,
    overrides: Overrides = [],  # noqa: B006
    plugins: PluginFolders = [],  # noqa: B006
    image_root: ImageRoot = None,
    output: Annotated[
        Path | None, typer.Option("--output", "--output_dir", "--output-dir", help="Folder of run folders.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
) -> None:
    """Train a recommender, measure it, and save it."""
    from anyrec.load_config import load_config

    settings, notes = load_config(config, _overrides(overrides, image_root, output, seed))
    from anyrec.run import train_run

    train_run(settings, data, [str(folder) for folder in plugins], notes, resume, out)


@app.command()
def recommend(
    data: DataPath,
    model_path: ModelPath = None,
    config: ConfigPath = None,
    top_k: TopK = 10,
    output: Output = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    image_root: ImageRoot = None,
    plugins: PluginFolders = [],  # noqa: B006
    trust_plugins: Trust = False,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", "--include_seen", help="Also list items the user already has.")
    ] = False,
) -> None:
    """Top-K lists, embeddings and scores for the users and items of a file, as JSON (also: inference.py)."""
    recommender = _load(model_path, model_dir, model_name, config, plugins, trust_plugins)
    from anyrec.inference import infer, read_request

    if image_root is not None:
        recommender.config.data.image_root = str(image_root)
    result = infer(recommender, read_request(recommender, data), top_k, exclude_seen=not include_seen)
    _write(json.dumps(result, indent=1, ensure_ascii=False), output)


@app.command()
def embed(
    model_path: ModelPath = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Records to embed; by default all that the model knows.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for users.parquet and items.parquet.")] = Path(
        "embeddings"
    ),
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    trust_plugins: Trust = False,
) -> None:
    """Write user and item embeddings as Parquet."""
    import pyarrow.parquet as pq

    recommender = _load(model_path, model_dir, model_name, None, [], trust_plugins)
    from anyrec.inference import read_request

    request = None if data is None else read_request(recommender, data)
    output.mkdir(parents=True, exist_ok=True)
    for side, make in (("users", recommender.embed_users), ("items", recommender.embed_items)):
        table = make(request)
        pq.write_table(table, output / f"{side}.parquet")
        err.print(f"{len(table):,} {side} -> {output / side}.parquet")


@app.command()
def similar(
    item: Annotated[list[str], typer.Option("--item", help="An item's id; may be repeated.")],
    model_path: ModelPath = None,
    top_k: TopK = 10,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    trust_plugins: Trust = False,
) -> None:
    """The items most like the given ones."""
    recommender = _load(model_path, model_dir, model_name, None, [], trust_plugins)
    import pyarrow as pa

    kind = recommender.dataset.ids("item").type
    try:
        ids = pa.array(item).cast(kind)
    except pa.ArrowInvalid:
        raise InputError(Fault("--item", f"the ids of this model are {kind}.", "Give such an id.", "bad id")) from None
    _write(json.dumps(recommender.similar(ids, top_k).to_pylist(), indent=1), None)


@app.command()
def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "--data_path", "--data-path", help="The data it was trained on; not needed with --truth."
        ),
    ] = None,
    model_path: ModelPath = None,
    part: Annotated[str, typer.Option(help="validation or test.")] = "test",
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="Measure on this JSON instead: [[user, item, label], ...] or {user: [items]}."),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", help="With --truth {user: [items]}: JSON of the same shape, not to be ranked."),
    ] = None,
    classification: Annotated[
        bool, typer.Option("--classification", help="Accuracy, precision, recall, F1 and AUC of the held-out part.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which a pair is called positive; by default the best on validation."),
    ] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", "--skip_unknown", help="Leave out and count what --truth names unknown.")
    ] = False,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],  # noqa: B006
    trust_plugins: Trust = False,
) -> None:
    """Measure a saved model on the held-out part of the data it was trained on, or on a file of true pairs."""
    _check_evaluate(data, part, truth, exclude, classification, threshold, skip_unknown)
    recommender = _load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    if data is not None:
        from anyrec.run import read_data

        recommender = recommender.with_data(read_data(data, recommender.config))
    if truth is not None:
        from anyrec.evaluation.files import evaluate_file

        metrics = evaluate_file(recommender, truth, exclude, threshold=threshold, skip_unknown=skip_unknown)
    elif classification:
        from anyrec.evaluation.classification import classify

        metrics = classify(recommender, part, threshold)  # type: ignore[arg-type]
    else:
        metrics = recommender.evaluate(part)
    _write(json.dumps(metrics, indent=1), None)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders that `anyrec report` has measured.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare what was measured in different ways all the same.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Runs side by side: figures with intervals, paired differences to the best, and what was set otherwise."""
    from anyrec.evaluation import compare as comparing

    found = comparing.compare_runs(runs, force)
    for warning in found.warnings:
        err.print(f"warning: {warning}", markup=False)
    if as_json:
        _write(json.dumps(comparing.as_json(found), indent=1), None)
        return
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(*comparing.tables(found), sep="\n")


@app.command()
def init(data: Annotated[Path, typer.Argument(help="The data.")]) -> None:
    """Print a sensible config for the data."""
    from anyrec.data.read import read_dataset
    from anyrec.init import suggest_config

    config, reasons = suggest_config(read_dataset(data), data)
    for reason in reasons:
        err.print(reason)
    _write(json.dumps(config, indent=2), None)


@app.command()
def validate(
    data: Annotated[Path, typer.Argument(help="The data.")],
    config: ConfigPath = None,
    image_root: ImageRoot = None,
    images: Annotated[bool, typer.Option(help="Open every image file as well.")] = True,
) -> None:
    """Check data for every fault, and say each with where it is and how to mend it."""
    from anyrec.data.read import read_dataset
    from anyrec.errors import DataError
    from anyrec.load_config import load_config

    settings, _ = load_config(config, _overrides([], image_root, None, None))
    dataset = read_dataset(data, settings.data)
    if images:
        from anyrec.data.images import check_images

        faults, counts = check_images(dataset, settings.data)
        if faults and settings.data.strict:
            raise DataError(faults, counts)
        for kind, count in counts.items():
            first = next(fault for fault in faults if fault.kind == kind)
            err.print(f"warning: {count} of kind '{kind}', which count as absent; the first: {first}")
    for note in dataset.notes:
        err.print(f"note: {note}")
    out.print(
        f"valid: {len(dataset.users):,} users, {len(dataset.items):,} items, {len(dataset.interactions):,} interactions"
    )


@app.command()
def describe(data: Annotated[Path, typer.Argument(help="The data.")]) -> None:
    """Counts, features and how full they are."""
    from anyrec.data.read import read_dataset
    from anyrec.describe import describe_dataset

    out.print(describe_dataset(read_dataset(data)))


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="The data.")],
    config: ConfigPath = None,
    image_root: ImageRoot = None,
    images: Annotated[bool, typer.Option(help="Compare the images as well.")] = True,
) -> None:
    """Say what is odd in the data: leaks, duplicates, drift, dead features, suspicious ids; and what to do about it."""
    from anyrec.data.doctor import examine
    from anyrec.data.read import read_dataset
    from anyrec.load_config import load_config

    settings, _ = load_config(config, _overrides([], image_root, None, None))
    findings = examine(read_dataset(data, settings.data), settings, images)
    for finding in findings:
        style = {"problem": "bold red", "warning": "yellow"}.get(finding.level)
        out.print(f"{finding.level}:", style=style, end=" ")
        out.print(f"{finding.text} {finding.advice}", markup=False)
    if not any(finding.level != "note" for finding in findings):
        out.print("nothing to worry about.")


@app.command()
def report(
    data: DataPath,
    model_path: ModelPath = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; by default the run's own.")] = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],  # noqa: B006
    trust_plugins: Trust = False,
) -> None:
    """Measure a saved model beside its baselines and write report.md and report.html."""
    recommender = _load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    from anyrec.run import read_data, report_run
    from anyrec.storage import find_model

    place = output or find_model(model_path or Path(model_dir or "", model_name or "")).parent
    report_run(recommender.with_data(read_data(data, recommender.config)), place, out)


@app.command()
def plugins(folders: PluginFolders = []) -> None:  # noqa: B006
    """List every component, with its kind, what it reads and where it is from."""
    from rich.table import Table

    from anyrec.plugins import discover

    table = Table("kind", "type", "reads", "from", "what it is", box=None, header_style="bold")
    for plugin in discover(folders).plugins():
        reads = plugin.group + (f" ({plugin.role})" if plugin.role else "")
        table.add_row(plugin.kind, plugin.type, reads, plugin.origin, plugin.doc)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def schema(
    which: Annotated[str, typer.Argument(help="config, dataset or result.")] = "config",
    folders: PluginFolders = [],  # noqa: B006
) -> None:
    """Print a JSON Schema: of the config with all plugins' parameters, of the dataset, or of results."""
    if which == "config":
        from anyrec.plugins import discover
        from anyrec.schema import config_schema

        _write(json.dumps(config_schema(discover(folders)), indent=2), None)
    elif which in ("dataset", "result"):
        _write((Path(__file__).parent / "schemas" / f"{which}.schema.json").read_text().rstrip(), None)
    else:
        raise InputError(Fault("schema", f"there is no schema '{which}'.", "Use config, dataset or result.", "option"))


@app.command()
def synth(
    path: Annotated[Path, typer.Argument(help="The JSON file to write; images go beside it.")],
    users: Annotated[int, typer.Option(min=1)] = 1000,
    items: Annotated[int, typer.Option(min=1)] = 100,
    interactions: Annotated[int, typer.Option(min=1)] = 13600,
    seed: int = 0,
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of interactions that are random.")] = 0.1,
    preferences: Annotated[str, typer.Option(help="Planted preferences, by commas; 'all' or 'none'.")] = "all",
    images: Annotated[bool, typer.Option(help="Draw an image of each item.")] = True,
) -> None:
    """Make data with planted preferences, so that a right model is known in advance."""
    from anyrec.data.synth import PREFERENCES, generate
    from anyrec.errors import did_you_mean

    wanted = PREFERENCES if preferences == "all" else () if preferences == "none" else tuple(preferences.split(","))
    for name in wanted:
        if name not in PREFERENCES:
            raise InputError(
                Fault("--preferences", f"there is no preference '{name}'.", did_you_mean(name, PREFERENCES), "option")
            )
    world = generate(users=users, items=items, interactions=interactions, seed=seed, noise=noise, preferences=wanted)
    world.write(path, images=images)
    err.print(f"{users:,} users, {items:,} items, {len(world.dataset.interactions):,} interactions -> {path}")


@convert_app.command()
def movielens(
    source: Annotated[Path, typer.Argument(help="The unpacked folder.")],
    destination: Annotated[Path, typer.Argument(help="The JSON file to write.")],
) -> None:
    """MovieLens 100K or 1M, GroupLens's own files or a Parquet copy."""
    from anyrec.data.convert import convert_movielens, is_movielens

    if not is_movielens(source):
        raise InputError(
            Fault(
                str(source), "this folder holds no MovieLens.", "Give the folder with u.data or ratings.dat.", "no data"
            )
        )
    dataset = convert_movielens(source, destination)
    err.print(
        f"{len(dataset.users):,} users, {len(dataset.items):,} items, {len(dataset.interactions):,} interactions -> {destination}"
    )


@app.command()
def demo(folder: Annotated[Path, typer.Option(help="Where the demo's files go.")] = Path("demo")) -> None:
    """Make multi-modal data, train on it, and recommend to people never seen."""
    from anyrec.demo import run_demo

    run_demo(folder, out)


def _overrides(overrides: list[str], image_root: Path | None, output: Path | None, seed: int | None) -> list[str]:
    named = {"data.image_root": image_root, "output_dir": output, "seed": seed}
    return [
        *overrides,
        *(
            f"{key}={json.dumps(value if isinstance(value, int) else str(value))}"
            for key, value in named.items()
            if value is not None
        ),
    ]


def _check_evaluate(
    data: Path | None,
    part: str,
    truth: Path | None,
    exclude: Path | None,
    classification: bool,
    threshold: float | None,
    skip_unknown: bool,
) -> None:
    """Options of `evaluate` that do not go together, all of them told. Raises InputError."""
    checks = [
        (part not in ("validation", "test"), "--part", f"'{part}' is no part of the split.", "Use validation or test."),
        (data is None and truth is None, "--data", "there is nothing to measure on.", "Give --data, or --truth FILE."),
        (truth is None and exclude is not None, "--exclude", "it goes with --truth alone.", "Give --truth as well."),
        (truth is None and skip_unknown, "--skip-unknown", "it goes with --truth alone.", "Give --truth as well."),
        (
            truth is not None and classification,
            "--classification",
            "it is of the saved split, not of --truth.",
            "Leave it out: a file of labelled pairs is measured that way by itself.",
        ),
        (
            threshold is not None and truth is None and not classification,
            "--threshold",
            "ranking has no threshold.",
            "Give --classification, or --truth with labels.",
        ),
        (threshold is not None and not math.isfinite(threshold), "--threshold", "it is not a number.", "Give a score."),
    ]
    faults = [Fault(where, what, mend, "option") for wrong, where, what, mend in checks if wrong]
    if faults:
        raise InputError(faults)


def _load(
    model_path: Path | None,
    model_dir: Path | None,
    model_name: str | None,
    config: Path | None,
    plugins: list[Path],
    trust: bool,
) -> Any:
    if model_path is None:
        if model_dir is None:
            raise InputError(
                Fault(
                    "--model_path",
                    "no model was named.",
                    "Give --model_path, or --model_dir with --model_name.",
                    "option",
                )
            )
        model_path = model_dir / model_name if model_name else model_dir
    if config is not None:
        from anyrec.load_config import load_config

        load_config(config)  # the model carries its own config; one that is given is checked all the same
    from anyrec.recommender import Recommender

    return Recommender.load(model_path, trust_plugins=trust, plugins=[str(folder) for folder in plugins])


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text + "\n")
        return
    from anyrec.files import atomic_write

    with atomic_write(output) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _run(program: Callable[[], Any]) -> None:
    """Run, turning an error made on purpose into its message and exit code."""
    try:
        program()
    except AnyrecError as error:
        err.print(str(error), markup=False)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("stopped; `--resume` goes on from the last finished epoch.")
        raise SystemExit(1) from None


def main() -> None:
    _run(app)


def _alone(command: Callable[..., Any]) -> None:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command()(command)
    _run(single)


def train_main() -> None:
    """train.py"""
    _alone(train)


def inference_main() -> None:
    """inference.py"""
    _alone(recommend)


if __name__ == "__main__":
    main()
