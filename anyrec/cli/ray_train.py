"""Training by the workers of a Ray cluster: Ray Train starts them, and starts them again if one of them dies.

Each worker reads the data with our own reader and runs the same training as one process (`anyrec.cli.run`), as one of
the processes that torch.distributed joins. The first one writes the run's folder, and sends what it prints, its log and
its progress bars to this process. Checkpoints are those of the run's folder, so it must be at the same place on all
machines.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from anyrec.cli.run import RunInputs, check_run, train_run
from anyrec.cli.terminal import ResultsOnly, console, is_quiet, log, out
from anyrec.core.config import ClusterConfig
from anyrec.core.errors import AnyrecError
from anyrec.core.progress import Bar, bars_elsewhere, progress_bar
from anyrec.core.ray_cluster import last_line, like_the_driver, ray_workers, resources
from anyrec.training.loop import TRAINING

Message: TypeAlias = tuple[str, Any]
"""What a worker sends: `print` a text, `log` a level and a text, `bar` its text, total and done, `error` an error."""
Send: TypeAlias = Callable[[str, object], None]
"""Sends a message: its kind and its value."""
POLL = 0.2
"""Seconds between two looks at what the workers sent."""
DAY = 86_400
"""Seconds: how long a worker waits for the others, as an evaluation by the first one can take long."""
RAY_FILES = "ray"
"""Folder within the run's folder for Ray Train's own state, while it trains."""
LOST = (RuntimeError, OSError)
"""Errors that a worker raises if another one died: torch reports a lost connection by them."""


@dataclass(frozen=True)
class Terminal:
    """How the first worker prints.

    Attributes:
        quiet: Print results only.
        colours: Whether the text has colours.
        width: Characters in a line.
    """

    quiet: bool
    colours: bool
    width: int


class Launcher:
    """An actor that runs Ray Train, and takes the messages of the workers meanwhile."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.trained = False

    def fit(self, inputs: RunInputs, workers: int, terminal: Terminal, folder: str) -> None:
        """Train; arguments as of `_work`."""
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        cluster, own = inputs.config.cluster, ray.get_runtime_context().current_actor
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        storage = (Path(folder) / inputs.run_dir).absolute()
        TorchTrainer(
            _work,
            train_loop_config={"job": (own, inputs, terminal, folder)},
            torch_config=TorchConfig("cpu:gloo,cuda:nccl" if cluster.gpus else "gloo", timeout_s=DAY),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=cluster.gpus > 0, resources_per_worker=resources(cluster)
            ),
            run_config=RunConfig(
                name=RAY_FILES,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=cluster.max_restarts),
            ),
        ).fit()

    def send(self, message: Message) -> None:
        """Take a message of a worker."""
        kind, value = message
        self.trained |= kind == "bar" and value[0] == TRAINING
        self.messages.append(message)

    def take(self) -> list[Message]:
        """Return the messages since the last call."""
        taken, self.messages = self.messages, []
        return taken

    def has_trained(self) -> bool:
        """Return whether the training has begun: workers that start now go on from its checkpoint, if there is one.

        The checkpoints of an older run were removed when it began.
        """
        return self.trained


def train_on_ray(inputs: RunInputs) -> None:
    """Train with the workers of the cluster that the config names; the result is that of `train_run`.

    Args:
        inputs: What the run is started from.

    Raises:
        AnyrecError: As a worker raises it, as `ray_workers` does, or if workers died more often than `max_restarts`.
    """
    check_run(inputs.run_dir)
    cluster = inputs.config.cluster
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # the workers change to the folder of this process
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    terminal = Terminal(is_quiet(), out.is_terminal, out.width)
    with ray_workers(cluster) as workers, _without_ray_files(inputs.run_dir), Screen() as screen:
        import ray

        launcher: Any = ray.remote(Launcher).options(num_cpus=0, max_concurrency=8).remote()  # Any: Ray adds `remote`
        try:
            training = launcher.fit.remote(inputs, workers, terminal, str(Path.cwd()))
            done: list[Any] = []
            while not done:
                done, _ = ray.wait([training], timeout=POLL)
                screen.show(ray.get(launcher.take.remote()))
            ray.get(training)
        except ray.exceptions.RayError as error:
            raise _failed(cluster, error) from None
        finally:
            ray.kill(launcher)  # Ray Train ends with the process that started it


@contextmanager
def _without_ray_files(run_dir: Path) -> Iterator[None]:
    """Remove Ray Train's own state from the run's folder at the end."""
    try:
        yield
    finally:
        shutil.rmtree(run_dir / RAY_FILES, ignore_errors=True)
        with suppress(OSError):  # it is not empty, or was never made
            run_dir.rmdir()


def _failed(cluster: ClusterConfig, error: Exception) -> AnyrecError:
    """Return the error of a training whose workers failed too often."""
    what = f"the workers failed more than {cluster.max_restarts} times: {last_line(error)}"
    hint = "ANYREC_DEBUG=1 shows what the workers print. `--resume` goes on from the last finished epoch."
    return AnyrecError(f"{what}. {hint}")


class Screen:
    """Shows what the first worker sends, as if it were this process."""

    def __init__(self) -> None:
        self._bar: tuple[str, float, float, Bar] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def show(self, messages: list[Message]) -> None:
        """Show messages in their order. Raises the error of an `error`."""
        for kind, value in messages:
            if kind == "print":
                out.file.write(value)
                out.file.flush()
            elif kind == "log":
                log.log(*value)
            elif kind == "bar":
                self._advance(*value)
            elif kind == "error":
                raise value

    def _advance(self, text: str, total: float, done: float) -> None:
        """Show a bar. One with another total, or with less done, is a new one."""
        if self._bar is None or self._bar[1] != total or self._bar[2] > done:
            self._open.close()
            self._bar = (text, total, 0.0, self._open.enter_context(progress_bar(text, total)))
        _, _, before, bar = self._bar
        bar.advance(done - before, text)
        self._bar = (text, total, done, bar)
        if done >= total:
            self._open.close()
            self._bar = None


# In a worker


def _work(config: dict[str, Any]) -> None:
    """Train in one worker.

    Args:
        config: `job`: the launcher, what the run is started from, how to print, and the working directory.
    """
    import ray
    import ray.train

    launcher, inputs, terminal, folder = config["job"]
    like_the_driver(folder, inputs.config.cluster.cpus)
    again = ray.get(launcher.has_trained.remote())
    first = ray.train.get_context().get_world_rank() == 0

    def send(kind: str, value: object) -> None:
        if first or kind == "error":
            ray.get(launcher.send.remote((kind, value)))

    handler = _Sent(send)
    log.addHandler(handler)
    log.setLevel(logging.ERROR if terminal.quiet else logging.INFO)
    plain = console(file=_Pipe(send), soft_wrap=True, force_terminal=terminal.colours, width=terminal.width)
    shown: Console = ResultsOnly(plain) if terminal.quiet else plain
    try:
        if again:
            log.warning("A worker died. All start again, and the training goes on from its last finished epoch.")
        with bars_elsewhere(lambda *bar: send("bar", bar)):
            train_run(replace(inputs, resume=inputs.resume or again), shown)
    except LOST:
        raise
    except Exception as error:
        send("error", error if isinstance(error, AnyrecError) else RuntimeError(f"{type(error).__name__}: {error}"))
    finally:
        log.removeHandler(handler)


class _Sent(logging.Handler):
    """Sends log records to the process that shows them."""

    def __init__(self, send: Send):
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send("log", (record.levelno, record.getMessage()))


class _Pipe(io.StringIO):
    """A text file that sends all text that is written to it, whenever it is flushed."""

    def __init__(self, send: Send):
        super().__init__()
        self.send = send

    def flush(self) -> None:
        text = self.getvalue()
        if text:
            self.seek(0)
            self.truncate()
            self.send("print", text)
