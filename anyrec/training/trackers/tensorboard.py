"""Record trainings for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from anyrec.core.outside import Outside
from anyrec.training.tracker import TrackedResult, TrackedRun, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """Event files for TensorBoard: a curve of each metric, the config as hyper-parameters, item vectors."""

    type = "tensorboard"
    package = "tensorboard"
    extra = "tensorboard"

    class Params(Tracker.Params):
        """Where the files are written."""

        folder: Annotated[str | None, Outside("a folder", "check")] = Field(
            default=None,
            description="Folder of the event files; each run has a folder of its name in it. By default the folder "
            "`tensorboard` of the run.",
        )
        embeddings: int = Field(
            default=0,
            ge=0,
            le=1_000_000,
            description="Vectors of this many items, the most popular first, are shown as embeddings.",
        )

    params: Params
    _writer: SummaryWriter
    _parameters: Mapping[str, str | int | float | bool]

    def start(self, run: TrackedRun) -> str:
        """Open the event file. Of a training that goes on, what followed its last epoch is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        if self.params.folder is not None:
            folder = Path(self.params.folder) / run.name
        else:
            folder = (Path("runs") / run.name) if run.folder is None else run.folder / "tensorboard"
        self._parameters = run.parameters
        self._writer = SummaryWriter(str(folder), purge_step=run.epoch + 1 if run.former else None)
        return str(folder)

    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a point of each curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, result: TrackedResult) -> None:
        """Write the hyper-parameters with the final metrics, and the vectors of items."""
        metrics = {f"{part}/{name}": value for part, values in result.metrics.items() for name, value in values.items()}
        finals = {f"final {name}": value for name, value in metrics.items()}
        self._writer.add_hparams(dict(self._parameters), finals, run_name=".")
        if self.params.embeddings:
            vectors = result.model.representations("item")
            order = np.argsort(-result.model.item_users, kind="stable")[: self.params.embeddings]
            ids = result.model.dataset.items["item_id"].take(order).to_pylist()
            self._writer.add_embedding(vectors[order], metadata=list(map(str, ids)), tag="items")
        self._writer.close()

    def fail(self) -> None:
        """Close the event file."""
        self._writer.close()
