"""All errors that a user can cause. Each fault says where it is, what was found and how to fix it.

AnyrecError                  exit code 1
|-- InputError               exit code 2; one or more faults, reported together
|   |-- DataError            a dataset that cannot be used as it is
|   |-- ConfigError          a config key, value or combination of them
|   |-- ModelError           a model directory that is missing, damaged or of another program
|   |-- OutputError          an output that cannot be written, or that another process is writing
|   `-- NotFittedError       a call that needs a fitted recommender
|-- MissingDependency        exit code 3; names the command that installs the optional package
`-- ReportedElsewhere        another process of the same training prints the error
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from anyrec.core.secrets import redacted

SHOWN_PER_KIND = 20
"""Faults of one kind that a message lists; the others are counted only."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the input. Passwords in its texts are hidden.

    Attributes:
        where: JSON pointer (`/user_data/3/user_id`), or file and row.
        what: What was found there and what was expected, in one sentence.
        hint: How to fix it, in one sentence.
        kind: A stable name for this kind of fault; faults are counted by it.
    """

    where: str
    what: str
    hint: str = ""
    kind: str = "invalid"

    def __post_init__(self) -> None:
        for name in ("where", "what", "hint"):
            object.__setattr__(self, name, redacted(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.hint}" if self.hint else "")


class AnyrecError(Exception):
    """Base class of all errors that anyrec raises on purpose.

    Attributes:
        exit_code: Exit code of the command line for this error.

    Example:
        try:
            recommender = Recommender.load("models/shop")
        except AnyrecError as error:
            sys.exit(str(error))
    """

    exit_code = 1

    def __reduce__(self) -> tuple[object, ...]:
        """Return how an error is restored in another process: not by its constructor, which takes other arguments."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[AnyrecError], arguments: tuple[object, ...], attributes: dict[str, object]) -> AnyrecError:
    error = cls.__new__(cls, *arguments)
    error.__dict__.update(attributes)
    return error


class InputError(AnyrecError):
    """Bad input, with all the faults that were found.

    Attributes:
        faults: The faults; at least the first 20 of each kind.
        counts: Number of faults of each kind, including those that `faults` does not hold.
        subject: Noun phrase for the first line of the message.
        remarks: Further sentences for the message, about input that is legal but probably a mistake.
    """

    exit_code = 2
    subject = "the input"
    remarks: Sequence[str] = ()

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
    """A dataset that cannot be used as it is."""

    subject = "the data"


class ConfigError(InputError):
    """A config key, value or combination that is not valid."""

    subject = "the config"


class ModelError(InputError):
    """A model directory that is missing, damaged or of another program."""

    subject = "the model directory"


class OutputError(InputError):
    """An output that cannot be written, or that another process is writing."""

    subject = "the output"


class NotFittedError(InputError):
    """A call that needs a fitted recommender.

    Example:
        Recommender.from_config({}).recommend(["user 1"])  # raises NotFittedError: fit or load it first
    """

    subject = "the call"

    def __init__(self) -> None:
        fix = "Call fit(dataset) first, or Recommender.load(folder)."
        super().__init__(Fault("model", "this recommender is not fitted.", fix, "not fitted"))


class MissingDependency(AnyrecError):
    """An optional package that is not installed.

    Args:
        package: Name of the package.
        extra: The extra of anyrec that installs it.
        purpose: Subject of the sentence "... needs the package": what was requested.
    """

    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package '{package}': pip install 'anyrec[{extra}]'")


class ReportedElsewhere(AnyrecError):
    """An error in one of several processes that train together, after another one has failed and prints why.

    Args:
        exit_code: Exit code of the error.
    """

    def __init__(self, exit_code: int):
        super().__init__("another process of this training has failed")
        self.exit_code = exit_code


def checked_path(value: object, where: str, error: type[InputError] = InputError) -> Path:
    """Return a path argument as a `Path`. The path need not exist.

    Args:
        value: The argument as the user passed it.
        where: Name of the argument, for the message.
        error: Class of the error to raise.

    Raises:
        InputError: An `error`, if `value` is neither a string nor a path object, or if the system cannot look the path
            up: it is too long, holds a NUL character, or is inside a folder without permission.
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
    """Return a sentence that suggests the known names closest to `name`, or that lists all if none is close."""
    names = sorted(known)
    return suggestion(name, names, 0.5) or ("Known: " + ", ".join(names) + "." if names else "")


def suggestion(name: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return a sentence that suggests the known names closest to `name`; empty if none is close.

    Args:
        name: A name that is probably misspelt.
        known: The names to suggest.
        cutoff: The least similarity, from 0 to 1.
    """
    near = get_close_matches(name, sorted(known), n=2, cutoff=cutoff)
    return "Did you mean " + " or ".join(f"'{match}'" for match in near) + "?" if near else ""
