"""What runs an ONNX graph: ONNX Runtime, or the evaluator of the package onnx, which is written in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, cast, get_args

import numpy as np

from anyrec.core.errors import Fault, InputError, MissingDependency, did_you_mean
from anyrec.core.values import show

BackendName: TypeAlias = Literal["onnxruntime", "numpy"]


class Graph(Protocol):
    """A graph that is ready to run."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs of the graph in their order."""
        ...


Backend: TypeAlias = Callable[[Path], Graph]
"""Loads the graph of a file."""


class OnnxRuntimeGraph:
    """A graph that ONNX Runtime runs.

    Args:
        path: The file.
        threads: Threads of one run; 0 for one on each core.
    """

    def __init__(self, path: Path, threads: int = 0):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return cast(list[np.ndarray], self.session.run(None, dict(inputs)))


class NumPyGraph:
    """A graph that NumPy runs, operator by operator. It is slow, and needs no compiled runtime."""

    def __init__(self, path: Path):
        from onnx.reference import ReferenceEvaluator
        from onnx.reference.op_run import OpRun

        class GatherElements(OpRun):
            """The operator without the limit of the evaluator, which cannot gather from more than 64 elements."""

            def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
                axis %= data.ndim
                within = tuple(slice(None if at == axis else size) for at, size in enumerate(indices.shape))
                return (np.take_along_axis(data[within], indices, axis),)

        self.evaluator = ReferenceEvaluator(str(path), new_ops=[GatherElements])

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return cast(list[np.ndarray], self.evaluator.run(None, dict(inputs)))


def backend_of(name: str | None, threads: int = 0) -> Backend:
    """Return what runs graphs.

    Args:
        name: "onnxruntime" or "numpy"; None for ONNX Runtime if it is installed, else NumPy.
        threads: Threads of ONNX Runtime; 0 for one on each core.

    Raises:
        InputError: If there is no such backend.
    """
    if name is None:
        name = "numpy" if find_spec("onnxruntime") is None and find_spec("onnx") is not None else "onnxruntime"
    if name not in get_args(BackendName):
        what = f"there is no backend {show(name)}."
        raise InputError(Fault("backend", what, did_you_mean(str(name)[:100], get_args(BackendName)), "option"))
    graph = partial(OnnxRuntimeGraph, threads=threads) if name == "onnxruntime" else NumPyGraph
    package = "onnxruntime" if name == "onnxruntime" else "onnx"

    def load(path: Path) -> Graph:
        if find_spec(package) is None:
            raise MissingDependency(package, "export", "An exported model")
        return graph(path)

    return load
