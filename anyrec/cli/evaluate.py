"""The commands `evaluate`, `compare` and `report`, which measure saved models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from anyrec.cli.load import load, model_place
from anyrec.cli.options import (
    AsJson,
    Changes,
    ChangesPath,
    DataPath,
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Trust,
    app,
    log,
    out,
    print_tables,
    wants_json,
    write,
)
from anyrec.cli.results import show_metrics, show_slices
from anyrec.core.errors import Fault, InputError
from anyrec.core.outputs import check_output
from anyrec.evaluation import sampled

if TYPE_CHECKING:  # these load torch, which the terminal's help does without
    from anyrec.data.split import Part
    from anyrec.evaluation.slices import Slice
    from anyrec.recommender import Recommender

TrainingPath = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "--data_path",
        "--data-path",
        help="The data that the model was trained on; by default the tables of its data.sources. Not needed with "
        "--truth.",
    ),
]
EvaluatedPart = Annotated[
    str,
    typer.Option(
        autocompletion=lambda: ["validation", "test"], help="Part of the split to evaluate: validation or test."
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option("--truth", help="Evaluate on this JSON file instead: [[user, item, label], ...] or {user: [items]}."),
]
Exclude = Annotated[
    Path | None,
    typer.Option(
        "--exclude", help="For --truth {user: [items]}: a JSON file of the same form, with items that are not ranked."
    ),
]
Classified = Annotated[
    bool,
    typer.Option("--classification", help="Report accuracy, precision, recall, F1 and AUC of the held-out part."),
]
Slices = Annotated[
    bool,
    typer.Option(
        "--slices", help="Also report all metrics by groups of users and items, such as those unseen in training."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Score from which a pair counts as positive; by default the one with the best F1 on the validation part."
    ),
]
SkipUnknown = Annotated[
    bool,
    typer.Option("--skip-unknown", "--skip_unknown", help="Leave out unknown ids of --truth and report how many."),
]


@app.command()
def evaluate(
    data: TrainingPath = [],
    model_path: ModelPath = None,
    config: ChangesPath = None,
    overrides: Changes = [],
    part: EvaluatedPart = "test",
    truth: Truth = None,
    exclude: Exclude = None,
    classification: Classified = False,
    threshold: Threshold = None,
    slices: Slices = False,
    skip_unknown: SkipUnknown = False,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    as_json: AsJson = None,
) -> None:
    """Evaluate a saved model on the held-out part of its data, or on a file of true pairs."""
    _check_evaluate(part, truth, exclude, classification, threshold, slices, skip_unknown)
    recommender = load(
        model_path,
        model_dir,
        model_name,
        config,
        plugins,
        trust_plugins,
        overrides=overrides,
        data=data,
        with_data=bool(data) or truth is None,
    )
    groups: list[Slice] = []
    if truth is not None:
        from anyrec.evaluation.truth_files import evaluate_file

        metrics = evaluate_file(recommender.model, truth, exclude, threshold=threshold, skip_unknown=skip_unknown)
    elif classification:
        from anyrec.evaluation.classification import classify

        metrics = classify(recommender.model, cast("Part", part), threshold)
    else:
        metrics = measure_part(recommender, cast("Part", part))
        if recommender.model.heads and not (part == "validation" and recommender.model.refitted):
            metrics = {**metrics, "heads": recommender.evaluate_heads(cast("Part", part))}
        if slices:
            groups = recommender.evaluate_slices(cast("Part", part))
    samples = recommender.config.evaluation.candidate_samples
    if not classification and samples is not None:
        log.warning(sampled(samples))
    if wants_json(as_json):
        found = {**metrics, "slices": [one.as_dict() for one in groups]} if slices else metrics
        write(json.dumps(found, indent=1), None)
        return
    show_metrics(metrics)
    if slices:
        from anyrec.evaluation.repeats import main_metric

        show_slices(groups, main_metric(recommender.model))


def measure_part(recommender: Recommender, part: Part) -> dict[str, float]:
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
    as_json: AsJson = None,
) -> None:
    """Compare runs: metrics with confidence intervals, paired differences to the best run, and differing settings."""
    from anyrec.report import compare as comparing

    found = comparing.compare_runs(runs, force)
    for warning in found.warnings:
        log.warning(warning)
    if wants_json(as_json):
        write(json.dumps(comparing.as_json(found), indent=1), None)
        return
    print_tables(*comparing.tables(found), width=200)


@app.command()
def report(
    data: DataPath = [],
    model_path: ModelPath = None,
    config: ChangesPath = None,
    overrides: Changes = [],
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
    recommender = load(
        model_path,
        model_dir,
        model_name,
        config,
        plugins,
        trust_plugins,
        overrides=overrides,
        data=data,
        with_data=True,
    )
    from anyrec.cli.run import report_run

    report_run(recommender, place, out)


def _check_evaluate(
    part: str,
    truth: Path | None,
    exclude: Path | None,
    classification: bool,
    threshold: float | None,
    slices: bool,
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
        (truth is None and exclude is not None, "--exclude", "it needs --truth.", "Give --truth as well."),
        (truth is None and skip_unknown, "--skip-unknown", "it needs --truth.", "Give --truth as well."),
        (
            truth is not None and classification,
            "--classification",
            "it is for the saved split, not for --truth.",
            "Leave it out: a file of labelled pairs is measured that way by itself.",
        ),
        (
            slices and (truth is not None or classification),
            "--slices",
            "it is for the ranking of the saved split.",
            "Leave out --truth and --classification.",
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
