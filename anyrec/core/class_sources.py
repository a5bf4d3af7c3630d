"""What the source of a module says about its classes, without running it: base classes in whatever file, constants."""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
GROUP = "anyrec"
"""Name of this package, and of the entry-point group of packages with plugins."""
MOST_STEPS = 50
"""Most assignments and imports that are followed for a name, which ends a circle of them."""


@dataclass
class Source:
    """The parsed source of a module.

    Attributes:
        package: Dotted name of the package that relative imports start from; "" for a drop-in file.
        classes: The classes at the top level, by name.
        imports: What imported names stand for: `Base` for `anyrec.Encoder` after `from anyrec import Encoder as Base`.
        aliases: What assigned names stand for, in terms of the module's own names: `Base` for `module.Encoder` after
            `Base = module.Encoder`.
    """

    package: str = ""
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ancestry:
    """A class with its base classes.

    Attributes:
        nodes: The class and those of its base classes whose source was found, each once, the class itself first.
        roots: Names of the base classes in `roots` of `ancestry_of`, nearest first.
    """

    nodes: list[ast.ClassDef]
    roots: list[str]


def read_source(tree: ast.Module, package: str = "") -> Source:
    """Return the classes and names of a parsed module.

    Args:
        tree: The module.
        package: Dotted name of the package that it is in; "" for a drop-in file.
    """
    source = Source(package)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            source.classes[node.name] = node
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                source.imports[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            start = _imported_from(node, package)
            source.imports |= {alias.asname or alias.name: f"{start}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and (value := dotted(node.value)):
            source.aliases |= {one.id: value for one in node.targets if isinstance(one, ast.Name)}
    return source


def ancestry_of(name: str, source: Source, roots: Collection[str]) -> Ancestry:
    """Return a class of a module with all its base classes, also those that other modules define.

    Modules of anyrec and of installed packages with plugins are parsed for it; other packages are not.

    Args:
        name: Name of the class.
        source: Its module.
        roots: Names of base classes at which the search ends, in whatever module they are.
    """
    nodes, found = [source.classes[name]], list[str]()
    waiting = [(source.classes[name], source)]
    for node, place in waiting:
        for base in filter(None, map(dotted, node.bases)):
            full, origin = _resolved(base, place)
            own = origin is not None and not origin.package  # a class of a drop-in file that has the name of a root
            if full in roots and not own:
                found.append(full)
            elif origin is not None and origin.classes[full] not in nodes:
                nodes.append(origin.classes[full])
                waiting.append((origin.classes[full], origin))
    return Ancestry(nodes, found)


def dotted(node: ast.expr) -> str:
    """Return an expression such as `module.Class` as a text; "" for any other expression."""
    if isinstance(node, ast.Subscript):  # a generic class: Base[int]
        return dotted(node.value)
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return f"{start}.{node.attr}" if start else ""
    return node.id if isinstance(node, ast.Name) else ""


def _resolved(name: str, source: Source) -> tuple[str, Source | None]:
    """Follow a name through assignments and imports.

    Returns:
        The name of a class and the module that defines it, or a name that leads no further, and None.
    """
    for _ in range(MOST_STEPS):
        if name in source.classes:
            return name, source
        head, _, rest = name.partition(".")
        if head in source.aliases:
            name = _joined(source.aliases[head], rest)
            continue
        module, _, last = _joined(source.imports.get(head, head), rest).rpartition(".")
        other = _source_of(module) if module else None
        if other is None:
            return last, None
        name, source = last, other
    return name, None


def _joined(start: str, rest: str) -> str:
    """Return a dotted name of two parts, the second of which can be empty."""
    return f"{start}.{rest}" if rest else start


@cache
def _source_of(module: str) -> Source | None:
    """Return the source of an importable module of anyrec or of a package with plugins; None for any other."""
    top, *inner = module.split(".")
    folder = PACKAGE if top == GROUP else _folder_of(top)
    if folder is None:
        return None
    path, package = folder.joinpath(*inner, "__init__.py"), module
    if not path.is_file():
        path, package = path.parent.with_suffix(".py"), module.rpartition(".")[0]
    try:
        return read_source(ast.parse(path.read_text(encoding="utf-8")), package)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _folder_of(package: str) -> Path | None:
    """Return the folder of an installed package, which is not imported, if it has plugins; None otherwise."""
    if package not in {point.value.split(":")[0].split(".")[0] for point in entry_points(group=GROUP)}:
        return None
    spec = find_spec(package)
    locations = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(locations[0]) if locations else None


def _imported_from(node: ast.ImportFrom, package: str) -> str:
    """Return the dotted name of the module that `from ... import` names."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    start = ".".join(parts[: len(parts) - node.level + 1])
    return f"{start}.{node.module}" if node.module else start
