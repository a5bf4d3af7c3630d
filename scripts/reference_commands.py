"""The reference of the commands, from their help; for generate_docs.py."""

from __future__ import annotations

import inspect
from typing import Any

from reference_config import cell

ORDER = (
    "init", "validate", "describe", "doctor", "train", "tune", "report", "evaluate", "compare", "recommend", "embed",
    "add", "update", "search", "similar", "index", "plugins", "schema", "synth", "convert", "demo",
)  # fmt: skip
"""The commands in the order in which they are used. Commands that are not named here follow."""
SHARED = ("verbose", "quiet", "help")
"""Options of every command, which the page describes once."""


def part(name: str) -> str:
    """Return the text of a part of docs/cli.md."""
    commands = all_commands()
    return (
        summary(commands) if name == "summary" else "\n".join(section(name, found) for name, found in commands.items())
    )


def all_commands() -> dict[str, Any]:
    """Return the commands by name, as typer's command objects; `convert movielens` is one name."""
    import typer

    from anyrec.cli.app import app

    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # the application has several commands
    names = [*(name for name in ORDER if name in top), *(name for name in top if name not in ORDER)]
    found: dict[str, Any] = {}
    for name in names:
        inner = getattr(top[name], "commands", None)
        found |= {name: top[name]} if inner is None else {f"{name} {key}": value for key, value in inner.items()}
    return found


def summary(commands: dict[str, Any]) -> str:
    """Return a table of all commands with the first line of their help."""
    rows = [
        f"| [`anyrec {name}`](#anyrec-{name.replace(' ', '-')}) | {first_line(found)} |"
        for name, found in commands.items()
    ]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def first_line(command: Any) -> str:
    """Return the first paragraph of a command's help."""
    return cell(" ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split()))


def section(name: str, command: Any) -> str:
    """Return the section of one command: its help, arguments and options."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name not in SHARED]
    usage = " ".join(
        ["anyrec", name, *(f"{one.name.upper()}" if one.required else f"[{one.name.upper()}]" for one in arguments)]
    )
    lines = [f"## anyrec {name}", "", f"    {usage}" + (" [OPTIONS]" if options else ""), ""]
    lines += [cell(inspect.cleandoc(command.help or "")), ""]
    if arguments or options:
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        lines += [row(one) for one in [*arguments, *options]]
        lines.append("")
    return "\n".join(lines)


def row(parameter: Any) -> str:
    """Return the row of an argument or option."""
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    else:
        hyphened = [one for one in parameter.opts if "_" not in one] or list(parameter.opts)
        names = ", ".join(f"`{one}`" for one in [*hyphened, *parameter.secondary_opts])
    value = parameter.default
    if parameter.required:
        default = "required"
    elif value is None or value is False or value in ([], ()):
        default = ""
    else:
        default = f"`{'on' if value is True else value}`"
    return f"| {names} | {default} | {cell(parameter.help)} |"
