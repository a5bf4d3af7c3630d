"""The commands `experiment report`, `experiment evaluate` and `experiment off-policy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from anyrec.cli.load import load
from anyrec.cli.options import (
    AsJson,
    Changes,
    ChangesPath,
    ModelDir,
    ModelName,
    ModelPath,
    PluginFolders,
    Trust,
    app,
    err,
    out,
    wants_json,
)
from anyrec.cli.terminal import Application, is_quiet, print_tables
from anyrec.core.errors import DataError, Fault

if TYPE_CHECKING:
    from anyrec.serving.experiments.off_policy import OffPolicy

experiment_app = Application()
app.add_typer(experiment_app, name="experiment", help="What the log of a server says of an experiment.")


@experiment_app.command()
def report(
    log: Annotated[Path, typer.Argument(help="Folder of the log of events (`anyrec serve --events`).")],
    experiment: Annotated[str | None, typer.Option(help="Its name; by default the only one in the log.")] = None,
    types: Annotated[
        list[str], typer.Option("--type", help="Interaction type that counts; by default all. Can be repeated.")
    ] = [],
    effect: Annotated[
        float,
        typer.Option(min=1e-6, max=1, help="Difference of rates that the test is most sensitive to. Choose it before."),
    ] = 0.02,
    as_json: AsJson = None,
) -> None:
    """Compare the variants of an experiment: rates with intervals, and a test that may be looked at at any time."""
    from anyrec.serving.experiments.report import experiment_report

    found = experiment_report(log, experiment, types, effect)
    if wants_json(as_json):
        out.print_json(json.dumps(found.as_json()))
        return
    table = Table(
        "variant", "users", "converted", "rate", "95 %", "difference", "p (at any time)", title=found.experiment
    )
    for name, rate in found.rates.items():
        own = found.differences.get(name)
        difference = "" if own is None else f"{own.value:+.2%} [{own.low:+.2%}, {own.high:+.2%}]"
        interval = f"[{rate.low:.2%}, {rate.high:.2%}]"
        p = "" if own is None else f"{own.p:.2g}"
        table.add_row(name, f"{rate.users:,}", f"{rate.converted:,}", f"{rate.rate:.2%}", interval, difference, p)
    print_tables(table)
    for name, shadow in found.shadows.items():
        out.print(f"shadow {name}: {shadow['lists']:,} lists, {shadow['overlap']:.0%} of the items shown", markup=False)
    for text in (*found.notes, found.conclusion):
        out.print(text, markup=False)


@experiment_app.command("evaluate")
def evaluate_candidate(
    log: Annotated[Path, typer.Argument(help="Folder of the log of events (`anyrec serve --events`).")],
    model_path: ModelPath = None,
    types: Annotated[
        list[str], typer.Option("--type", help="Interaction type that is a reward; by default all. Can be repeated.")
    ] = [],
    config: ChangesPath = None,
    overrides: Changes = [],
    model_dir: ModelDir = None,
    model_name: ModelName = None,
    plugins: PluginFolders = [],
    trust_plugins: Trust = False,
    as_json: AsJson = None,
) -> None:
    """Estimate what a candidate would have been worth, from the lists of a server whose pipeline draws items.

    The candidate is another model, or the same one with another pipeline (--config, --set). It answers the logged
    requests again, with what was known at the time of each.
    """
    from anyrec.serving.experiments.evaluate import evaluate

    candidate = load(model_path, model_dir, model_name, config, plugins, trust_plugins, None, overrides)
    found = evaluate(log, candidate, types, progress=not is_quiet())
    if wants_json(as_json):
        out.print_json(json.dumps(found.as_json()))
        return
    for note in found.notes:
        err.print(note, markup=False, highlight=False)
    _print(found.value, f"{found.lists:,} lists, {found.value.rows:,} drawn items")


@experiment_app.command("off-policy")
def off_policy(
    data: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet with reward, propensity and target_propensity, and user_id if users have several rows."
        ),
    ],
    as_json: AsJson = None,
) -> None:
    """Estimate the mean reward of another policy from the probabilities that a randomising policy logged."""
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    from anyrec.serving.experiments.off_policy import off_policy as estimate

    try:
        table = pq.read_table(data) if data.suffix == ".parquet" else csv.read_csv(data)
        columns = [table[name].to_numpy() for name in ("reward", "propensity", "target_propensity")]
        users = None
        if "user_id" in table.column_names:
            users = table["user_id"].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    except (OSError, KeyError, ValueError) as error:
        what = f"reward, propensity and target_propensity cannot be read: {error}."
        raise DataError(Fault(str(data), what, "Give a table of numbers with these columns.")) from None
    found = estimate(*columns, users=users)
    if wants_json(as_json):
        out.print_json(json.dumps(found.as_json()))
        return
    _print(found, f"{found.rows:,} rows")


def _print(found: OffPolicy, title: str) -> None:
    """Print the estimates and what follows."""
    table = Table("mean reward", "", "95 %", title=title)
    rows = {
        "shown": found.logged,
        "candidate (IPS)": found.ips,
        "candidate (SNIPS)": found.snips,
        "difference (SNIPS)": found.difference,
        "mean weight": found.weight,
    }
    for name, one in rows.items():
        table.add_row(name, f"{one.value:.4f}", f"[{one.low:.4f}, {one.high:.4f}]")
    print_tables(table)
    out.print(
        f"The candidate could have shown {found.supported:,} of {found.rows:,} items. Effective users: "
        f"{found.effective:,.0f} of {found.users:,}.",
        markup=False,
    )
    out.print(found.conclusion, markup=False)
