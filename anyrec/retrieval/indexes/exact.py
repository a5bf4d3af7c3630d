"""Every vector is looked at: torch, block by block, on the processor or a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Params as Options
from anyrec.retrieval.index import Index, SearchResult
from anyrec.retrieval.scan import best_rows

ROWS_AT_A_TIME = 1 << 16
CODES, SCALES = "codes.npy", "scales.npy"


class Exact(Index):
    """Compare every vector, in blocks; exact, or nearly so in a quarter of the memory (int8)."""

    type = "exact"
    trials = ({}, {"precision": "int8"})

    class Params(Options):
        precision: Literal["auto", "float32", "bf16", "int8"] = Field(
            default="auto",
            description="bf16, int8: candidates are found with these and scored again in float32. auto: bf16 where the hardware "
            "multiplies it, else float32.",
        )
        oversample: int = Field(
            default=4, ge=1, le=100, description="bf16, int8: candidates scored again in float32, times k."
        )
        device: Literal["auto", "cpu"] = Field(default="auto", description="auto: a GPU where there is one.")

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        self._device = torch.device("cuda" if self.params.device == "auto" and torch.cuda.is_available() else "cpu")
        self._precision = self.params.precision
        if self._precision == "auto":
            self._precision = "bf16" if _multiplies_bf16(self._device) else "float32"
        self._vectors: Any = self._encoded(vectors)

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        if self._precision == "float32" and self._device.type == "cpu":
            self._vectors = torch.from_numpy(self.store.vectors)
        elif self._precision == "int8":
            self._vectors = self._vectors.followed_by(self._encoded(vectors))
        else:
            self._vectors = torch.cat([self._vectors, self._encoded(vectors)])

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        wide = k if self._precision == "float32" else k * self.params.oversample
        ready = torch.from_numpy(queries).to(self._device)
        rows, scores = best_rows(self._vectors, ready.bfloat16() if self._precision == "bf16" else ready, wide)
        return SearchResult(rows.cpu().numpy(), scores.cpu().numpy())

    def _save(self, folder: Path) -> None:
        if self._precision == "int8":
            np.save(folder / CODES, self._vectors.codes.cpu().numpy())
            np.save(folder / SCALES, self._vectors.scales.cpu().numpy())

    def _load(self, folder: Path) -> None:
        if self.params.precision != "int8" or not (folder / CODES).exists():
            self._build(self.store.vectors, self.store.keys)
            return
        self._build(self.store.vectors[:0], self.store.keys[:0])
        codes, scales = (torch.from_numpy(np.load(folder / name, allow_pickle=False)) for name in (CODES, SCALES))
        self._vectors = Codes(codes.to(self._device), scales.to(self._device))

    def _bytes(self) -> int:
        if self._precision == "int8":
            return self._vectors.codes.numel() + self._vectors.scales.numel() * 4
        return self._vectors.numel() * self._vectors.element_size()

    def _encoded(self, vectors: np.ndarray) -> Any:
        if self._precision == "int8":
            return Codes.of(vectors, self._device)
        ready = torch.from_numpy(vectors).to(self._device)
        return ready.bfloat16() if self._precision == "bf16" else ready


class Codes:
    """Vectors in 8 bits, each with its own scale; a slice of it is float32.

    On this side of the multiplication nothing is won on a processor without 8-bit products, but the memory: a block is turned into
    float32 when it is looked at, once for all queries.
    """

    dtype = torch.float32

    def __init__(self, codes: Tensor, scales: Tensor):
        """codes: (rows, dim) int8; scales: (rows, 1) float32."""
        self.codes, self.scales, self.device = codes, scales, codes.device

    @classmethod
    def of(cls, vectors: np.ndarray, device: torch.device) -> Codes:
        codes = torch.empty(vectors.shape, dtype=torch.int8, device=device)
        scales = torch.empty(len(vectors), 1, device=device)
        for start in range(0, len(vectors), ROWS_AT_A_TIME):
            part = torch.from_numpy(vectors[start : start + ROWS_AT_A_TIME]).to(device)
            scale = part.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
            scales[start : start + len(part)] = scale
            codes[start : start + len(part)] = (part / scale).round().to(torch.int8)
        return cls(codes, scales)

    def followed_by(self, more: Codes) -> Codes:
        return Codes(torch.cat([self.codes, more.codes]), torch.cat([self.scales, more.scales]))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> Tensor:
        return self.codes[rows].float() * self.scales[rows]


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
