"""Exact search by torch, block by block, on the processor or on a GPU; optionally with compressed vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Params as Options
from anyrec.core.hardware import multiplies_bf16
from anyrec.retrieval.index import Index
from anyrec.retrieval.results import SearchResult
from anyrec.retrieval.scan import best_rows

ROWS_AT_A_TIME = 1 << 16
"""Rows that are compressed at once."""
CODES, SCALES = "codes.npy", "scales.npy"


class Exact(Index):
    """Compare every vector, block by block: exact, or nearly exact in a quarter of the memory (int8).

    With bf16 and int8 the best `oversample` x k candidates are found in the compressed vectors and scored again in
    float32. A million vectors in int8 take 0.258 of the memory of float32, with recall@10 1.000 (benchmarks/indexes.py
    --only memory).
    """

    type = "exact"
    exhaustive = True
    trials = ({}, {"precision": "int8"})

    class Params(Options):
        """Options of the index `exact`."""

        precision: Literal["auto", "float32", "bf16", "int8"] = Field(
            default="auto",
            description="bf16, int8: candidates are found with these and scored again in float32. auto: bf16 if the "
            "hardware multiplies it natively, else float32.",
        )
        oversample: int = Field(
            default=4, ge=1, le=100, description="bf16, int8: candidates scored again in float32, as a multiple of k."
        )
        device: Literal["auto", "cpu"] = Field(default="auto", description="auto: a GPU if there is one.")

    params: Params
    _device: torch.device
    _precision: str
    _vectors: Tensor | Codes

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._prepare()
        self._vectors = self._encoded(vectors)

    def _prepare(self) -> None:
        """Choose the device and the precision."""
        self._device = torch.device("cuda" if self.params.device == "auto" and torch.cuda.is_available() else "cpu")
        self._precision = self.params.precision
        if self._precision == "auto":
            self._precision = "bf16" if multiplies_bf16(self._device) else "float32"

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if self._precision == "float32" and self._device.type == "cpu":
            self._vectors = torch.from_numpy(self.store.vectors)  # shared with the store, which has them already
        elif isinstance(self._vectors, Codes):
            self._vectors = self._vectors.followed_by(Codes.of(vectors, self._device))
        else:
            self._vectors = torch.cat([self._vectors, self._floats(vectors)])

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        candidates = k if self._precision == "float32" else k * self.params.oversample
        ready = torch.from_numpy(queries).to(self._device)
        rows, scores = best_rows(self._vectors, ready.bfloat16() if self._precision == "bf16" else ready, candidates)
        return SearchResult(rows.cpu().numpy(), scores.cpu().numpy())

    def _save(self, folder: Path) -> None:
        if isinstance(self._vectors, Codes):
            np.save(folder / CODES, self._vectors.codes.cpu().numpy())
            np.save(folder / SCALES, self._vectors.scales.cpu().numpy())

    def _load(self, folder: Path) -> None:
        self._prepare()
        if self._precision == "int8" and (folder / CODES).exists():
            codes, scales = (torch.from_numpy(np.load(folder / name, allow_pickle=False)) for name in (CODES, SCALES))
            self._vectors = Codes(codes.to(self._device), scales.to(self._device))
        else:
            self._vectors = self._encoded(self.store.vectors)

    def _bytes(self) -> int:
        if isinstance(self._vectors, Codes):
            return self._vectors.codes.numel() + self._vectors.scales.numel() * 4
        return self._vectors.numel() * self._vectors.element_size()

    def _encoded(self, vectors: np.ndarray) -> Tensor | Codes:
        return Codes.of(vectors, self._device) if self._precision == "int8" else self._floats(vectors)

    def _floats(self, vectors: np.ndarray) -> Tensor:
        ready = torch.from_numpy(vectors).to(self._device)
        return ready.bfloat16() if self._precision == "bf16" else ready


class Codes:
    """Vectors in 8 bits, each with a scale of its own; a slice is decompressed to float32.

    The gain is memory, not time: a processor without 8-bit products multiplies float32 as fast. A block is decompressed
    once for all queries when it is compared.
    """

    dtype = torch.float32

    def __init__(self, codes: Tensor, scales: Tensor):
        """Wrap codes.

        Args:
            codes: (rows, dim) int8.
            scales: (rows, 1) float32, the value of one step of each row.
        """
        self.codes, self.scales, self.device = codes, scales, codes.device

    @classmethod
    def of(cls, vectors: np.ndarray, device: torch.device) -> Codes:
        """Compress vectors: (rows, dim) float32."""
        codes = torch.empty(vectors.shape, dtype=torch.int8, device=device)
        scales = torch.empty(len(vectors), 1, device=device)
        for start in range(0, len(vectors), ROWS_AT_A_TIME):
            part = torch.from_numpy(vectors[start : start + ROWS_AT_A_TIME]).to(device)
            scale = part.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127  # zero vectors have no scale of their own
            scales[start : start + len(part)] = scale
            codes[start : start + len(part)] = (part / scale).round().to(torch.int8)
        return cls(codes, scales)

    def followed_by(self, more: Codes) -> Codes:
        """Return these vectors and then `more`."""
        return Codes(torch.cat([self.codes, more.codes]), torch.cat([self.scales, more.scales]))

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.codes)

    def __getitem__(self, rows: slice) -> Tensor:
        """Decompress rows: (n, dim) float32."""
        return self.codes[rows].float() * self.scales[rows]
