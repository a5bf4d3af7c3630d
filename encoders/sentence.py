"""Text by a sentence-transformers model: frozen with cached vectors, or fine-tuned with the rest."""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Context, Encoder, Params
from anyrec.core.errors import ConfigError, Fault, MissingDependency
from anyrec.core.outside import ALLOW, Outside, is_path
from anyrec.core.progress import progress_bar
from anyrec.core.ragged import Prepared, Ragged
from anyrec.core.vector_cache import cached_vectors, digest_of
from anyrec.data.list_columns import flat, offsets_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 8
"""Texts a forward pass: measured best on two cores once texts are sorted by length (benchmarks/text_vectors.py)."""


class Sentence(Encoder):
    """The vector of a sentence-transformers model, projected.

    `frozen` embeds each distinct text once, in bf16 where the processor multiplies it natively, and caches the vectors
    on disk. Otherwise the backbone is part of the model: trained, saved and loaded with it.
    Several texts of one record: the mean of their vectors.
    """

    type = "sentence"
    group = "text"

    class Params(Params):
        model: Annotated[str, Outside("a folder of a pretrained model", names_something=is_path)] = Field(
            "sentence-transformers/all-MiniLM-L6-v2", description="A model's name or folder."
        )
        frozen: bool = Field(True, description="Keep the model as it is and cache its vectors.")
        max_tokens: int | None = Field(
            None, ge=1, le=100_000, description="Tokens read of each text; by default the model's own limit."
        )

    def fit(self, column: pa.Array) -> None:
        if not self.params.frozen:
            backbone(self.params.model, self.context)  # a model that cannot be had is told before anything is computed

    def prepare(self, column: pa.Array) -> Prepared:
        texts, offsets = flatten_texts(column)
        present = torch.from_numpy(np.diff(offsets) > 0)
        if self.params.frozen:
            vectors = self._vectors(texts)
            return Prepared(Ragged(vectors, torch.from_numpy(offsets)).mean(), present)
        if len(offsets) - 1 != len(texts) or (np.diff(offsets) > 1).any():
            texts = pa.array(_joined(texts.to_pylist(), offsets))
        return Prepared(self._tokens(texts.to_pylist()), present)

    def build(self) -> None:
        if not self.params.frozen:
            self.backbone = copy.deepcopy(backbone(self.params.model, self.context)[0].auto_model).float()
            self.project = nn.Linear(self.backbone.config.hidden_size, self.output_dim)
        else:
            super().build()

    def forward(self, values: Any) -> Tensor:
        """Vectors (batch, width), or rows of token ids -> (batch, output_dim)."""
        if self.params.frozen:
            return self.project(values)
        tokens, mask = values.pad()
        if not tokens.shape[1]:
            return self.project(self.project.weight.new_zeros(values.rows, self.project.in_features))
        mask[:, 0] = True
        states = self.backbone(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return self.project((states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))

    def _vectors(self, texts: pa.Array) -> Tensor:
        values = texts.to_pylist()
        if not values:
            return torch.zeros(0, self.input_dim or backbone(self.params.model, self.context).get_embedding_dimension())
        keys = [digest_of(text.encode()) for text in values]
        name = f"sentence {self.params.model} {self.params.max_tokens} {fast_dtype(self.context.device)}"
        return cached_vectors(keys, name, lambda rows: self._embed([values[row] for row in rows]), self.context.cache)

    def _embed(self, texts: list[str]) -> Tensor:
        return embed_texts(
            texts, backbone(self.params.model, self.context), self.params.max_tokens, self.context.device
        )

    def _tokens(self, texts: list[str]) -> Ragged:
        model = backbone(self.params.model, self.context)
        limit = self.params.max_tokens or model.max_seq_length or 512
        ids = model.tokenizer(texts, truncation=True, max_length=limit)["input_ids"] if texts else []
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.concatenate([np.array(row, np.int64) for row in ids]) if ids else np.empty(0, np.int64)
        return Ragged(torch.from_numpy(flat), torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])))


def embed_texts(texts: list[str], model: SentenceTransformer, max_tokens: int | None, device: str) -> Tensor:
    """(texts, dim) float32. Texts of like length go together, so that little is spent on padding."""
    dtype = fast_dtype(device)
    model = model.to(device=device, dtype=dtype).eval()
    limit = max_tokens or model.max_seq_length or 512
    ids = model.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    order = np.argsort([len(row) for row in ids], kind="stable")
    vectors: list[Tensor] = []
    with torch.inference_mode(), progress_bar("embedding texts", len(texts)) as bar:
        for start in range(0, len(order), BATCH):
            rows = [ids[row] for row in order[start : start + BATCH]]
            padded = model.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(device)
            vectors.append(model(dict(padded))["sentence_embedding"].float().cpu())
            bar.advance(len(rows))
    joined = torch.cat(vectors)
    return torch.empty_like(joined).index_copy_(0, torch.from_numpy(order), joined)


def fast_dtype(device: str) -> torch.dtype:
    """bf16 where its products are native, else float32."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def backbone(name: str, context: Context) -> SentenceTransformer:
    """A sentence-transformers model by published name or folder.

    For a model that is not trusted nothing is downloaded and no folder is read: the backbone must be in this machine's own cache.

    Raises:
        ConfigError: if it cannot be loaded.
        MissingDependency: if sentence-transformers is not installed.
    """
    if not context.trusted and is_path(name):
        what = f"the model names the folder '{name}' of a pretrained model, outside its own folder."
        raise ConfigError(Fault("/features/text/model", what, ALLOW, "untrusted"))
    return _backbone(name, local_only=not context.trusted)


@lru_cache(maxsize=2)
def _backbone(name: str, local_only: bool) -> SentenceTransformer:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependency("sentence-transformers", "text", f"The text encoder 'sentence' ({name})") from None
    try:
        return SentenceTransformer(name, device="cpu", local_files_only=local_only)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        hint = "Give the folder of a model that is on this machine, or use the encoder 'hashed', which needs none."
        raise ConfigError(
            Fault(
                "/features/text/model",
                f"the sentence-transformers model '{name}' cannot be loaded: {reason[:200]}.",
                f"It is not downloaded for a model that is not trusted. {ALLOW}" if local_only else hint,
                "no such model",
            )
        ) from None


def flatten_texts(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Strings or lists of strings, less the empty: (texts,) and (rows + 1,) int64 offsets."""
    texts, owners = flat(column)
    full = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    return texts.filter(full), offsets_of(owners[full.to_numpy(zero_copy_only=False)], len(column))


def _joined(texts: list[str], offsets: np.ndarray) -> list[str]:
    return [" ".join(texts[start:end]) for start, end in pairwise(offsets)]
