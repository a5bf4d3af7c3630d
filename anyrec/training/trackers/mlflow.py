"""Record trainings with MLflow, and register their models."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from anyrec.core.outside import Outside
from anyrec.core.secrets import secrets_of
from anyrec.core.version import __version__
from anyrec.training.tracker import TrackedResult, TrackedRun, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOADER = "anyrec.serving.pyfunc"
"""Module that MLflow imports to load a registered model. Its name is part of every model that was ever registered."""
MOST_PARAMETERS, LONGEST = 100, 500
"""Parameters of one request, and characters of a value: what all stores of MLflow accept."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Defaults of the environment while a server is called. MLflow's own would hold up a training for minutes."""


def _without_password(uri: str | None) -> str | None:
    if uri is not None and secrets_of(uri):
        raise ValueError(
            "credentials are not part of the config; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, or the whole address as MLFLOW_TRACKING_URI"
        )
    return uri


class MLflow(Tracker):
    """MLflow: parameters, metrics by epoch, the report and the model, which it can register."""

    type = "mlflow"
    package = "mlflow"
    extra = "mlflow"

    class Params(Tracker.Params):
        """The store, and the parts that are recorded. Credentials come from MLflow's environment variables."""

        uri: Annotated[str | None, AfterValidator(_without_password), Outside("an address", "check")] = Field(
            default=None,
            max_length=1000,
            description="The store: http://HOST:5000, or sqlite:///mlflow.db. By default MLFLOW_TRACKING_URI, or else "
            "what MLflow itself uses.",
        )
        experiment: str = Field(default="anyrec", min_length=1, max_length=250, description="Experiment of the runs.")
        model: bool = Field(default=True, description="Log the model directory as an MLflow model.")
        register_as: str | None = Field(
            default=None,
            min_length=1,
            max_length=250,
            pattern=r"^[^/:.%\"']+$",
            description="Register the model as a new version of this registered model.",
        )
        aliases: list[Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9_-]+$")]] = Field(
            default_factory=list,
            max_length=20,
            description="Aliases that the new version gets, for example champion.",
        )

    params: Params
    _client: MlflowClient
    _run: str

    def start(self, run: TrackedRun) -> str:
        """Create a run with the parameters, or go on with one by its id."""
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        with _patience():
            self._client = MlflowClient(tracking_uri=self.params.uri)
            if run.former is not None:
                self._run = run.former
                self._client.update_run(self._run, status="RUNNING")
                return self._run
            found = self._client.get_experiment_by_name(self.params.experiment)
            experiment = found.experiment_id if found else self._client.create_experiment(self.params.experiment)
            tags = {"anyrec.version": __version__, **({"anyrec.study": run.group} if run.group else {})}
            self._run = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
            parameters = [Param(_key(name), str(value)[:LONGEST]) for name, value in run.parameters.items()]
            for start in range(0, len(parameters), MOST_PARAMETERS):
                self._client.log_batch(self._run, params=parameters[start : start + MOST_PARAMETERS])
            if run.folder is not None:
                self._client.log_batch(self._run, tags=[RunTag("anyrec.folder", str(run.folder))])
        return self._run

    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch; its number is the step."""
        with _patience():
            self._log(metrics, step)

    def finish(self, result: TrackedResult) -> None:
        """Log the final metrics, the files and the model, and end the run."""
        with _patience():
            for part, values in result.metrics.items():
                self._log({f"final/{part}/{name}": value for name, value in values.items()}, 0)
            for path in result.files:
                log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
                log(self._run, str(path), f"report/{path.name}" if path.is_dir() else "report")
            if result.has_model and (self.params.model or self.params.register_as):
                with warnings.catch_warnings():  # advice on input examples and type hints
                    warnings.simplefilter("ignore", UserWarning)
                    self._log_model(result)
            self._client.set_terminated(self._run, "FINISHED")

    def fail(self) -> None:
        """End the run as failed. Going on with it sets it to running again."""
        with _patience():
            self._client.set_terminated(self._run, "FAILED")

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[Metric(_key(name), value, now, step) for name, value in metrics.items()]
        )

    def _log_model(self, result: TrackedResult) -> None:
        """Log the model directory with the module that loads it: nothing is pickled."""
        import mlflow
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ParamSchema, ParamSpec

        options = ParamSchema([ParamSpec("k", "long", 10), ParamSpec("exclude_seen", "boolean", True)])
        experiment = self._client.get_run(self._run).info.experiment_id
        made = self._client.create_logged_model(experiment, name="model", source_run_id=self._run)
        before = mlflow.get_tracking_uri()
        if self.params.uri is not None:
            mlflow.set_tracking_uri(self.params.uri)
        try:
            with result.model_directory() as directory:
                logged = Model.log(
                    None,
                    mlflow.pyfunc,
                    model_id=made.model_id,
                    run_id=self._run,
                    registered_model_name=self.params.register_as,
                    loader_module=LOADER,
                    data_path=str(directory),
                    signature=ModelSignature(params=options),
                    pip_requirements=[f"anyrec=={__version__}"],
                )
        finally:
            mlflow.set_tracking_uri(before)
        if self.params.register_as is not None:
            for alias in self.params.aliases:
                self._client.set_registered_model_alias(
                    self.params.register_as, alias, str(logged.registered_model_version)
                )


def _key(name: str) -> str:
    """Return the name of a metric or a parameter with the characters that MLflow accepts."""
    return re.sub(r"[^\w/. -]", "_", name.replace("@", "_at_"))


@contextmanager
def _patience() -> Iterator[None]:
    """Within the block a server that is away is an error after seconds, unless the environment says otherwise."""
    added = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
