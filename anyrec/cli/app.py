"""The commands that train, evaluate and apply a model, and the entry points of the command line.

Commands on data, configs and plugins are in `data.py`, item search in `search.py`, indexes in `index.py`, shared options in
`options.py`. Each command is a thin layer over the facade. Torch is imported by the commands that need it, not at start-up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from anyrec.cli import data as cli_data  # noqa: F401  their commands join the application
from anyrec.cli import index as cli_retrieval  # noqa: F401  their commands join the application
from anyrec.cli import search as cli_search
from anyrec.cli.options import (
    ConfigPath,
    ContextValues,
    DataPath,
    ImageRoot,
    ModelDir,
    ModelName,
    ModelPath,
    Now,
    Output,
    Overrides,
    PluginFolders,
    Strict,
    TopK,
    Trust,
    app,
    err,
    load,
    log,
    model_place,
    out,
    print_tables,
    read_moment,
    with_overrides,
    write,
)
from anyrec.cli.process import run_command as _run
from anyrec.cli.terminal import Application, ResultsOnly, is_quiet
from anyrec.core.errors import Fault, InputError
from anyrec.core.outputs import check_output
from anyrec.evaluation import sampled


@app.command()
def train(
    data: DataPath,
    config: ConfigPath = None,
    overrides: Overrides = [],
    plugins: PluginFolders = [],
    image_root: ImageRoot = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--output_dir", "--output-dir", help="Folder for run folders; by default `models`."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of this run.")] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            "--print_config",
            help="Print the complete config for this data and exit without training.",
        ),
    ] = False,
) -> None:
    """Train a recommender, save it, evaluate it and write a report.

    Config keys that are not set are chosen to fit the data.
    """
    from anyrec.core.load_config import load_config

    folders = [str(folder) for folder in plugins]
    settings, notes = load_config(config, with_overrides(overrides, image_root, output, seed), plugins=folders)
    from anyrec.cli.run import RunInputs, complete_config, train_run

    inputs = RunInputs(settings, data, folders, notes, resume)
    if print_config:
        complete, reasons = complete_config(inputs)
        for line in [] if is_quiet() else [*notes, *reasons]:
            err.print(f"config: {line}", markup=False)
        write(json.dumps(complete.model_dump(mode="json"), indent=2, ensure_ascii=False), None)
        return
    train_run(inputs, ResultsOnly() if is_quiet() else out)


@app.command()
def recommend(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "--data_path",
            "--data-path",
            help="The request: a JSON, JSON Lines, CSV or Parquet file, or a folder of them.",
        ),
    ] = None,
    model_path: ModelPath = None,
    config: ConfigPath = None,
    top_k: TopK = 10,
    output: Output = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    image_root: ImageRoot = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    include_seen: Annotated[
        bool,
        typer.Option("--include-seen", "--include_seen", help="Also list items that the user interacted with before."),
    ] = False,
    everyone: Annotated[
        bool, typer.Option("--all", help="List items for every known user, and write them to --output.")
    ] = False,
    context: ContextValues = [],
    now: Now = None,
    trace: Annotated[bool, typer.Option("--trace", help="Report what each stage and rule did with each item.")] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Print the lists with the reasons for each item. The JSON result is written only to --output.",
        ),
    ] = False,
    strict: Strict = None,
) -> None:
    """Write top-K lists, embeddings and scores for the users and items of a request.

    The result is a JSON document. If --output ends in .csv, .parquet or .jsonl, it is a table of the lists. `inference.py` is
    the same command.
    """
    _check_recommend(data, everyone, output, trace or explain)
    if output is not None:
        from anyrec.serving.list_files import check_result_ending

        check_output(output)
        check_result_ending(output)
    moment = read_moment(context, now)
    recommender = load(model_path, model_dir, model_name, config, plugins, trust_plugins, image_root)
    if everyone and output is not None:
        from anyrec.serving.batch import write_lists

        done = write_lists(recommender, output, top_k, exclude_seen=not include_seen, **moment)
        for warning in done["warnings"]:
            log.warning(warning)
        spent = ", ".join(f"{stage} {value / 1000:.1f} s" for stage, value in done["latency_ms"].items())
        err.print(f"{done['users']:,} users, {done['rows']:,} rows -> {output} ({spent})", markup=False)
        return
    from anyrec.serving.result import infer, read_request

    if image_root is not None:
        recommender = recommender.with_image_root(image_root)
    assert data is not None
    request = read_request(recommender, data)
    staged = explain and recommender.pipeline is not None
    result = infer(
        recommender, request, top_k, exclude_seen=not include_seen, trace=trace or staged, strict=strict, **moment
    )
    if explain:
        from anyrec.serving.explain import explain_result

        explain_result(recommender, request, result)
        cli_search.show_explained(result)
        if output is None:
            return
    from anyrec.serving.list_files import TABLES, write_table

    if output is not None and output.suffix.lower() in TABLES:
        from anyrec.serving.result import lists_of

        for note in [*result["notes"], *result.get("warnings", [])]:
            log.info(note)
        write_table(lists_of(recommender, request, result), output)
        return
    write(json.dumps(result, indent=1, ensure_ascii=False), output)


@app.command()
def embed(
    model_path: ModelPath = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Records to embed; by default all users and items of the model.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write users.parquet and items.parquet to.")
    ] = Path("embeddings"),
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    trust_plugins: Trust = False,
    strict: Strict = None,
) -> None:
    """Write user and item embeddings as Parquet files. Both files carry the model's id in their metadata."""
    check_output(output, "inside")
    import pyarrow.parquet as pq

    from anyrec.core.files import atomic_files

    recommender = load(model_path, model_dir, model_name, None, [], trust_plugins)
    from anyrec.serving.result import read_request

    request = None if data is None else read_request(recommender, data)
    tables = {
        "users": recommender.embed_users(request, strict=strict),
        "items": recommender.embed_items(request, strict=strict),
    }
    with atomic_files(output, "embeddings") as new:
        for side, table in tables.items():
            pq.write_table(
                table.replace_schema_metadata({"model": recommender.model.model_id}), new / f"{side}.parquet"
            )
    for side, table in tables.items():
        err.print(f"{len(table):,} {side} -> {output / side}.parquet")


@app.command()
def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "--data_path",
            "--data-path",
            help="The data that the model was trained on; not needed with --truth.",
        ),
    ] = None,
    model_path: ModelPath = None,
    part: Annotated[str, typer.Option(help="Part of the split to evaluate: validation or test.")] = "test",
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", help="Evaluate on this JSON file instead: [[user, item, label], ...] or {user: [items]}."
        ),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(
            "--exclude",
            help="For --truth {user: [items]}: a JSON file of the same form, with items that are not ranked.",
        ),
    ] = None,
    classification: Annotated[
        bool,
        typer.Option("--classification", help="Report accuracy, precision, recall, F1 and AUC of the held-out part."),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score from which a pair counts as positive; by default the one with the best F1 on the validation part."
        ),
    ] = None,
    skip_unknown: Annotated[
        bool,
        typer.Option("--skip-unknown", "--skip_unknown", help="Leave out unknown ids of --truth and report how many."),
    ] = False,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Evaluate a saved model on the held-out part of its data, or on a file of true pairs."""
    _check_evaluate(data, part, truth, exclude, classification, threshold, skip_unknown)
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    if data is not None:
        from anyrec.cli.run import read_data

        recommender = recommender.with_data(read_data(data, recommender.config))
    if truth is not None:
        from anyrec.evaluation.truth_files import evaluate_file

        metrics = evaluate_file(recommender.model, truth, exclude, threshold=threshold, skip_unknown=skip_unknown)
    elif classification:
        from anyrec.evaluation.classification import classify

        metrics = classify(recommender.model, part, threshold)  # type: ignore[arg-type]
    else:
        metrics = measure_part(recommender, part)
    samples = recommender.config.evaluation.candidate_samples
    if not classification and samples is not None:
        err.print(sampled(samples))
    write(json.dumps(metrics, indent=1), None)


def measure_part(recommender: Any, part: Any) -> dict[str, float]:
    """Return the metrics of a part of the split, and log the notes that belong to them."""
    from anyrec.evaluation.repeats import repeat_notes

    if part == "validation" and recommender.model.refitted:
        log.info(
            "training.refit has trained this model on the validation part; these metrics were measured before that."
        )
        return recommender.evaluate(part)
    for note in repeat_notes(recommender.model, part):
        log.info(note)
    return recommender.evaluate(part)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with a report.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs even if they were measured in different ways.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare runs: metrics with confidence intervals, paired differences to the best run, and differing settings."""
    from anyrec.report import compare as comparing

    found = comparing.compare_runs(runs, force)
    for warning in found.warnings:
        log.warning(warning)
    if as_json:
        write(json.dumps(comparing.as_json(found), indent=1), None)
        return
    print_tables(*comparing.tables(found), width=200)


@app.command()
def report(
    data: DataPath,
    model_path: ModelPath = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; by default the run's folder.")
    ] = None,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
) -> None:
    """Evaluate a saved model and the classical models on the same split, and write report.md and report.html."""
    from anyrec.storage.model_directory import find_model

    place = output or find_model(model_place(model_path, model_dir, model_name)).parent
    check_output(place, "inside")
    recommender = load(model_path, model_dir, model_name, None, plugins, trust_plugins)
    from anyrec.cli.run import read_data, report_run

    report_run(recommender.with_data(read_data(data, recommender.config)), place, out)


def _check_recommend(data: Path | None, everyone: bool, output: Path | None, trace: bool) -> None:
    """Check combinations of options of `recommend`. Raises InputError with all that do not go together."""
    checks = [
        (data is None and not everyone, "--data", "there is no request.", "Give --data, or --all for all known users."),
        (data is not None and everyone, "--data", "it cannot be combined with --all.", "Remove one of the two."),
        (
            everyone and output is None,
            "--output",
            "lists of all users are written to a file.",
            "Give --output lists.parquet.",
        ),
        (
            everyone and trace,
            "--trace, --explain",
            "it cannot be combined with --all.",
            "Request single users with --data.",
        ),
    ]
    faults = [Fault(where, what, hint, "option") for wrong, where, what, hint in checks if wrong]
    if faults:
        raise InputError(faults)
    if everyone and output is not None:
        from anyrec.serving.list_files import check_ending

        check_ending(output)


def _check_evaluate(
    data: Path | None,
    part: str,
    truth: Path | None,
    exclude: Path | None,
    classification: bool,
    threshold: float | None,
    skip_unknown: bool,
) -> None:
    """Check combinations of options of `evaluate`. Raises InputError with all that do not go together."""
    checks = [
        (
            part not in ("validation", "test"),
            "--part",
            f"'{part}' is not a part of the split.",
            "Use validation or test.",
        ),
        (data is None and truth is None, "--data", "there is nothing to evaluate on.", "Give --data, or --truth FILE."),
        (truth is None and exclude is not None, "--exclude", "it needs --truth.", "Give --truth as well."),
        (truth is None and skip_unknown, "--skip-unknown", "it needs --truth.", "Give --truth as well."),
        (
            truth is not None and classification,
            "--classification",
            "it is for the saved split, not for --truth.",
            "Leave it out: a file of labelled pairs is measured that way by itself.",
        ),
        (
            threshold is not None and truth is None and not classification,
            "--threshold",
            "ranking has no threshold.",
            "Give --classification, or --truth with labels.",
        ),
        (
            threshold is not None and not math.isfinite(threshold),
            "--threshold",
            "it is not a finite number.",
            "Give a score.",
        ),
    ]
    faults = [Fault(where, what, hint, "option") for wrong, where, what, hint in checks if wrong]
    if faults:
        raise InputError(faults)


def main() -> None:
    """Run the command line `anyrec`."""
    _run(app)


def train_main() -> None:
    """Run `train.py`: the command `train` alone."""
    _run_alone(train)


def inference_main() -> None:
    """Run `inference.py`: the command `recommend` alone."""
    _run_alone(recommend)


def _run_alone(command: Callable[..., Any]) -> None:
    """Run one command as a program of its own."""
    single = Application(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    single.command()(command)
    _run(single)


if __name__ == "__main__":
    main()
