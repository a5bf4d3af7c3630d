"""The graph of the project's own imports, read from its syntax trees; for tests/test_structure.py."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = [
    ("core",),
    ("data",),
    ("model", "encoders", "interaction", "classifier"),
    ("retrieval", "evaluation"),
    ("training", "pipeline", "testing"),
    ("storage",),
    ("recommender", "answers"),
    ("report", "serving"),
    ("cli",),
]
"""From the lowest to the highest: a module imports its own layer and lower ones. ARCHITECTURE.md draws the same."""


def modules(folder: Path, name: str) -> dict[str, Path]:
    """Files by dotted module name; links are followed once."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        module = ".".join(
            [name, *path.relative_to(folder).with_suffix("").parts]
            if name
            else [*path.relative_to(folder).with_suffix("").parts]
        )
        found[module.removesuffix(".__init__")] = path
    return found


def package() -> dict[str, Path]:
    """Every module of the package, the linked folders included."""
    found = modules(ROOT / "anyrec", "anyrec")
    for link in ("encoders", "interaction", "classifier"):
        found |= modules(ROOT / link, f"anyrec.{link}")
    return found


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules among `known` that a file imports anywhere: at the top, in functions, for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def graph(known: dict[str, Path]) -> dict[str, set[str]]:
    return {name: imports_of(path, known) - {name} for name, path in known.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            place = stack.index(name)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                found.append(sorted(component))

    for name in edges:
        if name not in index:
            visit(name)
    return found


def layer(module: str) -> int:
    """The place of a module in LAYERS; the package itself, which exports from all layers, is above them."""
    part = module.split(".")[1] if "." in module else ""
    return next((n for n, names in enumerate(LAYERS) if part in names), len(LAYERS) if not part else -1)
