"""Finds components: the built-in ones, those of installed packages, and those of drop-in folders.

The files of a folder are parsed, not imported: the name and kind of a component are constants in its source. Listing
plugins therefore loads no torch and runs no foreign code, and a file is imported only when the config names one of its
components.
"""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from anyrec.core.class_sources import ancestry_of, read_source
from anyrec.core.errors import Fault
from anyrec.core.hooks import installed_packages
from anyrec.core.registry import Plugin, Registry, drop_in_module, first_line

SHELVES = ("encoders", "interaction", "classifier")
"""Folders at the top of the repository that are packages of `anyrec`."""
FOLDERS = (
    *SHELVES,
    "retrieval.indexes",
    "retrieval.databases",
    "pipeline.sources",
    "pipeline.rules",
    "data.providers",
    "training.trackers",
)
"""Packages of `anyrec` that hold the built-in components."""
KINDS = {
    "Encoder": "encoder",
    "HistoryEncoder": "encoder",
    "Fusion": "fusion",
    "Interaction": "interaction",
    "Head": "head",
    "Loss": "loss",
    "Sampler": "sampler",
    "Classical": "classical",
    "Index": "index",
    "Source": "source",
    "Rule": "rule",
    "Provider": "provider",
    "VectorDatabase": "vector_database",
    "Tracker": "tracker",
}
"""The kind of component that each base class makes."""
CONSTANTS = ("type", "group", "role", "preferred", "untrained", "reads_files", "schemes", "endings", "marks")
"""The constants of a class that are read from its source."""


@dataclass
class Folder:
    """What the files of one folder define.

    Attributes:
        plugins: The components.
        broken: A fault for each file that cannot be used.
    """

    plugins: list[Plugin] = field(default_factory=list)
    broken: list[Fault] = field(default_factory=list)


class BrokenPlugin(Exception):
    """A plugin file that cannot be used, with its fault."""

    def __init__(self, where: str, what: str, hint: str = ""):
        super().__init__(what)
        self.fault = Fault(where, what, hint, "broken plugin")


def discover(folders: Iterable[str | Path] = (), drop_in: bool = True, *, warn: bool = True) -> Registry:
    """Find all components.

    With the environment variable `ANYREC_NO_PLUGINS=1` only the built-in ones are found.

    Args:
        folders: Folders of drop-in plugins. Folders that do not exist are skipped.
        drop_in: Whether to read `./plugins` as well.
        warn: Whether to log a warning for each plugin file or package that cannot be read. They are in
            `Registry.broken` in any case, and do not keep other components from being used.

    Raises:
        ConfigError: Two components of one kind have the same name.
    """
    registry = Registry()
    for plugin in _built_in():
        registry.add(replace(plugin))
    if os.environ.get("ANYREC_NO_PLUGINS"):
        return registry
    for package in installed_packages():
        for kind, component in package.components:
            registry.add_class(kind, component, f"package {component.__module__.split('.')[0]}")
        registry.broken += [] if package.fault is None else [package.fault]
    for folder in _distinct([*([Path("plugins")] if drop_in else []), *map(Path, folders)]):
        found = read_folder(folder)
        for plugin in found.plugins:
            registry.add(plugin)
        registry.broken += found.broken
    if warn:
        for fault in registry.broken:
            _warn_once(str(fault))
    return registry


def read_folder(folder: Path, package: str | None = None) -> Folder:
    """Find the components that the `.py` files of a folder define, without running them. Files named `_*` are skipped.

    Args:
        folder: The folder.
        package: Dotted name of the package that the folder is; None for a folder of drop-in plugins.
    """
    found = Folder()
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            tree = _parse(path)
            if package is None:
                _refuse_bare_shelves(tree, path)
                found.plugins += _components(tree, path, drop_in_module(path), str(path))
            else:
                origin = f"{package.split('.')[-1]}/{path.name}"
                found.plugins += _components(tree, path, f"{package}.{path.stem}", origin, package)
        except BrokenPlugin as error:
            found.broken.append(error.fault)
    return found


@cache
def _built_in() -> tuple[Plugin, ...]:
    """The built-in components. They are read once for each process: parsing them takes 60 ms."""
    package = Path(__file__).parent.parent
    return tuple(
        plugin
        for folder in FOLDERS
        for plugin in read_folder(package / folder.replace(".", "/"), f"anyrec.{folder}").plugins
    )


@cache
def _warn_once(message: str) -> None:
    """Log a warning, once for each process: a command can read the plugins several times."""
    logging.getLogger("anyrec").warning(message)


def _distinct(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders that exist, each once."""
    seen = set()
    for folder in folders:
        resolved = folder.resolve()
        if resolved not in seen and os.path.isdir(folder):
            seen.add(resolved)
            yield folder


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise BrokenPlugin(f"{path}:{error.lineno}", f"this plugin is not valid Python: {error.msg}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenPlugin(str(path), f"this plugin cannot be read: {error}.", "Remove it.") from None


def _refuse_bare_shelves(tree: ast.Module, path: Path) -> None:
    """Refuse an import of `encoders.text`, which would be a second copy of the module `anyrec.encoders.text`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            shelf = name.split(".")[0]
            if shelf in SHELVES:
                what = f"'{name}' is not the package's own module."
                raise BrokenPlugin(f"{path}:{node.lineno}", what, f"Write import 'anyrec.{shelf}'.")


def _components(tree: ast.Module, path: Path, module: str, origin: str, package: str = "") -> list[Plugin]:
    """The components of a file: its classes with a `type` and a public name that derive from a class of `KINDS`."""
    source = read_source(tree, package)
    found = []
    for name, node in source.classes.items():
        own = _constants(node)
        if not own.get("type") or name.startswith("_"):
            continue
        ancestry = ancestry_of(name, source, KINDS)
        if not ancestry.roots:
            continue
        kind, inherited = KINDS[ancestry.roots[0]], _constants(*reversed(ancestry.nodes))
        found.append(
            Plugin(
                kind=kind,
                type=own["type"],
                doc=first_line(ast.get_docstring(node)),
                origin=origin,
                group=inherited.get("group") or (own["type"] if kind == "encoder" else ""),
                role=inherited.get("role", ""),
                preferred=own.get("preferred") == "True",
                untrained=own.get("untrained") == "True",
                reads_files=inherited.get("reads_files") == "True",
                schemes=inherited.get("schemes", ""),
                endings=inherited.get("endings", ""),
                marks=inherited.get("marks", ""),
                module=module,
                path=path,
                class_name=name,
            )
        )
    return found


def _constants(*nodes: ast.ClassDef) -> dict[str, str]:
    """The constants CONSTANTS of classes; those of later classes take precedence."""
    constants: dict[str, str] = {}
    for statement in (statement for node in nodes for statement in node.body):
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign):
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            named = isinstance(target, ast.Name) and target.id in CONSTANTS
            if named and isinstance(value, ast.Constant):
                constants[target.id] = str(value.value)
    return constants
