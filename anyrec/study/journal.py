"""The Optuna study in a journal file. One process writes it, and a process that is killed loses no finished epoch.

The values of a trial depend on the seed, the number of the trial and the trials before it only: each trial has a
sampler of its own, seeded by both. A trial that a killed process was running keeps its number and its values, so an
interrupted study goes on as if it had not been interrupted.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyrec.core.config import TuneConfig
from anyrec.core.config.tune import COSTS
from anyrec.core.errors import MissingDependency
from anyrec.core.types import Json, JsonObject
from anyrec.study.space import Searched, active

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

JOURNAL = "journal.log"
LOCK = ".lock"
"""Ending of the file that marks the journal as being written."""


class Journal:
    """The trials of a study.

    Args:
        folder: Folder of the journal; an existing one is continued.
        name: Name of the study.
        space: The searched keys.
        objectives: Names of the objectives.
        options: The section `tune`.
        seed: Seed of the study.
        epochs: Most epochs of a trial.
        start: Values of the first trial as the study stores them; None for any.

    Raises:
        MissingDependency: If Optuna is not installed.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        space: Sequence[Searched],
        objectives: Sequence[str],
        options: TuneConfig,
        seed: int,
        epochs: int,
        start: JsonObject | None,
    ):
        try:
            import optuna
        except ModuleNotFoundError:
            raise MissingDependency("optuna", "tune", "anyrec tune") from None
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.objectives, self._options, self._seed = space, list(objectives), options, seed
        path = folder / JOURNAL
        _repair(path)
        self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        self.study: Study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=["minimize" if one in COSTS else "maximize" for one in objectives],
            sampler=self._sampler(0),
            pruner=_pruner(options, len(objectives), epochs),
            load_if_exists=True,
        )
        self._running: dict[int, Trial] = {}
        if start is not None and not self.trials():
            self.study.enqueue_trial(start)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials that were started, in their order."""
        from optuna.trial import TrialState

        return [one for one in self.study.get_trials(deepcopy=False) if one.state != TrialState.WAITING]

    def interrupted(self) -> list[int]:
        """Return the numbers of the trials that a former process was running."""
        return [one.number for one in self.trials() if not one.state.is_finished() and one.number not in self._running]

    def next(self, interrupted: int | None = None) -> tuple[int, JsonObject]:
        """Start a trial.

        Args:
            interrupted: Number of a trial that a former process was running, to start it again; None for a new one.

        Returns:
            Its number, and the values of the searched keys.
        """
        from optuna import Trial

        number = len(self.trials()) if interrupted is None else interrupted
        self.study.sampler = self._sampler(number)
        if interrupted is None:
            trial = self.study.ask()
        else:
            study = self._storage.get_study_id_from_name(self.study.study_name)
            trial = Trial(self.study, self._storage.get_trial_id_from_study_id_trial_number(study, number))
        values: JsonObject = {}
        for one in self.space:
            if active(values, one):
                values[one.key] = one.suggest(trial)
        self._running[number] = trial
        return number, values

    def report(self, number: int, epoch: int, value: float) -> None:
        """Record the first objective of a running trial after an epoch, once."""
        if len(self.objectives) == 1 and epoch not in self.trials()[number].intermediate_values:
            self._running[number].report(value, epoch)

    def should_stop(self, number: int) -> bool:
        """Return whether the pruner ends a running trial."""
        return len(self.objectives) == 1 and self._running[number].should_prune()

    def note(self, number: int, **facts: Json) -> None:
        """Record facts about a running trial."""
        for name, value in facts.items():
            self._running[number].set_user_attr(name, value)

    def finish(self, number: int, values: Sequence[float] | None, stopped: bool = False) -> None:
        """End a running trial.

        Args:
            number: Its number.
            values: Its objectives; None if it has none.
            stopped: Whether it was ended early; otherwise a trial without values has failed.
        """
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if values is not None else TrialState.PRUNED if stopped else TrialState.FAIL
        self.study.tell(number, values, state)
        del self._running[number]

    def importance(self) -> dict[str, float]:
        """Return the share of each searched key in the variation of the first objective, the largest first.

        By PED-ANOVA (Watanabe et al., IJCAI 2023), as Optuna has it. Empty with fewer than four complete trials, or if
        all have the same value.
        """
        from optuna.importance import get_param_importances
        from optuna.trial import TrialState

        complete = [one for one in self.trials() if one.state == TrialState.COMPLETE]
        if len(complete) < 4 or len({one.values[0] for one in complete}) < 2:
            return {}
        sign = 1.0 if self.objectives[0] in COSTS else -1.0  # the evaluator looks for what makes the target low
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = get_param_importances(self.study, target=lambda trial: sign * trial.values[0])
        return {key: value for key, value in found.items() if value == value}

    def front(self) -> list[int]:
        """Return the numbers of the trials that no other trial beats in all objectives."""
        return [one.number for one in self.study.best_trials]

    def _sampler(self, number: int) -> BaseSampler:
        """Return the sampler of one trial."""
        from optuna.samplers import RandomSampler, TPESampler

        digest = hashlib.sha256(f"{self._seed} {number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "little")
        if self._options.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=self._options.startup_trials)


def _pruner(options: TuneConfig, objectives: int, epochs: int) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if options.pruner == "none" or objectives > 1:
        return NopPruner()
    if options.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(2, epochs))
    return MedianPruner(n_startup_trials=5, n_warmup_steps=options.warmup_epochs)


def _repair(path: Path) -> None:
    """Remove what a killed process left: a line that it had begun to write, and the mark that it was writing.

    The caller has the lock of the study's folder, so no other process writes the journal.
    """
    Path(f"{path}{LOCK}").unlink(missing_ok=True)
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
