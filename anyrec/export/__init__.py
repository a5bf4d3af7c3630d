"""Layer 5: models as ONNX graphs with a description of the preprocessing, and the runtime that serves them.

The runtime loads no torch. It needs NumPy, Arrow, and ONNX Runtime or the package onnx.

runtime: `load` reads an export, `Runtime` lists and embeds.
bundle: the files of an export.
inputs: prepared columns as the inputs of graphs.
backends: what runs a graph: ONNX Runtime, or NumPy.
ranking: top-K lists in NumPy.
members: classical models, alone or blended with the towers.
graphs: towers and interactions as ONNX graphs.
check: what cannot be exported, and why.
write: writes an export.
write_members: writes the classical models of an export.
"""

from anyrec.export.runtime import Runtime, load

__all__ = ["Runtime", "load"]
