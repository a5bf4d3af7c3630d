"""Every error a user can cause: where it is, what was found, how to mend it.

AnyrecError              exit 1
|-- InputError           exit 2, one or many faults reported together
|   |-- DataError            a dataset that cannot be used as it stands
|   |-- ConfigError          a config key, value or combination
|   |-- ModelError           a model directory that is missing, foreign or damaged
|   `-- OutputError          an output that cannot be written, or that another process is writing
`-- MissingDependency    exit 3, names the install line
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

SHOWN_PER_KIND = 20


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the input.

    where: JSON pointer (`/user_data/3/user_id`) or file and row.
    what: what was found there and what was expected, one sentence.
    mend: what to do about it, one sentence.
    kind: a stable name for this sort of fault; faults are counted by it.
    """

    where: str
    what: str
    mend: str = ""
    kind: str = "invalid"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.mend}" if self.mend else "")


class AnyrecError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(AnyrecError):
    """Bad input, with every fault found.

    `counts` holds how many faults of each kind there are in all; `faults` may hold fewer (20 a kind).
    """

    exit_code = 2
    subject = "the input"
    remarks: Sequence[str] = ()
    """Further sentences for the message, about what is no fault but probably not meant."""

    def __init__(self, faults: Sequence[Fault] | Fault, counts: dict[str, int] | None = None):
        self.faults = [faults] if isinstance(faults, Fault) else list(faults)
        self.counts = counts or dict(Counter(fault.kind for fault in self.faults))
        super().__init__(str(self))

    def __str__(self) -> str:
        total = sum(self.counts.values())
        lines = [f"{total} {'fault' if total == 1 else 'faults'} in {self.subject}:"]
        shown: Counter[str] = Counter()
        for fault in self.faults:
            shown[fault.kind] += 1
            if shown[fault.kind] <= SHOWN_PER_KIND:
                lines.append(f"  {fault}")
        for kind, count in self.counts.items():
            hidden = count - min(shown[kind], SHOWN_PER_KIND)
            if hidden > 0:
                lines.append(f"  ... and {hidden} more of kind '{kind}'")
        lines += self.remarks
        return "\n".join(lines)


class DataError(InputError):
    subject = "the data"


class ConfigError(InputError):
    subject = "the config"


class ModelError(InputError):
    subject = "the model directory"


class OutputError(InputError):
    subject = "the output"


class NotFitted(InputError):
    subject = "the call"

    def __init__(self) -> None:
        fix = "Call fit(dataset) first, or Recommender.load(folder)."
        super().__init__(Fault("model", "this recommender is not fitted.", fix, "not fitted"))


class MissingDependency(AnyrecError):
    """An optional package is needed for what the config asks."""

    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package '{package}': pip install 'anyrec[{extra}]'")


def checked_path(value: Any, where: str, error: type[InputError] = InputError) -> Path:
    """A path given in Python or on the command line, which may not exist. where: the argument's name.

    Raises:
        InputError: As `error`, for anything but a text or a path object, and for a path that the system does not take or
            may not look at: too long, with a NUL character, inside a folder without permission.
    """
    if not isinstance(value, (str, os.PathLike)):
        what = f"expected a path; found {repr(value)[:60]}."
        raise error(Fault(where, what, "Give a text or a pathlib.Path.", "option"))
    path = Path(value)
    try:
        path.is_dir()
    except OSError as problem:
        raise error(Fault(str(path), f"this path cannot be used: {problem.strerror}.", kind="no file")) from None
    if "\0" in str(path):
        raise error(Fault(repr(str(path)), "a path cannot hold a NUL character.", kind="no file"))
    return path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest known names, or lists them all."""
    names = sorted(known)
    near = get_close_matches(name, names, n=2, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(f"'{match}'" for match in near) + "?"
    return "Known: " + ", ".join(names) + "." if names else ""
