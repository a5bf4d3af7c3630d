"""Towers and interactions as ONNX graphs, traced by torch.export, whose own files are pickles and are not written."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from anyrec.core.contracts import Head, Interaction
from anyrec.core.errors import Fault, InputError, MissingDependency
from anyrec.core.ragged import Padded
from anyrec.data.ids import Side
from anyrec.export.inputs import EVENTS
from anyrec.model.two_tower_network import TwoTower

OPSET = 18
"""Version of the ONNX operators: the oldest that the exporter writes, which most runtimes read."""
ROWS, ITEMS, LENGTH = 3, 5, 7
"""Sizes of the dynamic dimensions in the trace. The graph does not depend on them; they differ so that they cannot be
mistaken for each other. Lengths go up from LENGTH."""
MOST_INLINE = 1 << 30
"""Bytes of weights up to which they are in the graph's own file; a protobuf file has at most 2 GiB."""
VECTOR, HISTORY = "vector", "history"
"""Outputs of a tower: what the scorer reads, and the vector of an item that histories read, if it is another one."""


class TowerGraph(nn.Module):
    """One tower, from the inputs of `anyrec.export.inputs` to the vectors that the scorer reads.

    Args:
        network: The network.
        side: Whose tower.
    """

    def __init__(self, network: TwoTower, side: Side):
        super().__init__()
        self.side, self.tower, self.interaction = side, network.tower(side), network.interaction
        self.layers = nn.ModuleList(encoder.exported_layers() for _, encoder in self.tower.named_encoders())
        self.outputs = [VECTOR]
        maps_items = type(self.interaction).item_vectors is not Interaction.item_vectors
        if side == "item" and network.has_history and (self.reads_tokens or maps_items):
            self.outputs.append(HISTORY)

    @property
    def reads_tokens(self) -> bool:
        """Whether the interaction reads the vectors of the features."""
        return self.interaction.reads == "tokens"

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs that `outputs` names: (batch, dim), or (batch, features, dim) if tokens are read."""
        encoded = {
            name: (self._encoded(name, layers, inputs), inputs[f"{name}.present"])
            for (name, _), layers in zip(self.tower.named_encoders(), self.layers, strict=True)
        }
        tokens, present = self.tower.joined(encoded)
        fused = None if self.reads_tokens and len(self.outputs) == 1 else self.tower.fusion(tokens, present)
        if self.reads_tokens:
            vector = self.tower.fusion.fill(tokens, present)
        else:
            assert fused is not None
            vector = self._vector(fused)
        return (vector,) if len(self.outputs) == 1 else (vector, cast(Tensor, fused))

    def _vector(self, fused: Tensor) -> Tensor:
        """Return vectors whose dot products are the scores, if the interaction has them."""
        if not self.interaction.factorised:
            return fused
        return self.interaction.user_vectors(fused) if self.side == "user" else self.interaction.item_vectors(fused)

    def _encoded(self, name: str, layers: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors (batch, width) of a feature."""
        if f"{name}.vectors" in inputs:
            vectors, mask = inputs[f"{name}.vectors"], inputs[f"{name}.mask"]
            places = torch.arange(mask.shape[0] * mask.shape[1], device=mask.device)
            events = {"items": Padded(places, mask)}
            events |= {part: Padded.of(inputs[f"{name}.{part}"], mask) for part in EVENTS if f"{name}.{part}" in inputs}
            return layers(events, vectors.flatten(0, 1))
        if f"{name}.mask" in inputs:
            return layers(Padded.of(inputs[f"{name}.values"], inputs[f"{name}.mask"]))
        return layers(inputs[f"{name}.values"])


class ScorerGraph(nn.Module):
    """Scores of what the towers' graphs return."""

    def __init__(self, interaction: Interaction | None):
        super().__init__()
        self.interaction = None if interaction is None or interaction.factorised else interaction

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor]:
        """Return (batch, items) for `users: (batch, ...)` and `items: (items, ...)`."""
        users, items = inputs["users"], inputs["items"]
        return (users @ items.T if self.interaction is None else self.interaction.score(users, items),)


class PairGraph(nn.Module):
    """Scores of pairs of what the towers' graphs return, and what the heads answer.

    A head reads `Interaction.pair` of the vectors that scores are dot products of, if there are any.
    """

    def __init__(self, network: TwoTower):
        super().__init__()
        self.interaction, self.heads = network.interaction, network.heads

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the score (pairs,), and (pairs, ...) of each head, for `users` and `items`: (pairs, ...) each."""
        users, items = inputs["users"], inputs["items"]
        if self.interaction.factorised:
            score = (users * items).sum(-1)
        else:
            score = self.interaction.score(users, items.unsqueeze(1)).squeeze(1)
        answers = [cast(Head, head).answer(head(self.interaction.pair(users, items))) for head in self.heads.values()]
        return (score, *answers)


def write_tower(network: TwoTower, side: Side, shapes: Mapping[str, np.ndarray], path: Path) -> list[str]:
    """Write the graph of a tower.

    Args:
        network: The network, in evaluation mode.
        side: Whose tower.
        shapes: The inputs of a batch of any size, of which types and fixed dimensions are taken. A dimension whose size
            is 0 is dynamic; the second one of all inputs of a feature is the same, the length of its lists.
        path: The file.

    Returns:
        The names of the outputs.

    Raises:
        InputError: If a component cannot be traced.
    """
    graph = TowerGraph(network, side)
    inputs: dict[str, Tensor] = {}
    dynamic: dict[str, dict[int, str]] = {}
    lengths: dict[str, int] = {}
    for name, array in shapes.items():
        feature, _, _ = name.rpartition(".")
        sizes, axes = [ROWS, *array.shape[1:]], {0: "batch"}
        for axis, size in enumerate(sizes):
            if not size:
                axes[axis] = f"{feature}.length" if axis == 1 else f"{name}.length{axis}"
                sizes[axis] = lengths.setdefault(axes[axis], LENGTH + len(lengths))
        inputs[name] = torch.from_numpy(np.ones(sizes, bool) if array.dtype == bool else np.zeros(sizes, array.dtype))
        dynamic[name] = axes
    write_graph(graph, inputs, dynamic, graph.outputs, path, f"the {side} tower")
    return graph.outputs


def write_scorer(interaction: Interaction | None, users: tuple[int, ...], items: tuple[int, ...], path: Path) -> None:
    """Write the graph that scores.

    Args:
        interaction: The interaction; None for a dot product.
        users: The shape of what represents a user.
        items: The shape of what represents an item.
        path: The file.

    Raises:
        InputError: If the interaction cannot be traced.
    """
    inputs = {"users": torch.zeros(ROWS, *users), "items": torch.zeros(ITEMS, *items)}
    dynamic = {"users": {0: "batch"}, "items": {0: "items"}}
    write_graph(ScorerGraph(interaction), inputs, dynamic, ["scores"], path, "the interaction")


def write_pairs(network: TwoTower, users: tuple[int, ...], items: tuple[int, ...], path: Path) -> None:
    """Write the graph that scores pairs and runs the heads; arguments and errors as of `write_scorer`.

    Its outputs are `score`, and `heads.NAME` for each head.
    """
    inputs = {"users": torch.zeros(ROWS, *users), "items": torch.zeros(ROWS, *items)}
    outputs = ["score", *(f"heads.{name}" for name in network.heads)]
    dynamic = {name: {0: "pairs"} for name in inputs}
    hint = "Leave the heads out with --without heads." if network.heads else ""
    write_graph(PairGraph(network), inputs, dynamic, outputs, path, "the interaction with its heads", hint)


def write_graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    dynamic: dict[str, dict[int, str]],
    outputs: list[str],
    path: Path,
    what: str,
    hint: str = "",
) -> None:
    """Write a module as a graph.

    Args:
        module: It is called with `inputs=` a dict of tensors, and returns a tuple of tensors.
        inputs: Tensors to trace it with, by name.
        dynamic: For each input, the names of its dynamic dimensions by their number.
        outputs: Names of the outputs.
        path: The file.
        what: What the module is, for the error.
        hint: What to do about the error.

    Raises:
        InputError: If it cannot be traced.
        MissingDependency: If the package onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingDependency("onnxscript", "export", "The export of a model") from None
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module.eval(),
                (),
                kwargs={"inputs": inputs},
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes={"inputs": dynamic},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            fault = f"it cannot be exported because torch cannot trace it: {_reason(error)}."
            raise InputError(Fault(what, fault, hint, "not exportable")) from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # places in the source code, which take most of the file
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    program.save(path, external_data=size > MOST_INLINE)


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notes of the exporter, which are for its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
