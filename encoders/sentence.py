"""Texts by a sentence-transformers model: frozen with cached vectors, or fine-tuned with the rest of the model."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Context, Encoder, Params
from anyrec.core.errors import ConfigError, Fault, MissingDependency
from anyrec.core.hardware import multiplies_bf16
from anyrec.core.outside import ALLOW, Outside, is_path
from anyrec.core.progress import progress_bar
from anyrec.core.ragged import Padded, Prepared, Ragged, tensors_of
from anyrec.core.time_limit import check_time
from anyrec.core.types import JsonObject
from anyrec.core.vector_cache import cached_vectors, digest_of
from anyrec.data.preparation.tokens import NO_TOKEN, flat_full_texts, flat_tokens, joined_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 8
"""Texts in a forward pass. Fastest on two cores once texts are sorted by length (benchmarks/text_vectors.py)."""
INSTEAD = "name the folder of a model that is on this machine, or use the encoder 'hashed', which needs no model"
TOKENISED = 64
"""Texts that are tokenised before another thread can: long texts of a thousand items take a second."""
TOKENS = 512
"""Tokens read from each text if neither the options nor the model set a limit: that of BERT."""


class Sentence(Encoder):
    """The vector of a sentence-transformers model, projected.

    If `frozen`, each distinct text is embedded once, in bf16 if the processor has instructions for it, and its vector
    is cached on disk. Otherwise the backbone is part of the model: it is trained, saved and loaded with it. Several
    texts of a record: the mean of their vectors if `frozen`, otherwise the texts are joined.

    References:
        Reimers and Gurevych, Sentence-BERT, 2019.
    """

    type = "sentence"
    group = "text"
    preparation = "sentence"

    class Params(Params):
        model: Annotated[str, Outside("a folder of a pretrained model", names_something=is_path)] = Field(
            "sentence-transformers/all-MiniLM-L6-v2", description="Name or folder of a sentence-transformers model."
        )
        frozen: bool = Field(True, description="Do not train the model, and cache its vectors.")
        max_tokens: int | None = Field(
            None, ge=1, le=100_000, description="Tokens read from each text; null for the model's own limit."
        )

    def fit(self, column: pa.Array) -> None:
        """Load the model if it is to be trained, so that one that cannot be loaded is an error before any training."""
        if not self.params.frozen:
            self._model()

    def load(self) -> None:
        """Load the model, in the type in which it embeds."""
        self._embed(["a"]) if self.params.frozen else self._model()

    def prepare(self, column: pa.Array) -> Prepared:
        """Embed or tokenise the texts.

        Args:
            column: (records,) texts, or lists of texts. Empty texts are left out.

        Returns:
            If `frozen`, the mean vectors (records, width) float32; otherwise the token ids of each record, int64. A
            record without a text is absent.
        """
        texts, offsets = flat_full_texts(column)
        present = torch.from_numpy(np.diff(offsets) > 0)
        if self.params.frozen:
            vectors = self._vectors(texts)
            return Prepared(Ragged(vectors, torch.from_numpy(offsets)).mean(), present)
        if len(offsets) - 1 != len(texts) or (np.diff(offsets) > 1).any():
            texts = pa.array(joined_texts(texts.to_pylist(), offsets))
        return Prepared(self._tokens(texts.to_pylist()), present)

    def build(self) -> None:
        """Create the projection, and the backbone if it is trained."""
        if not self.params.frozen:
            model: Any = copy.deepcopy(self._model()[0].auto_model).float()
            self.backbone: nn.Module = model
            self.project = nn.Linear(model.config.hidden_size, self.output_dim)
        else:
            super().build()

    def forward(self, values: Tensor | Ragged) -> Tensor:
        """Project the cached vectors, or run the backbone over the tokens.

        Args:
            values: Vectors (batch, width), or the token ids of each of `batch` records.

        Returns:
            (batch, output_dim).
        """
        if isinstance(values, Tensor):
            return self.project(values)
        tokens, mask = values.pad()  # (batch, longest)
        if not tokens.shape[1]:
            return self.project(self.project.weight.new_zeros(values.rows, self.project.in_features))
        mask[:, 0] = True  # a record without a token keeps one: a softmax over none is NaN
        states = self.backbone(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        # (batch, longest, hidden) -> (batch, hidden), the mean over the tokens
        return self.project((states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))

    def exported_state(self) -> JsonObject:
        """Return the tokenizer and the number of tokens that are read."""
        model = self._model()
        return {"tokenizer": model.tokenizer.backend_tokenizer.to_str(), "most": self._most_tokens(model)}

    def export_fault(self) -> str:
        """Return why the encoder cannot be exported: only tokenizers of the library `tokenizers` can."""
        return super().export_fault() or fault_of_tokenizer(self._model().tokenizer)

    def exported_layers(self) -> nn.Module:
        """Return the language model in float32 with the projection: an export has no cache of vectors."""
        if not self.params.frozen:
            return self
        return SentenceBackbone(copy.deepcopy(self._model()).cpu().float().eval(), self.project)

    def _vectors(self, texts: pa.Array) -> Tensor:
        """Return (texts, width) float32 vectors, through the cache."""
        values = texts.to_pylist()
        if not values:
            width = self.input_dim or self._model().get_embedding_dimension()
            return torch.zeros(0, width or 0)
        keys = [digest_of(text.encode()) for text in values]
        name = f"sentence {self.params.model} {self.params.max_tokens} {fast_dtype(self.context.device)}"
        return cached_vectors(keys, name, lambda rows: self._embed([values[row] for row in rows]), self.context.cache)

    def _embed(self, texts: list[str]) -> Tensor:
        return embed_texts(texts, self._model(), self.params.max_tokens, self.context.device)

    def _model(self) -> SentenceTransformer:
        return backbone(self.params.model, self.context, f"{self.where}/model")

    def _most_tokens(self, model: SentenceTransformer) -> int:
        """Return the number of tokens that are read of each text."""
        return self.params.max_tokens or model.max_seq_length or TOKENS

    def _tokens(self, texts: list[str]) -> Ragged:
        """Return the token ids of each text, int64."""
        model = self._model()
        limit = self._most_tokens(model)
        return tensors_of(flat_tokens(token_ids(model.tokenizer, texts, limit)))


class SentenceBackbone(nn.Module):
    """A frozen language model and the projection of the mean of its vectors."""

    def __init__(self, model: nn.Module, project: nn.Module):
        super().__init__()
        self.model, self.project = model, project

    def forward(self, values: Padded) -> Tensor:
        """Return (batch, output_dim) for the texts of each record, (texts, longest) int64 tokens."""
        tokens = values.values
        mask = (tokens != NO_TOKEN).long()
        features = {"input_ids": tokens.clamp(min=0), "attention_mask": mask}
        return self.project(values.mean(self.model(features)["sentence_embedding"]))


def fault_of_tokenizer(tokenizer: object) -> str:
    """Return why a tokenizer cannot be exported, as the end of a sentence; empty if it can."""
    return "" if getattr(tokenizer, "backend_tokenizer", None) is not None else "its tokenizer has no tokenizer.json"


def token_ids(tokenizer: Callable[..., Any], texts: list[str], most: int | None) -> list[list[int]]:
    """Return the ids of the tokens of each text. One thread at a time: a tokenizer keeps the limit of its last call.

    Another thread that set another limit meanwhile gave texts of the wrong length, without an error.

    Args:
        tokenizer: A tokenizer of transformers.
        texts: The texts.
        most: Tokens read from each text; None for all.
    """
    found: list[list[int]] = []
    for start in range(0, len(texts), TOKENISED):
        check_time()
        with _TOKENISING:
            some = texts[start : start + TOKENISED]
            found += tokenizer(some, truncation=most is not None, max_length=most, verbose=False)["input_ids"]
    return found


def embed_texts(texts: list[str], model: SentenceTransformer, max_tokens: int | None, device: str) -> Tensor:
    """Embed texts. Batches are made of texts of similar length, so that there is little padding.

    Args:
        texts: At least one text.
        model: The model, which is moved to the device and its fastest type.
        max_tokens: Tokens read from each text; None for the model's own limit.
        device: As torch names it.

    Returns:
        (texts, width) float32, in the order of `texts`.
    """
    dtype = fast_dtype(device)
    model = model.to(device=device, dtype=dtype).eval()
    limit = max_tokens or model.max_seq_length or TOKENS
    ids = token_ids(model.tokenizer, texts, limit)
    order = np.argsort([len(row) for row in ids], kind="stable")
    vectors: list[Tensor] = []
    with torch.inference_mode(), progress_bar("embedding texts", len(texts)) as bar:
        for start in range(0, len(order), BATCH):
            check_time()
            rows = [ids[row] for row in order[start : start + BATCH]]
            padded = model.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(device)
            vectors.append(model(dict(padded))["sentence_embedding"].float().cpu())
            bar.advance(len(rows))
    joined = torch.cat(vectors)
    return torch.empty_like(joined).index_copy_(0, torch.from_numpy(order), joined)


def fast_dtype(device: str) -> torch.dtype:
    """Return bf16 if the device has instructions for its matrix products, else float32."""
    return torch.bfloat16 if multiplies_bf16(torch.device(device)) else torch.float32


def backbone(name: str, context: Context, where: str, instead: str = INSTEAD) -> SentenceTransformer:
    """Return a sentence-transformers model by its published name or its folder. The last two are kept in memory.

    If the recommender's model is not trusted, nothing is downloaded and no folder is read: the backbone must be in the
    cache of this machine.

    Args:
        name: The name or the folder.
        context: Whether the recommender's model is trusted.
        where: JSON pointer of the option that names the backbone.
        instead: What to do if it cannot be loaded.

    Raises:
        ConfigError: If it cannot be loaded.
        MissingDependency: If sentence-transformers is not installed.
    """
    if not context.trusted and is_path(name):
        what = f"the model names the folder '{name}' of a pretrained model, outside its own folder."
        raise ConfigError(Fault(where, what, ALLOW, "untrusted"))
    local_only = not context.trusted
    try:
        with _LOADING:  # two threads would load it twice
            return _backbone(name, local_only)
    except MissingDependency:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        what, hint = f"the model '{name}' cannot be loaded: {reason}.", _how_to_get(name, instead)
        if local_only:
            hint = f"It is not downloaded for a model that is not trusted. {ALLOW}"
        raise ConfigError(Fault(where, what, hint, "no such model")) from None


def _how_to_get(name: str, instead: str) -> str:
    """Return how to make weights available that cannot be loaded."""
    if is_path(name):
        return f"Put the files of the model into this folder, or {instead}."
    return f"With network access it is downloaded; otherwise {instead}."


_TOKENISING, _LOADING = threading.Lock(), threading.Lock()


@lru_cache(maxsize=2)
def _backbone(name: str, local_only: bool) -> SentenceTransformer:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependency("sentence-transformers", "text", f"The pretrained model {name}") from None
    with _without_progress_bars():
        return SentenceTransformer(name, device="cpu", local_files_only=local_only)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Silence the progress bars of transformers, which it also draws under --quiet and where no terminal is."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
