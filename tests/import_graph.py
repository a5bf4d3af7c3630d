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
    ("storage", "export"),
    ("recommender", "sklearn"),
    ("report", "serving", "study"),
    ("cli", "__main__"),
]
"""From the lowest to the highest: a module imports its own layer and lower ones. ARCHITECTURE.md draws the same."""

LAZY = {
    "torch": "1.2 s to import; commands that need no model run without it",
    "torchvision": "imports torch",
    "sentence_transformers": "4 s to import",
    "transformers": "2 s to import",
    "faiss": "loads its own BLAS; only indexes need it",
    "annoy": "an extra",
    "usearch": "an extra",
    "qdrant_client": "an extra",
    "diffusers": "an extra",
    "adbc_driver_sqlite": "an extra",
    "adbc_driver_postgresql": "an extra",
    "duckdb": "an extra",
    "deltalake": "an extra",
    "pyiceberg": "an extra",
    "datasets": "an extra",
    "huggingface_hub": "0.3 s to import; one provider needs it",
    "confluent_kafka": "an extra",
    "python_calamine": "an extra",
    "ray": "an extra",
    "onnx": "an extra",
    "onnxruntime": "an extra",
    "onnxscript": "an extra",
    "tokenizers": "exports of language models need it",
    "mlflow": "an extra",
    "tensorboard": "an extra",
    "wandb": "an extra",
    "optuna": "an extra",
    "polars": "an extra",
    "pymilvus": "an extra",
    "pgvector": "an extra",
    "psycopg": "an extra",
    "sklearn": "1 s to import; one classical model needs it",
    "scipy": "its special functions and statistics take 0.3 s",
    "matplotlib": "0.5 s to import; only reports draw",
    "safetensors": "its torch part imports torch",
    "rich": "only a terminal needs it",
    "numpy": "0.1 s to import; the terminal's help runs without it",
    "pyarrow": "0.1 s to import; the terminal's help runs without it",
}
"""Packages that may be imported within a function, and why: nowhere else is an import within a function allowed.

The modules of anyrec/cli also import modules of anyrec that import one of these.
"""


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


def inner_imports(path: Path) -> list[str]:
    """The modules that are imported within a function of a file."""
    found = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module:
                    found.append(node.module)
                elif isinstance(node, ast.Import):
                    found += [alias.name for alias in node.names]
    return found


def long_functions(path: Path, most: int) -> list[str]:
    """The functions of a file that have more than `most` lines."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return [f"{path.name}: {one.name}" for one in functions if (one.end_lineno or 0) - one.lineno >= most]


def private_accesses(path: Path) -> list[str]:
    """Attributes with a leading underscore of objects other than `self` and `cls`, dunders left out."""
    return [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and not isinstance(node.value, ast.Call)
    ]
