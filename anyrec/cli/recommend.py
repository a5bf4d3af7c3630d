"""The commands `recommend` and `embed`, which apply a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.load import id_array, load, read_cluster
from anyrec.cli.options import (
    AsJson,
    Changes,
    ChangesPath,
    ContextValues,
    ImageRoot,
    ModelDir,
    ModelName,
    ModelPath,
    Now,
    Output,
    PluginFolders,
    Strict,
    TopK,
    Trust,
    Where,
    app,
    err,
    log,
    read_moment,
    read_object,
    wants_json,
    write,
)
from anyrec.cli.results import show_explained, show_result
from anyrec.cli.terminal import is_quiet
from anyrec.core.errors import Fault, InputError
from anyrec.core.outputs import check_output
from anyrec.core.types import JsonObject

if TYPE_CHECKING:  # these load torch, which the terminal's help does without
    from anyrec.core.config import ClusterConfig
    from anyrec.data.dataset import Dataset
    from anyrec.recommender import Recommender

RequestPath = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "--data_path",
        "--data-path",
        help="The request: a JSON, JSON Lines, CSV or Parquet file, or a folder of them.",
    ),
]
UserIds = Annotated[
    list[str],
    typer.Option(
        "--user-id",
        "--user_id",
        metavar="ID",
        help="A known user to list items for, instead of --data. Can be repeated.",
    ),
]
Embeddings = Annotated[
    bool, typer.Option("--embeddings", help="Add the vectors of the request's users and items to the result.")
]
IncludeSeen = Annotated[
    bool,
    typer.Option("--include-seen", "--include_seen", help="Also list items that the user interacted with before."),
]
Everyone = Annotated[bool, typer.Option("--all", help="List items for every known user, and write them to --output.")]
Traced = Annotated[bool, typer.Option("--trace", help="Report what each stage and rule did with each item.")]
Explained = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Print the lists with the reasons for each item; with --json, or in --output, as part of the JSON result.",
    ),
]


@app.command()
def recommend(
    data: RequestPath = None,
    model_path: ModelPath = None,
    user_id: UserIds = [],
    config: ChangesPath = None,
    overrides: Changes = [],
    top_k: TopK = 10,
    where: Where = None,
    output: Output = None,
    as_json: AsJson = None,
    embeddings: Embeddings = False,
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    image_root: ImageRoot = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    include_seen: IncludeSeen = False,
    everyone: Everyone = False,
    context: ContextValues = [],
    now: Now = None,
    trace: Traced = False,
    explain: Explained = False,
    strict: Strict = None,
) -> None:
    """List the top-K items for users, with scores and, if requested, embeddings, of a request or of known users.

    The result is a JSON document (schemas/result.schema.json); on a terminal it is printed as tables. If --output ends
    in .csv, .parquet or .jsonl, it is a table of the lists. --config and --set change what the model reads after
    training: the pipeline with its rules, the index, the evaluation. `inference.py` is the same command.
    """
    _check_recommend(data, user_id, everyone, output, trace or explain)
    moment, condition = read_moment(context, now), None if where is None else read_object(where, "--where")
    cluster, place = read_cluster(config, overrides) if everyone else None, (model_path, model_dir, model_name)
    recommender = load(*place, config, plugins, trust_plugins, image_root, overrides, cluster=cluster)
    if condition is not None:
        recommender = recommender.filtered(condition)
    if output is not None and cluster is not None:
        _write_everyone(recommender, output, top_k, not include_seen, moment, cluster)
    if everyone:
        return
    from anyrec.serving.result import infer

    if image_root is not None:
        recommender = recommender.with_image_root(image_root)
    request = _request(recommender, data, user_id)
    options = {"exclude_seen": not include_seen, "embeddings": embeddings, "strict": strict, **moment}
    traced = trace or (explain and recommender.pipeline is not None)
    result = infer(recommender, request, top_k, trace=traced, **options)
    if explain:
        from anyrec.serving.explain import explain_result

        explain_result(recommender, request, result)
    if explain and not as_json:
        show_explained(result)
        if output is None:
            return
    if output is None and not wants_json(as_json):
        show_result(recommender, request, result)
    else:
        _write_result(recommender, request, result, output)


def _request(recommender: Recommender, data: Path | None, user_id: list[str]) -> Dataset:
    """Return the request that --data or --user-id names."""
    from anyrec.serving.result import read_request, request_of_ids

    if data is not None:
        return read_request(recommender, data)
    return request_of_ids(recommender, id_array(recommender, "user", user_id, "--user_id"))


def _write_everyone(
    recommender: Recommender,
    output: Path,
    top_k: int,
    exclude_seen: bool,
    moment: JsonObject,
    cluster: ClusterConfig,
) -> None:
    """Write the lists of all known users to a file, and print their number and the time of each stage."""
    from anyrec.serving.batch import write_lists

    shown = not is_quiet()
    done = write_lists(recommender, output, top_k, exclude_seen=exclude_seen, progress=shown, cluster=cluster, **moment)
    for warning in done["warnings"]:
        log.warning(warning)
    spent = ", ".join(f"{stage} {value / 1000:.1f} s" for stage, value in done["latency_ms"].items())
    err.print(f"{done['users']:,} users, {done['rows']:,} rows -> {output} ({spent})", markup=False)
    if done["index"] is not None:
        err.print(f"index: {' '.join(map(str, done['index'].values()))}", markup=False)


def _write_result(recommender: Recommender, request: Dataset, result: JsonObject, output: Path | None) -> None:
    """Write a result document, or a table of its lists if the output's ending names a table."""
    from anyrec.serving.list_files import TABLES, write_table
    from anyrec.serving.result import lists_of

    if output is None or output.suffix.lower() not in TABLES:
        write(json.dumps(result, indent=1, ensure_ascii=False), output)
        return
    for note in [*result["notes"], *result.get("warnings", [])]:
        log.info(note)
    write_table(lists_of(recommender, request, result), output)


@app.command()
def embed(
    model_path: ModelPath = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "--data_path",
            "--data-path",
            help="Records to embed; by default all users and items of the model.",
        ),
    ] = None,
    config: ChangesPath = None,
    overrides: Changes = [],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write the files of users and of items to.")
    ] = Path("embeddings"),
    form: Annotated[
        str,
        typer.Option(
            "--format",
            autocompletion=lambda: ["parquet", "numpy", "faiss"],
            help="parquet (ids and vectors), numpy (.npy, and the ids as Parquet) or faiss (an exact index, and the "
            "ids as Parquet).",
        ),
    ] = "parquet",
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    image_root: ImageRoot = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    strict: Strict = None,
) -> None:
    """Write user and item embeddings for other programs. The Parquet files carry the model's id in their metadata."""
    check_output(output, "inside")
    from anyrec.retrieval.embedding_files import check_format

    check_format(form)
    cluster = read_cluster(config, overrides)
    recommender = load(
        model_path, model_dir, model_name, config, plugins, trust_plugins, image_root, overrides, cluster=cluster
    )
    from anyrec.serving.batch import write_vectors

    shown = not is_quiet()
    done = write_vectors(recommender, output, data, form=form, strict=strict, progress=shown, cluster=cluster)
    for warning in done["warnings"]:
        log.warning(warning)
    err.print(f"{done['users']:,} users, {done['items']:,} items -> {output}: {', '.join(done['files'])}")


def _check_recommend(data: Path | None, user_ids: list[str], everyone: bool, output: Path | None, trace: bool) -> None:
    """Check combinations of options of `recommend`. Raises InputError with all that do not go together."""
    given = [name for name, value in (("--data", data), ("--user_id", user_ids), ("--all", everyone)) if value]
    checks = [
        (not given, "--data", "there is no request.", "Give --data, --user_id, or --all for all known users."),
        (
            len(given) > 1,
            next(iter(given), ""),
            f"it cannot be combined with {' and '.join(given[1:])}.",
            "Give one of them.",
        ),
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
    if output is None:
        return
    from anyrec.serving.list_files import check_ending, check_result_ending

    if everyone:
        check_ending(output)
    check_output(output)
    check_result_ending(output)
