"""Strict YAML: the values of JSON in the notation of YAML 1.2, with line numbers in all faults.

Only the core schema is read: `yes` and `2024-05-01` are texts, `1e-3` is a number. Tags, aliases and several documents
in a file are refused, so that a file has one meaning and cannot grow when it is read. Numbers of data that are texts
in YAML 1.1 are refused as well: its writers, PyYAML among them, put no quotes around the article number `12E4`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import yaml

from anyrec.core.errors import Fault, InputError
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show

ENDINGS = (".yaml", ".yml")
PLAIN = "plain"
"""Tag of a scalar without quotes, whose text decides its type."""
TEXT = "tag:yaml.org,2002:str"
CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
ZEROS = re.compile(r"[-+]?0[0-9]+")
"""A number that YAML versions read differently: 010 is 10 or 8."""
BASES = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """Composes the nodes of a document, and leaves the types of scalars to `_Reader`."""

    def resolve(self, kind: type[yaml.Node], value: object, implicit: object) -> str:
        """Return the tag of a node that has none."""
        if kind is yaml.ScalarNode and isinstance(implicit, tuple) and implicit[0]:
            return PLAIN
        return super().resolve(kind, value, implicit)

    def is_text_in_1_1(self, value: str) -> bool:
        """Whether YAML 1.1 reads a scalar without quotes as a text."""
        return super().resolve(yaml.ScalarNode, value, (True, False)) == TEXT


def is_yaml(path: Path) -> bool:
    """Return whether a file is YAML by its name, packed by gzip or not."""
    name = path.name.lower()
    return name.removesuffix(".gz").endswith(ENDINGS)


def parse_yaml(text: str, path: Path, error: type[InputError], *, data: bool = False) -> Json:
    """Parse YAML.

    Args:
        text: The text.
        path: Its file, for messages.
        error: The class of the error to raise.
        data: Refuse numbers that YAML 1.1 reads as texts, such as `1e-3`. In a config the type of the key decides.

    Raises:
        InputError: An `error`, if it is not YAML, or with every key that occurs more than once, key that is no text,
            tag, alias and ambiguous number.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        reader = _Reader(path, loader.is_text_in_1_1 if data else None)
        value = None if root is None else reader.value(root)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        what = f"not valid YAML: {problem.problem or problem.context}."
        hint = "Indent by spaces." if "\\t" in what else ""
        raise error(Fault(where, what, hint, "yaml")) from None
    except yaml.YAMLError as problem:
        raise error(Fault(str(path), f"not valid YAML: {str(problem).splitlines()[0]}.", kind="yaml")) from None
    except RecursionError:
        raise error(Fault(str(path), "not usable YAML: it is nested too deeply.", kind="yaml")) from None
    if reader.faults:
        raise error(reader.faults)
    return value


class _Reader:
    """Converts nodes to JSON values and collects faults.

    Args:
        path: The file, for messages.
        is_refused: Tells which numbers are refused; None for none.
    """

    def __init__(self, path: Path, is_refused: Callable[[str], bool] | None):
        self.path, self._is_refused = path, is_refused
        self.faults: list[Fault] = []
        self._seen: set[int] = set()

    def value(self, node: yaml.Node) -> Json:
        """Return the value of a node."""
        if id(node) in self._seen:
            self._fault(node, "the anchor here is used again by an alias (*).", "Write the value out in both places.")
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(part) for part in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag == PLAIN:
            return self._plain(node)
        if isinstance(node, yaml.ScalarNode) and node.tag == TEXT:
            return node.value
        self._fault(node, f"the tag {show(node.tag)} is not read.", "Remove it; put a text in quotes.")
        return None

    def _mapping(self, node: yaml.MappingNode) -> JsonObject:
        found: JsonObject = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, value = self.value(key_node), self.value(value_node)
            if not isinstance(key, str):
                self._fault(key_node, f"the key {show(key)} is no text.", "Put it in quotes.")
            elif key in lines:
                what = f"the key {show(key)} occurs more than once: it is in line {lines[key]}, too."
                self._fault(key_node, what, "Keep one of them.", "repeated key")
            else:
                found[key], lines[key] = value, key_node.start_mark.line + 1
        return found

    def _plain(self, node: yaml.ScalarNode) -> Json:
        text = node.value
        if text in CONSTANTS:
            return CONSTANTS[text]
        if ZEROS.fullmatch(text):
            self._fault(node, f"{text} begins with a zero.", "Put a text in quotes; write a number without it.")
            return None
        if NOT_FINITE.fullmatch(text):
            self._fault(node, f"{text} is not finite.", "Use a finite number, or null where the key allows it.")
            return None
        try:
            found = _number(text)
        except ValueError:
            self._fault(node, "a number with thousands of digits.", "Put a text in quotes.")
            return None
        if found is None:
            return text
        if self._is_refused is not None and self._is_refused(text):
            what = f"{text} is a number in YAML 1.2, and a text in YAML 1.1."
            self._fault(node, what, f"Put a text in quotes; write the number as {_in_both(found)}.")
        return found

    def _fault(self, node: yaml.Node, what: str, hint: str, kind: str = "yaml") -> None:
        self.faults.append(Fault(f"{self.path}:{node.start_mark.line + 1}", what, hint, kind))


def _number(text: str) -> int | float | None:
    """Return the number that a scalar without quotes is; None for a text.

    Raises:
        ValueError: For more digits than Python reads.
    """
    if WHOLE.fullmatch(text):
        return int(text)
    if BASES.fullmatch(text):
        return int(text, 0)
    return float(text) if FRACTION.fullmatch(text) else None


def _in_both(number: float) -> str:
    """Return a number as YAML 1.1 and 1.2 write it."""
    return yaml.safe_dump(number).split("\n")[0]
