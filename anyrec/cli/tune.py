"""The command `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anyrec.cli.options import ConfigPath, DataPath, ImageRoot, Overrides, PluginFolders, app, out, with_overrides
from anyrec.cli.terminal import ResultsOnly, is_quiet
from anyrec.cli.train import COMPONENTS
from anyrec.core.types import JsonObject

if TYPE_CHECKING:
    from anyrec.core.config import Config
    from anyrec.recommender import Recommender

EPILOG = f"The search needs the extra 'tune': pip install 'anyrec[tune]'. {COMPONENTS}"
Search = Annotated[
    list[str],
    typer.Option(
        "--search",
        metavar="KEY=VALUES",
        help="Search a key: KEY=LOW..HIGH, KEY=LOW..HIGH:log, KEY=LOW..HIGH:step=S, KEY=A,B,C, or KEY alone for the "
        "range that the schema has; `auto` for all of those, which is the default. Can be repeated.",
    ),
]
Space = Annotated[
    Path | None,
    typer.Option("--space", metavar="FILE", help="A JSON or YAML file with ranges by key, like tune.search."),
]
Timeout = Annotated[
    str | None, typer.Option(metavar="TIME", help="Time limit of the search: 90s, 30m, 1h, 2d or seconds.")
]
Objectives = Annotated[
    list[str],
    typer.Option(
        "--objective", help="A validation metric, seconds or parameters; by default training.metric. Can be repeated."
    ),
]
Final = Annotated[
    bool | None,
    typer.Option("--final/--no-final", help="Train and save the model of the best trial, which is the default."),
]
RunFolders = Annotated[
    Path | None,
    typer.Option("--output", "--output_dir", "--output-dir", help="Folder for run folders; by default `models`."),
]


@app.command(epilog=EPILOG)
def tune(
    data: DataPath = [],
    config: ConfigPath = None,
    overrides: Overrides = [],
    plugins: PluginFolders = [],
    image_root: ImageRoot = None,
    search: Search = [],
    space: Space = None,
    trials: Annotated[int | None, typer.Option(help="Trials of the study, those before included.")] = None,
    timeout: Timeout = None,
    workers: Annotated[int | None, typer.Option(help="Trials that run at the same time.")] = None,
    objective: Objectives = [],
    sampler: Annotated[str | None, typer.Option(help="tpe or random.")] = None,
    pruner: Annotated[str | None, typer.Option(help="auto, median, hyperband or none.")] = None,
    final: Final = None,
    output: RunFolders = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the study of this run, also after a crash.")
    ] = False,
) -> None:
    """Search the options of a model that are best on the validation part, then train and report the best one.

    The study is in the folder `tune` of the run's folder, with a report of all trials.
    """
    from anyrec.core.load_config import load_config

    folders = [str(folder) for folder in plugins]
    settings, notes = load_config(config, with_overrides(overrides, image_root, output, seed), plugins=folders)
    settings = settings.model_copy(update={"plugins": list(dict.fromkeys([*settings.plugins, *folders]))})
    options = {
        "trials": trials,
        "timeout": timeout,
        "workers": workers,
        "objectives": objective or None,
        "sampler": sampler,
        "pruner": pruner,
        "final": final,
    }
    _tune(settings, notes, data, {key: one for key, one in options.items() if one is not None}, search, space, resume)


def _tune(
    settings: Config,
    notes: list[str],
    data: list[Path],
    options: JsonObject,
    search: list[str],
    space: Path | None,
    resume: bool,
) -> None:
    """Run a study and print its result.

    Args:
        settings: The config.
        notes: Notes on it.
        data: As for `train`.
        options: Values of the config's section `tune`.
        search: Texts of `--search`.
        space: File of `--space`.
        resume: Go on with the study of the run.
    """
    from anyrec.cli.datasets import read_dataset
    from anyrec.cli.run import RunInputs, check_run, train_run
    from anyrec.core.discovery import discover
    from anyrec.study.driver import trial_text
    from anyrec.study.pages import headline, optimism
    from anyrec.study.tune import asked_search, run_study, with_options

    registry, console = discover(settings.plugins), ResultsOnly() if is_quiet() else out
    check_run(Path(settings.output_dir) / settings.name)
    dataset = read_dataset(data, settings)
    asked = asked_search(settings, registry, dataset, search, space)
    settings = with_options(settings, options if asked is None else {**options, "search": asked})

    def echo(line: str) -> None:
        console.print(line, markup=False)

    def train(complete: Config, run: Path) -> Recommender:
        if complete.cluster.type == "none":
            return train_run(RunInputs(complete, data, resume=True, dataset=dataset), console)
        from anyrec.cli.ray_train import train_on_ray
        from anyrec.recommender import Recommender

        train_on_ray(RunInputs(complete, data, resume=True))
        return Recommender.load(run / "model", trust_plugins=True, plugins=complete.plugins)

    for note in notes:
        echo(f"config: {note}")
    source = " --data ".join(map(str, data)) or "DATA"
    result = run_study(settings, registry, dataset, train, source=source, resume=resume, echo=echo)
    out.print(trial_text(headline(result), result.best.described()), markup=False)
    out.print(optimism(result).replace("**", ""), markup=False)
    out.print(f"best config: {result.folder / 'best.json'}", markup=False)
    out.print(f"report of the search: {result.report}", markup=False)
