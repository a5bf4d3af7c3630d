"""Search the options of a model on the validation part: the study, the model of the best trial, and the report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anyrec.core.config import Config, TuneConfig
from anyrec.core.config_file import read_config_file
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, Fault, InputError
from anyrec.core.files import exclusive, save_json
from anyrec.core.launcher import copies
from anyrec.core.load_config import load_config, with_root
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.model.arguments import checked_dataset
from anyrec.recommender import Recommender
from anyrec.study.driver import StudyDriver
from anyrec.study.marks import marked
from anyrec.study.pages import write_study
from anyrec.study.ray_pool import ray_pool
from anyrec.study.result import StudyResult
from anyrec.study.space import parse_search, search_space
from anyrec.study.trials import StudySetup, Task, TrialRunner
from anyrec.study.workers import processes, run_here, run_on
from anyrec.training.checkpoints import FOLDER, REFIT
from anyrec.training.tracking import FILE as TRACKED

STUDY = "tune"
"""Folder of the study in the folder of the run."""
BEST = "best.json"
"""File of the study's folder: the complete config of the best trial."""


def tune(
    config: Config | JsonObject | str | Path,
    dataset: Dataset | None = None,
    *,
    trials: int | None = None,
    timeout: str | float | None = None,
    workers: int | None = None,
    search: Mapping[str, Json] | None = None,
    objectives: Sequence[str] | None = None,
    final: bool | None = None,
    resume: bool = False,
    plugins: Sequence[str | Path] = (),
    echo: Callable[[str], object] | None = None,
) -> StudyResult:
    """Search the options of a model that are best on the validation part, by Optuna.

    The test part is measured once, after the search, for the best trial. The study is in the folder `tune` of the run's
    folder (`output_dir` and `name` of the config), with a report.

    Args:
        config: The config, as for `Recommender.from_config`; its section `tune` describes the study.
        dataset: The data; by default the tables that the config names in `data.sources`.
        trials: Instead of `tune.trials`, and so are the next four.
        timeout: As text (`1h`) or in seconds.
        workers: Processes. A program that uses several must start in `if __name__ == "__main__":`.
        search: Ranges and lists of values by key.
        objectives: Names of the objectives.
        final: Whether to train the final model.
        resume: Go on with the study in the folder, also after a crash.
        plugins: Folders of plugins, in addition to those that the config names.
        echo: Called with a line for each trial; by default it is logged.

    Raises:
        ConfigError: With all faults of the config and the search space.
        InputError: If a launcher such as torchrun has started several processes.
        OutputError: If the folder has a study and `resume` is False.
        MissingDependency: If Optuna is not installed.

    Example:
        >>> ranges = {"training.optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "dim": [16, 32, 64]}
        >>> result = tune({"name": "shop"}, Dataset.read("data.json"), search=ranges, trials=30, timeout="1h")
        >>> print(result)
    """
    if copies() > 1:
        what = f"a launcher has started {copies()} processes (WORLD_SIZE), and a study is run by one process."
        hint = "Start it without torchrun; `workers` or a `cluster` of type ray runs trials at the same time."
        raise InputError(Fault("tune", what, hint, "processes"))
    limits = {"trials": trials, "timeout": None if timeout is None else str(timeout), "workers": workers}
    asked, registry = _asked(config, plugins, {**limits, "search": search, "objectives": objectives, "final": final})
    data = Dataset.from_sources(asked.data, registry) if dataset is None else checked_dataset(dataset)

    def train(complete: Config, run: Path) -> Recommender:
        fitted = Recommender(complete, registry).fit(data, run_dir=run, resume=True, progress=False)
        fitted.save(run / "model")
        return fitted

    shown = echo or logging.getLogger(__name__).info
    return run_study(asked, registry, data, train, source="DATA", resume=resume, echo=shown)


def _asked(
    config: Config | JsonObject | str | Path, plugins: Sequence[str | Path], options: JsonObject
) -> tuple[Config, Registry]:
    """Return the config of a study with those values of its section `tune` that are not None, and the components."""
    asked = with_root(config) if isinstance(config, Config) else load_config(config, plugins=plugins)[0]
    folders = list(dict.fromkeys([*asked.plugins, *map(str, plugins)]))
    given = {name: value for name, value in options.items() if value is not None}
    given |= {name: list(value) for name, value in given.items() if isinstance(value, tuple)}
    return with_options(asked.model_copy(update={"plugins": folders}), given), discover(folders)


def with_options(config: Config, options: JsonObject) -> Config:
    """Return a config with other values in its section `tune`.

    Raises:
        ConfigError: With all invalid values.
    """
    document = {**config.tune.model_dump(mode="json", exclude_unset=True), **options}
    checked, _ = load_config({"tune": document})
    return config.model_copy(update={"tune": checked.tune})


def asked_search(
    asked: Config, registry: Registry, dataset: Dataset, texts: Sequence[str], file: Path | None
) -> JsonObject | None:
    """Return the search that the options `--space` and `--search` describe, which is added to `tune.search`.

    Returns:
        None if there are no such options.

    Raises:
        ConfigError: With all texts that are not understood.
    """
    if not texts and file is None:
        return None
    configured = {key: one.model_dump(exclude_unset=True) for key, one in asked.tune.search.items()}
    listed = {} if file is None else read_config_file(file)
    found = parse_search(texts, lambda: marked(resolve_config(asked, dataset, registry)[0], registry))
    return {**configured, **listed, **found}


def run_study(
    asked: Config,
    registry: Registry,
    dataset: Dataset,
    train: Callable[[Config, Path], Recommender],
    *,
    source: str,
    resume: bool,
    echo: Callable[[str], object],
) -> StudyResult:
    """Run a study, and measure the model of its best trial.

    Args:
        asked: The config as the user wrote it.
        registry: The components.
        dataset: The data.
        train: Trains and saves the final model in a folder, from the checkpoints that are there.
        source: The data as the user named it, for the report.
        resume: Go on with the study in the folder.
        echo: Shows a line.
    """
    base, _ = resolve_config(asked, dataset, registry)
    folder = Path(asked.output_dir) / asked.name / STUDY
    with exclusive(folder):
        runner = TrialRunner(StudySetup(base, dataset, folder), registry)
        if not len(runner.learning.split.validation):
            what = "nothing is held out for validation, which a study compares trials on."
            raise ConfigError(Fault("/split", what, "Choose a split with a validation part.", "no validation"))
        space = search_space(runner.configs)
        driver = StudyDriver(runner, space, resume, echo)
        for one in space:
            echo(f"search: {one.key}: {one.described()}")
        _run(driver, runner, base.tune)
        driver.end()
        best = driver.best()
        config, _ = runner.configs.make(best.values)
        config = config.model_copy(update={"tune": TuneConfig()})
        save_json(folder / BEST, config.model_dump(mode="json", exclude={"tune"}))
        result = StudyResult(
            folder,
            config,
            best,
            driver.trials(),
            space,
            driver.objectives,
            driver.journal.importance(),
            driver.journal.front(),
            driver.seconds,
            started=driver.start is not None,
        )
        result = _measured(result, driver, runner, train)
        write_study(result, f"anyrec train --config {folder / BEST} --data {source}")
        return result


def _run(driver: StudyDriver, runner: TrialRunner, options: TuneConfig) -> None:
    """Run the trials."""
    cluster = runner.setup.base.cluster
    if cluster.type == "ray":
        with ray_pool(runner.setup, cluster) as (workers, count):
            run_on(driver, workers, count)
        return
    if options.workers == 1:
        run_here(driver, runner)
        return
    with processes(runner.setup, options.workers) as pool:
        run_on(driver, pool, options.workers)


def _measured(
    result: StudyResult, driver: StudyDriver, runner: TrialRunner, train: Callable[[Config, Path], Recommender]
) -> StudyResult:
    """Return the result with the metrics of the best model, its test part included, and with the final model."""
    task, run = Task(result.best.number, result.best.values), result.folder.parent
    model = runner.restored(task, complete=result.best.state == "complete")
    split = runner.learning.split
    metrics = {part: runner.measure(model, part) for part in ("validation", "test") if len(split.rows(part))}
    result = replace(result, metrics=metrics, tests=driver.count_test())
    if not runner.setup.base.tune.final:
        return result
    _copy(runner.setup.trial_folder(task.number), run)
    recommender = train(result.config, run)
    return replace(result, recommender=recommender, final_metrics=dict(recommender.metrics))


def _copy(trial: Path, run: Path) -> None:
    """Copy the checkpoints of a trial into the folder of the run, whose training then goes on from there."""
    (run / TRACKED).unlink(missing_ok=True)  # trackers would go on with the run of an older training
    for name in (FOLDER, REFIT):
        if (run / name).is_dir():
            shutil.rmtree(run / name)
    if (trial / FOLDER).is_dir():
        shutil.copytree(trial / FOLDER, run / FOLDER)
        shutil.copy2(trial / "metrics.jsonl", run / "metrics.jsonl")
