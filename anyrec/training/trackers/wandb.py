"""Record trainings with Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from anyrec.training.tracker import TrackedResult, TrackedRun, Tracker

if TYPE_CHECKING:
    from wandb import Run

SECONDS = 30
"""Time limit of starting a run. The program waits up to 90 seconds for a server by itself."""


class WeightsAndBiases(Tracker):
    """Runs of Weights & Biases. The key is read from WANDB_API_KEY or from `wandb login`."""

    type = "wandb"
    package = "wandb"
    extra = "wandb"

    class Params(Tracker.Params):
        """The project, and the parts that are uploaded."""

        project: str = Field(default="anyrec", min_length=1, max_length=128, description="Project of the runs.")
        entity: str | None = Field(
            default=None, max_length=128, description="User or team of the project; by default that of the key."
        )
        mode: Literal["online", "offline"] | None = Field(
            default=None,
            description="offline: write the run's folder `wandb` only, which `wandb sync` uploads later. By default as "
            "WANDB_MODE says, or else online.",
        )
        model: bool = Field(default=True, description="Upload the model directory as an artifact.")

    params: Params
    _run: Run

    def start(self, run: TrackedRun) -> str:
        """Start a run, or go on with one by its id."""
        import wandb

        options = self.params
        settings = wandb.Settings(console="off", silent=True, init_timeout=SECONDS)
        self._run = wandb.init(
            project=options.project,
            entity=options.entity,
            name=run.name,
            group=run.group or None,
            id=run.former,
            resume="allow",
            dir=None if run.folder is None else str(run.folder),
            mode=options.mode,
            config=dict(run.parameters),
            settings=settings,
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        return self._run.id

    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics; their axis is the epoch."""
        self._run.log({"epoch": step, **metrics})

    def finish(self, result: TrackedResult) -> None:
        """Write the summary, the report and the model, and end the run."""
        import wandb

        for part, values in result.metrics.items():
            self._run.summary.update({f"final/{part}/{name}": value for name, value in values.items()})
        if result.files:
            report = wandb.Artifact(f"{self._run.name}-report", type="report")
            for path in result.files:
                (report.add_dir if path.is_dir() else report.add_file)(str(path), name=path.name)
            self._run.log_artifact(report)
        if self.params.model and result.has_model:
            with result.model_directory() as directory:
                model = wandb.Artifact(f"{self._run.name}-model", type="model")
                model.add_dir(str(directory))
                self._run.log_artifact(model)
                self._run.finish()
        self._run.finish()

    def fail(self) -> None:
        """End the run as failed."""
        self._run.finish(exit_code=1)
