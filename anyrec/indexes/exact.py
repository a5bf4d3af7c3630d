"""Every vector is looked at: torch, block by block, on the processor or a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from anyrec.retrieval.index import Found, Index
from anyrec.retrieval.scan import best_rows


class Exact(Index):
    """Compare every vector, in blocks; exact."""

    type = "exact"

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        self._vectors = torch.from_numpy(vectors)

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        self._vectors = torch.from_numpy(self.store.vectors)

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        rows, scores = best_rows(self._vectors, torch.from_numpy(queries), k)
        return Found(rows.numpy(), scores.numpy())

    def _load(self, folder: Path) -> None:
        self._vectors = torch.from_numpy(self.store.vectors)

    def _bytes(self) -> int:
        return self._vectors.numel() * 4
