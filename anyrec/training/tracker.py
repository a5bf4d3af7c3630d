"""The contract of trackers, which record trainings in other programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from anyrec.core.errors import MissingDependency
from anyrec.core.params import Params as Options
from anyrec.core.types import ComponentParams

if TYPE_CHECKING:
    from anyrec.model.fitted import FittedModel


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker records when a training starts.

    Attributes:
        name: Name of the run.
        folder: Its folder; None if it writes none.
        parameters: The complete config with flat keys such as `training.epochs`, without secrets.
        former: What `start` returned for the run that this one continues; None for a new run.
        epoch: Number of epochs that the run has recorded before.
        group: Name of the study that the run is a trial of; empty for none.
    """

    name: str
    folder: Path | None
    parameters: Mapping[str, str | int | float | bool]
    former: str | None = None
    epoch: int = 0
    group: str = ""


@dataclass(frozen=True)
class TrackedResult:
    """What a tracker records when a training ends.

    Attributes:
        model: The fitted model.
        metrics: Its metrics by part of the split.
        save: Writes the model directory; None for a trial of a study, whose model is not kept.
        directory: The model directory, if the model is saved.
        folder: The run's folder; None for none.
        files: Files and folders in it that describe the run: the report, the epochs, the config.
    """

    model: FittedModel
    metrics: Mapping[str, Mapping[str, float]]
    save: Callable[[Path], Path] | None
    directory: Path | None = None
    folder: Path | None = None
    files: Sequence[Path] = field(default_factory=list)

    @property
    def has_model(self) -> bool:
        """Whether there is a model directory to record."""
        return self.directory is not None or self.save is not None

    @contextmanager
    def model_directory(self) -> Iterator[Path]:
        """Return the model directory within the block. A model that is not saved is written to a temporary folder."""
        if self.directory is not None:
            yield self.directory
            return
        assert self.save is not None, "a result without a model has no directory"
        with TemporaryDirectory() as folder:
            yield self.save(Path(folder) / "model")


class Tracker(ABC):
    """Base class of trackers.

    The frame calls `check`, `start`, `epoch` after each epoch, and `finish` or `fail`, all from one thread. An
    exception of any of them but `check` is a warning: the training goes on, and what could not be recorded is recorded
    with a later call. Credentials come from the environment: they are no options, and no part of a message.

    Attributes:
        type: Name in the config.
        package: Name of the package that it needs, to import it.
        extra: The extra of anyrec that installs the package.
        Params: Its options.

    Args:
        params: The options; by default those of `Params()`.

    Example:
        class Printer(Tracker):
            type = "printer"

            def start(self, run):
                print(run.name, run.parameters)
                return run.name

            def epoch(self, step, metrics):
                print(step, metrics)

            def finish(self, result):
                print(result.metrics)
    """

    type: ClassVar[str] = ""
    package: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    class Params(Options):
        """No options."""

    def __init__(self, params: BaseModel | None = None):
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def check(self) -> None:
        """Check, before the data is read, that the tracker can be used.

        Raises:
            MissingDependency: If `package` is not installed.
        """
        if self.package and find_spec(self.package) is None:
            raise MissingDependency(self.package, self.extra, f"The tracker '{self.type}'")

    @abstractmethod
    def start(self, run: TrackedRun) -> str:
        """Start recording a run, or go on with the one that `run.former` names.

        Returns:
            What identifies the run for a later `former`.
        """

    @abstractmethod
    def epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch.

        Args:
            step: Number of the epoch, from 1.
            metrics: By name: `loss`, `seconds`, `learning_rate`, `validation/ndcg@10`. Those of the second training of
                `training.refit` have the prefix `refit/`, and count their epochs from 1 again.
        """

    @abstractmethod
    def finish(self, result: TrackedResult) -> None:
        """Record the result, and end the run."""

    def fail(self) -> None:  # noqa: B027 (optional)
        """End the run of a training that was interrupted or failed; by default nothing is recorded."""
