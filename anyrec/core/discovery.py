"""Finds components and hands out their classes by kind and name.

Three doors, one registry: the shelves of this repository, installed packages (entry point group `anyrec`,
through pluggy) and drop-in folders. A folder's files are read, not run: a component's name stands in its source, so
listing plugins loads no torch, and a file is imported only when the config names something in it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.renamed import present_name
from anyrec.core.strict_json import plain, pointer, show

hookspec = pluggy.HookspecMarker("anyrec")
hookimpl = pluggy.HookimplMarker("anyrec")

SHELVES = ("encoders", "interaction", "classifier")
FOLDERS = (*SHELVES, "retrieval.indexes", "pipeline.sources", "pipeline.rules")
"""Where the built-in components are, within the package."""
BASES = {
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
}
DEFAULT_ENCODERS = {
    "identity": "identity",
    "categorical": "categorical",
    "continuous": "continuous",
    "text": "hashed",
    "image": "cnn",
}


class Hooks:
    """What an installed package may implement; each returns a list of classes."""

    @hookspec
    def anyrec_encoders(self) -> list[type]:  # type: ignore[empty-body]
        """Encoder classes."""

    @hookspec
    def anyrec_fusions(self) -> list[type]:  # type: ignore[empty-body]
        """Fusion classes."""

    @hookspec
    def anyrec_interactions(self) -> list[type]:  # type: ignore[empty-body]
        """Interaction classes."""

    @hookspec
    def anyrec_heads(self) -> list[type]:  # type: ignore[empty-body]
        """Head classes."""

    @hookspec
    def anyrec_losses(self) -> list[type]:  # type: ignore[empty-body]
        """Loss classes."""

    @hookspec
    def anyrec_samplers(self) -> list[type]:  # type: ignore[empty-body]
        """Sampler classes."""

    @hookspec
    def anyrec_classicals(self) -> list[type]:  # type: ignore[empty-body]
        """Classical model classes."""

    @hookspec
    def anyrec_indexes(self) -> list[type]:  # type: ignore[empty-body]
        """Vector index classes."""

    @hookspec
    def anyrec_sources(self) -> list[type]:  # type: ignore[empty-body]
        """Classes of sources of candidates."""

    @hookspec
    def anyrec_rules(self) -> list[type]:  # type: ignore[empty-body]
        """Rule classes."""


@dataclass
class Plugin:
    """One component: known by name at once, imported when asked for."""

    kind: str
    type: str
    doc: str
    origin: str
    group: str = ""
    role: str = ""
    module: str = ""
    path: Path | None = None
    class_name: str = ""
    loaded: type | None = field(default=None, repr=False)

    def load(self) -> type[Any]:
        loaded = self.loaded
        if loaded is None:
            try:
                loaded = self.loaded = getattr(_import(self.module, self.path), self.class_name)
            except Exception as error:
                if self.module.startswith("anyrec."):
                    raise
                fault = Fault(
                    self.origin, f"this plugin cannot be imported: {error}.", "Fix or remove it.", "broken plugin"
                )
                raise ConfigError(fault) from error
        return loaded


class Registry:
    """All components, by kind and name."""

    def __init__(self) -> None:
        self._plugins: dict[tuple[str, str], Plugin] = {}

    def add(self, plugin: Plugin) -> None:
        """Raises ConfigError when another component of the same kind has the name."""
        known = self._plugins.get((plugin.kind, plugin.type))
        if known is not None and known.origin != plugin.origin:
            raise ConfigError(
                Fault(
                    plugin.origin,
                    f"the {plugin.kind} '{plugin.type}' is already defined in {known.origin}.",
                    "Give one of the two another `type`.",
                    "duplicate plugin",
                )
            )
        self._plugins[plugin.kind, plugin.type] = plugin

    def add_class(self, kind: str, cls: type[Any], origin: str) -> None:
        self.add(
            Plugin(
                kind=kind,
                type=cls.type,
                doc=_first_line(cls.__doc__),
                origin=origin,
                group=getattr(cls, "group", "") or (cls.type if kind == "encoder" else ""),
                role=getattr(cls, "role", ""),
                module=cls.__module__,
                class_name=cls.__qualname__,
                loaded=cls,
            )
        )

    def plugins(self, kind: str | None = None) -> list[Plugin]:
        return sorted(
            (plugin for plugin in self._plugins.values() if kind in (None, plugin.kind)),
            key=lambda plugin: (plugin.kind, plugin.group, plugin.type),
        )

    def names(self, kind: str) -> list[str]:
        return [plugin.type for plugin in self.plugins(kind)]

    def groups(self) -> list[str]:
        """The data groups that some encoder reads."""
        return sorted({plugin.group for plugin in self.plugins("encoder")})

    def get(self, kind: str, name: str, where: str = "/") -> type[Any]:
        """The class; raises ConfigError at `where` (a JSON pointer into the config) for an unknown name."""
        plugin = self._plugins.get((kind, present_name(kind, name)))
        if plugin is None:
            raise ConfigError(
                Fault(where, f"there is no {kind} '{name}'.", did_you_mean(name, self.names(kind)), "unknown plugin")
            )
        return plugin.load()

    def params(self, kind: str, name: str, options: dict[str, Any], where: str = "/") -> BaseModel:
        """The component's options, read as strict JSON. Raises ConfigError with every bad one."""
        cls = self.get(kind, name, f"{where}/type")
        options, faults = plain(options)
        if faults:
            inside = where.rstrip("/")
            raise ConfigError([replace(fault, where=inside + fault.where.rstrip("/")) for fault in faults])
        try:
            return cls.Params.model_validate_json(json.dumps(options))
        except ValidationError as error:
            raise ConfigError(faults_of(error, cls.Params, where)) from None

    def encoder_for(self, group: str, role: str = "") -> str | None:
        """The name of a group's default encoder, or None when no encoder reads the group."""
        if group in DEFAULT_ENCODERS:
            return DEFAULT_ENCODERS[group]
        fitting = [plugin for plugin in self.plugins("encoder") if plugin.group == group and plugin.role in ("", role)]
        exact = [plugin.type for plugin in fitting if plugin.type == group or (role and plugin.role == role)]
        return (exact or [plugin.type for plugin in fitting] or [None])[0]


def discover(folders: Iterable[str | Path] = (), drop_in: bool = True) -> Registry:
    """Every component of the shelves, of installed packages, of `./plugins` (if `drop_in`) and of `folders`.

    `ANYREC_NO_PLUGINS=1` leaves all but the shelves out.
    """
    registry = Registry()
    for plugin in _built_in():
        registry.add(replace(plugin))
    if os.environ.get("ANYREC_NO_PLUGINS"):
        return registry
    _add_installed(registry)
    seen = set()
    for folder in [*([Path("plugins")] if drop_in else []), *map(Path, folders)]:
        resolved = folder.resolve()
        if resolved in seen or not os.path.isdir(folder):
            continue
        seen.add(resolved)
        for plugin in read_folder(folder, None):
            registry.add(plugin)
    return registry


@cache
def _built_in() -> tuple[Plugin, ...]:
    """The components of the shelves, read once a process."""
    package = Path(__file__).parent.parent
    return tuple(
        plugin for folder in FOLDERS for plugin in read_folder(package / folder.replace(".", "/"), f"anyrec.{folder}")
    )


def read_folder(folder: Path, package: str | None) -> list[Plugin]:
    """The components defined in a folder's files, found in their source without running it."""
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            raise ConfigError(
                Fault(f"{path}:{error.lineno}", f"this plugin is not valid Python: {error.msg}.", kind="broken plugin")
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                Fault(str(path), f"this plugin cannot be read: {error}.", "Remove it.", "broken plugin")
            ) from None
        if package is None:
            _refuse_bare_shelves(tree, path)
        module = f"{package}.{path.stem}" if package else _module_name(path)
        found += _components(
            tree, path, module, str(path) if package is None else f"{package.split('.')[-1]}/{path.name}"
        )
    return found


def faults_of(error: ValidationError, model: type[BaseModel], where: str = "") -> list[Fault]:
    """A pydantic error as faults, with a suggestion for each unknown key."""
    faults = []
    for item in error.errors():
        place = where + pointer(item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, item["loc"][:-1])
            faults.append(Fault(place, "unknown key.", did_you_mean(str(item["loc"][-1]), known), "unknown key"))
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f" (found {show(item['input'])})"
            faults.append(Fault(place or "/", f"{message}{shown}.", kind="bad value"))
    return faults


def _fields_at(model: Any, location: Sequence[Any]) -> list[str]:
    for part in location:
        info = getattr(model, "model_fields", {}).get(part)
        if info is None:
            return []
        model = info.annotation
    return list(getattr(model, "model_fields", {}))


def _components(tree: ast.Module, path: Path, module: str, origin: str) -> list[Plugin]:
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = []
    for node in classes.values():
        kind = _kind(node, classes)
        constants = _constants(node, classes)
        if kind is None or not constants.get("type") or node.name.startswith("_"):
            continue
        found.append(
            Plugin(
                kind=kind,
                type=constants["type"],
                doc=_first_line(ast.get_docstring(node)),
                origin=origin,
                group=constants.get("group") or (constants["type"] if kind == "encoder" else ""),
                role=constants.get("role", ""),
                module=module,
                path=path,
                class_name=node.name,
            )
        )
    return found


def _kind(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> str | None:
    """The kind of component a class is, by the name of its base, followed through the file's own classes."""
    for base in node.bases:
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        if name in BASES:
            return BASES[name]
        if name in classes and classes[name] is not node:
            kind = _kind(classes[name], classes)
            if kind:
                return kind
    return None


def _constants(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    """The class's `type`, `group` and `role`, its own or inherited within the file."""
    constants: dict[str, str] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes and base.id != node.name:
            constants.update(_constants(classes[base.id], classes))
    constants.pop("type", None)
    for statement in node.body:
        targets = (
            statement.targets
            if isinstance(statement, ast.Assign)
            else [statement.target]
            if isinstance(statement, ast.AnnAssign)
            else []
        )
        value = getattr(statement, "value", None)
        for target in targets:
            if (
                isinstance(target, ast.Name)
                and target.id in ("type", "group", "role")
                and isinstance(value, ast.Constant)
            ):
                constants[target.id] = str(value.value)
    return constants


def _refuse_bare_shelves(tree: ast.Module, path: Path) -> None:
    """`encoders.text` would be a second copy of `anyrec.encoders.text`, whose classes are others of the same name."""
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.split(".")[0] in SHELVES:
                fault = Fault(
                    f"{path}:{node.lineno}",
                    f"'{name}' is not the package's own module.",
                    f"Write import 'anyrec.{name.split('.')[0]}'.",
                    "broken plugin",
                )
                raise ConfigError(fault)


def _module_name(path: Path) -> str:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"anyrec_plugin_{path.stem}_{digest}"


def _import(module: str, path: Path | None) -> Any:
    if module in sys.modules:
        return sys.modules[module]
    if path is None or module.startswith("anyrec."):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise
    return loaded


def _add_installed(registry: Registry) -> None:
    if not entry_points(group="anyrec"):
        return
    manager = pluggy.PluginManager("anyrec")
    manager.add_hookspecs(Hooks)
    manager.load_setuptools_entrypoints("anyrec")
    manager.check_pending()
    kinds = {
        "anyrec_encoders": "encoder",
        "anyrec_fusions": "fusion",
        "anyrec_interactions": "interaction",
        "anyrec_heads": "head",
        "anyrec_losses": "loss",
        "anyrec_samplers": "sampler",
        "anyrec_classicals": "classical",
        "anyrec_indexes": "index",
        "anyrec_sources": "source",
        "anyrec_rules": "rule",
    }
    for hook, kind in kinds.items():
        for classes in getattr(manager.hook, hook)():
            for cls in classes:
                registry.add_class(kind, cls, f"package {cls.__module__.split('.')[0]}")


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().split("\n")[0]
