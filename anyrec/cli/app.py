"""The application `anyrec` with all its commands, and the entry points of the command line.

Each command is a thin layer over the facade, in the file of its group: `train`, `tune`, `recommend`, `evaluate`,
`data`, `search`, `index`, `export`, `add` (and `update`), `hub`, `init`. Shared options are in `options.py`. Torch is
imported by the commands that need it, not at start-up.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

from typer.core import TyperCommand

from anyrec.cli import add, data, experiment, export, feast, hub, index, init, search, serve, synth, tune  # noqa: F401
from anyrec.cli import evaluate as _evaluate  # noqa: F401
from anyrec.cli.one_process import OneProcess, SharedCommand
from anyrec.cli.options import app
from anyrec.cli.process import run_command
from anyrec.cli.recommend import recommend
from anyrec.cli.terminal import Application
from anyrec.cli.train import train

COMPLETION = "_ANYREC_COMPLETE"
"""Environment variable by which a shell asks for completions."""


def main() -> None:
    """Run the command line `anyrec`.

    Completion is that of the program `anyrec`, also if its script is printed by `python -m anyrec`.
    """
    completes = COMPLETION in os.environ or any(word.endswith("-completion") for word in sys.argv[1:])
    run_command(functools.partial(app, prog_name="anyrec") if completes else app)


def train_main() -> None:
    """Run `train.py`: the command `train` alone."""
    _run_alone(train, SharedCommand)


def inference_main() -> None:
    """Run `inference.py`: the command `recommend` alone."""
    _run_alone(recommend)


def _run_alone(command: Callable[..., None], cls: type[TyperCommand] = OneProcess) -> None:
    """Run one command, of a class, as a program of its own."""
    single = Application(add_completion=False, no_args_is_help=False)
    single.command(cls=cls)(command)
    run_command(single)


if __name__ == "__main__":
    main()
