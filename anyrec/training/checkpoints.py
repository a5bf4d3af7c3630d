"""Checkpoints of a training run, for exact resuming.

After each epoch, `last.safetensors` has everything that the next one depends on, and `best.safetensors` has the weights
of the best epoch so far. The remaining state is JSON in the header of the files: no pickle. A crash leaves the whole
previous file or the whole new one.

If several processes train, each writes what it alone has (its rows of divided tables, its random state) into a part
`last-EPOCH-RANK-of-SIZE.safetensors`. Then the first writes what all have into `last.safetensors`, whose header is the
manifest: it names the parts and their digests. Any number of processes can continue: the rows are divided again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import atomic_write
from anyrec.core.manifest import digest_of_tensors
from anyrec.core.processes import Processes
from anyrec.core.saved_files import damaged
from anyrec.core.sharded_tables import ShardedTable
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.optimizers import Optimizer
from anyrec.training.progress import Progress
from anyrec.training.run_origin import another_course, differences
from anyrec.training.weight_average import Average

LAST, BEST = "last.safetensors", "best.safetensors"
FOLDER, REFIT = "checkpoints", "refit"
"""Folders within a run: of its checkpoints, and of the second training of `training.refit`."""
AGAIN = "Train without --resume."
RANDOM = "random."
"""Prefix of the states of random generators."""


class Checkpoints:
    """The checkpoints of one training. All processes call the same methods.

    Args:
        folder: Where they are kept.
        model: The model.
        optimizer: Its state is saved.
        average: The moving average of the weights, if the run has one.
        generator: Source of the random numbers of batches and negatives.
        processes: The processes that train together. All must see the folder.
    """

    def __init__(
        self,
        folder: Path,
        model: TwoTower,
        optimizer: Optimizer,
        average: Average | None,
        generator: torch.Generator,
        processes: Processes,
    ):
        self.folder, self.processes = folder, processes
        self.model, self.optimizer, self.average, self.generator = model, optimizer, average, generator
        tables = {f"{name}.weight": one for name, one in model.named_modules() if isinstance(one, ShardedTable)}
        state = tuple(f"optimizer.{optimizer.place(table.weight)}." for table in tables.values())
        names = {f"{prefix}{name}" for name in tables for prefix in ("", "model.", "average.")}
        self._divided: Callable[[str], bool] = lambda name: name in names or name.startswith(state or ("\0",))

    @property
    def exist(self) -> bool:
        """Whether there is a checkpoint."""
        return bool(self.processes.agree((self.folder / LAST).is_file()))

    def save(self, best: dict[str, Tensor] | None, progress: Progress) -> None:
        """Write everything that the next epoch depends on, each file atomically.

        The last state is written first. A crash between the two files therefore leaves a last state whose own weights
        are the best ones, so `load` finds the best weights in any case.

        Args:
            best: The weights of the best epoch so far, written if that is the last epoch; None if there is none.
            progress: The progress so far.
        """
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.tensors().items()}
        tensors |= {f"average.{name}": value for name, value in (self.average.values if self.average else {}).items()}
        tensors["draws"] = self.generator.get_state()
        tensors[RANDOM + "torch"] = torch.get_rng_state()
        if next(self.model.parameters()).is_cuda:
            tensors[RANDOM + "cuda"] = torch.cuda.get_rng_state()
        self._write(LAST, tensors, asdict(progress), progress.epoch)
        if best is not None and progress.best_epoch == progress.epoch:
            self._save_best(best, progress)

    def load(self, config: Config, origin: dict[str, Any]) -> tuple[Progress, dict[str, Tensor] | None]:
        """Restore what `save` wrote.

        Args:
            config: The config of the run that is to continue.
            origin: What that run depends on (`run_origin`).

        Returns:
            The progress, and the weights of the best epoch so far, or None.

        Raises:
            ModelError: If a file is missing or damaged, or if continuing would give another result than an
                uninterrupted run of `config` and `origin`.
        """
        path = self.folder / LAST
        state, tensors = self._read(LAST)
        with damaged(path, "this is not the progress of a training", AGAIN):
            progress = Progress(**state)
        reason = differences(progress.origin, origin) or another_course(progress, config)
        if reason:
            hint = "Restore what differs, or train without --resume, which starts again and removes this checkpoint."
            raise ModelError(Fault(str(path), reason, hint, "foreign"))

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        with damaged(path, "this checkpoint does not fit the model", AGAIN):
            self.model.load_state_dict(part("model."))
            self.optimizer.load_tensors(part("optimizer."))
            if self.average is not None:
                self.average.load(part("average."))
            self.generator.set_state(tensors["draws"])
            torch.set_rng_state(tensors[RANDOM + "torch"])
            if RANDOM + "cuda" in tensors:
                torch.cuda.set_rng_state(tensors[RANDOM + "cuda"])
        return progress, self._best_weights(progress)

    def _best_weights(self, progress: Progress) -> dict[str, Tensor] | None:
        """Return the weights of the best epoch so far, or None if there is none.

        Args:
            progress: The progress of the last state, whose weights the model has.

        Raises:
            ModelError: If the file is missing or damaged, or of another epoch.
        """
        weights = self.model.state_dict()
        if not progress.best_epoch:
            return None
        if progress.best_epoch == progress.epoch:  # the run may have been stopped before it wrote the file
            averaged = {} if self.average is None else self.average.values
            best = {name: value.detach().clone() for name, value in {**weights, **averaged}.items()}
            self._save_best(best, progress)
            return best
        path, (state, tensors) = self.folder / BEST, self._read(BEST)
        with damaged(path, "these are not the weights of the best epoch", AGAIN):
            if state["epoch"] != progress.best_epoch:
                raise ValueError(f"they are of epoch {state['epoch']}; the best one is {progress.best_epoch}")
            tensors = {name: value for name, value in tensors.items() if not name.startswith(RANDOM)}
            if {name: value.shape for name, value in tensors.items()} != {
                name: value.shape for name, value in weights.items()
            }:
                raise ValueError("they are not those of this model")
        return {name: value.to(self.model.device) for name, value in tensors.items()}

    def _save_best(self, best: dict[str, Tensor], progress: Progress) -> None:
        self._write(BEST, best, {"epoch": progress.best_epoch, "metric": progress.best_metric}, progress.best_epoch)

    def _write(self, name: str, tensors: dict[str, Tensor], state: dict[str, Any], epoch: int) -> None:
        """Write the own part of each process, and then tensors that all have with the JSON state."""
        own: dict[str, Tensor] = {}
        if not self.processes.alone:
            own = {key: value for key, value in tensors.items() if self._divided(key) or key.startswith(RANDOM)}
        parts: list[tuple[str, str]] = []
        if self.processes.gather(torch.tensor([len(own)]), [1] * self.processes.size).any():
            numbers = [f"{epoch}-{rank}-of-{self.processes.size}" for rank in range(self.processes.size)]
            names = [name.replace(".", f"-{number}.") for number in numbers]
            digest = _save(self.folder / names[self.processes.rank], own, "")
            found = self.processes.gather(torch.tensor([list(bytes.fromhex(digest))], dtype=torch.uint8))
            parts = [(one, bytes(row.tolist()).hex()) for one, row in zip(names, found, strict=True)]
        if self.processes.first:
            shared = {key: value for key, value in tensors.items() if key not in own}
            _save(self.folder / name, shared, json.dumps({**state, "parts": parts}))
            for path in self.folder.glob(name.replace(".", "-*.")):
                if path.name not in [part for part, _ in parts]:
                    path.unlink(missing_ok=True)
        self.processes.wait()

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the JSON state, and the tensors as this process needs them. Raises ModelError."""
        path = self.folder / name
        state, whole = _load(path)
        with damaged(path, "this is not the manifest of a checkpoint", AGAIN):
            digests = dict(state.pop("parts"))
        parts = [_load(self.folder / part, digest)[1] for part, digest in digests.items()]
        tensors = {key: self._own_rows(key, [value]) for key, value in whole.items()}
        if parts:
            same = len(parts) == self.processes.size
            own = parts[self.processes.rank if same else 0]
            tensors |= {key: value for key, value in own.items() if key.startswith(RANDOM)}
            for key in own.keys() - tensors.keys():
                tensors[key] = self._own_rows(key, [part[key] for part in parts])
        return state, tensors

    def _own_rows(self, key: str, parts: list[Tensor]) -> Tensor:
        """Return the rows of a divided tensor that this process needs; other tensors as they are.

        Args:
            key: Its name.
            parts: (rows of a part, ...) the whole tensor in parts. They are mapped from files: only rows that are
                copied here take memory.
        """
        if self.processes.alone or not self._divided(key) or not parts[0].dim():
            return parts[0] if len(parts) == 1 or not parts[0].dim() else torch.cat(parts)
        own, found, start = self.processes.share(sum(map(len, parts))), [], 0
        for part in parts:
            found.append(part[max(own.start - start, 0) : max(own.stop - start, 0)])
            start += len(part)
        return torch.cat(found)


def _save(path: Path, tensors: dict[str, Tensor], text: str) -> str:
    """Write tensors and a JSON text to one file, atomically; return their digest."""
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    digest = digest_of_tensors(copies, text)
    with atomic_write(path) as temporary:
        save_file(copies, temporary, metadata={"progress": text, "sha256": digest})
    return digest


def _load(path: Path, digest: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the JSON state and the tensors of a file. Raises ModelError if it is missing, damaged or another one."""
    try:
        with safe_open(path, "pt") as file:
            saved = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if digest_of_tensors(tensors, saved["progress"]) != (digest or saved["sha256"]):
            raise ValueError("its content is not what was saved")
        return json.loads(saved["progress"] or "{}"), tensors
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(Fault(str(path), f"this checkpoint cannot be read: {error}.", AGAIN, "damaged")) from None


def clear_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints of an older run in the same folder, and those of its refit."""
    for folder in (run_dir / FOLDER, run_dir / REFIT / FOLDER):
        if folder.is_dir():
            shutil.rmtree(folder)
