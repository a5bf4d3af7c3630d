"""What the commands print: results to standard output, log messages to standard error.

As a library, anyrec logs to the logger `anyrec`, which is silent until a program gives it a handler. A command gives
it the handler below for as long as it runs: information is printed as `note: ...`, warnings as `warning: ...`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from anyrec.cli.one_process import OneProcess

log = logging.getLogger("anyrec")

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print each step and how long it takes.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results and errors only: no notes, warnings or progress.")
]
HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of all commands and groups."""


def console(**options: Any) -> Console:
    """Return a console that prints texts unchanged: brackets are not markup, and `:smile:` is not an emoji."""
    return Console(highlight=False, markup=False, emoji=False, **options)


out, err = console(soft_wrap=True), console(stderr=True, soft_wrap=True)


def print_tables(*tables: Any, width: int = 160) -> None:
    """Print tables to standard output.

    Args:
        tables: Rich tables.
        width: Width in characters if standard output is not a terminal; else the terminal's width is used.
    """
    for column in (column for table in tables for column in table.columns):
        column.overflow = "fold"  # break a long word rather than cut it off
    console(width=None if sys.stdout.isatty() else width).print(*tables, sep="\n")


class TerminalHandler(logging.Handler):
    """Prints log records to standard error, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record: a note, a warning, or with `--verbose` a step with the name of its logger."""
        label = "warning" if record.levelno >= logging.WARNING else "note"
        if record.levelno < logging.INFO:
            label = record.name
        err.print(f"{label}: {record.getMessage()}", markup=False)


@contextmanager
def terminal_log(verbose: bool = False, quiet: bool = False) -> Iterator[None]:
    """Print the log of `anyrec` to standard error within the block.

    Args:
        verbose: Print debug records as well.
        quiet: Print errors only; progress bars are off too. It takes precedence over `verbose`.
    """
    handler, level = TerminalHandler(), log.level
    log.addHandler(handler)
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    started = time.perf_counter()
    try:
        yield
    finally:
        log.debug("finished after %.1f s", time.perf_counter() - started)
        log.removeHandler(handler)
        log.setLevel(level)


def is_quiet() -> bool:
    """Return whether the running command has the option `--quiet`."""
    return not log.isEnabledFor(logging.WARNING)


class Commands(TyperGroup):
    """A group of commands whose help has the whole first paragraph of each command's help, at any width."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the section of the commands, without cutting off descriptions as the base class does."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class WithDefault(Commands):
    """A group whose first command is meant if none is named: `anyrec synth PATH` is `anyrec synth planted PATH`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the name of the first command before them if they begin with none."""
        names = self.list_commands(ctx)
        if args and args[0] not in (*names, *HELP["help_option_names"]):
            args = [names[0], *args]
        return super().parse_args(ctx, args)


class Application(typer.Typer):
    """A typer application whose commands all have `--verbose` and `--quiet`, and whose help is plain and complete.

    The functions of the commands do not change: they are called without these two options.
    """

    def __init__(self, cls: type[TyperGroup] = Commands, no_args_is_help: bool = True, **options: Any):
        super().__init__(
            cls=cls,
            no_args_is_help=no_args_is_help,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            context_settings=HELP,
            **options,
        )

    def command(self, *arguments: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a command, as `typer.Typer.command` does, and return it unchanged.

        It refuses to run in several processes at once, unless `cls` is `SharedCommand`.
        """
        register = super().command(*arguments, **{"context_settings": HELP, "cls": OneProcess, **options})

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_verbosity(function))
            return function

        return decorate


def _with_verbosity(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with the options `verbose` and `quiet` at the end of its parameters.

    `anyrec -q train` is `anyrec train -q`: the options before the name of the command are in the context's `obj`.
    """

    @functools.wraps(function)
    def run(*arguments: Any, ctx: typer.Context, verbose: bool, quiet: bool, **options: Any) -> Any:
        before: dict[str, bool] = ctx.find_root().obj or {}
        with terminal_log(verbose or before.get("verbose", False), quiet or before.get("quiet", False)):
            return function(*arguments, **options)

    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("verbose", Verbose), ("quiet", Quiet))
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [*signature.parameters.values(), context, *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


class ResultsOnly(Console):
    """A console for `anyrec train --quiet`: prints where files were saved, and warnings that follow a saved model."""

    PRINTED = ("saved:", "report:", "warning: the model is saved")

    def __init__(self, target: Console = out):
        super().__init__()
        self.target = target

    def print(self, *objects: Any, **options: Any) -> None:
        """Print the objects if the first is a text that begins with one of `PRINTED`."""
        if objects and isinstance(objects[0], str) and objects[0].startswith(self.PRINTED):
            self.target.print(*objects, **options)
