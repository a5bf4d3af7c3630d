"""Commands that run in one process. A launcher such as torchrun would start them several times."""

from __future__ import annotations

import time
from typing import Any

from typer.core import TyperCommand

from anyrec.core.errors import Fault, InputError, ReportedElsewhere
from anyrec.core.launcher import copies, first_copy

ABLE = (
    "Only `anyrec train` runs under torchrun; `anyrec tune`, `anyrec recommend --all` and `anyrec embed` use several "
    "processes with `--set cluster.type=ray`."
)
PATIENCE = 10.0
"""Seconds that the other processes wait for the first one to print why all end. The launcher ends them before that."""


class OneProcess(TyperCommand):
    """A command that refuses to run several times at once: each process would overwrite the files of the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, unless a launcher has started several processes."""
        if not ctx.resilient_parsing:  # which completions use
            refuse_copies(ctx.command_path)
        return super().parse_args(ctx, args)


class SharedCommand(TyperCommand):
    """A command that several processes run together."""


def refuse_copies(command: str) -> None:
    """Check that no launcher has started several processes to run a command.

    Args:
        command: Its name.

    Raises:
        InputError: If there are several. In the processes after the first one of a machine it is a `ReportedElsewhere`,
            so that the message is printed once.
    """
    if copies() == 1:
        return
    if not first_copy():
        try:
            time.sleep(PATIENCE)  # a launcher ends all processes when one has ended
        finally:
            raise ReportedElsewhere(InputError.exit_code)
    what = f"a launcher has started {copies()} processes (WORLD_SIZE), and this command runs in one process."
    raise InputError(Fault(command, what, f"Start it without torchrun, or unset WORLD_SIZE. {ABLE}", "processes"))
