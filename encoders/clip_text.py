"""Texts by the text half of a CLIP model, in the space of its images: frozen with cached vectors, or fine-tuned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.core.ragged import Prepared, Ragged, tensors_of
from anyrec.core.types import JsonObject
from anyrec.core.vector_cache import cached_vectors, digest_of
from anyrec.data.preparation.tokens import flat_full_texts, flat_tokens, joined_texts
from anyrec.encoders.clip import OfClip
from anyrec.encoders.clip_model import features
from anyrec.encoders.sentence import SentenceBackbone, fault_of_tokenizer


class ClipText(OfClip):
    """The text vector of a CLIP model, projected. With the encoder `clip` for images, both are in one space.

    CLIP reads 77 tokens, about 50 words: the rest of a longer text is not read, and a note says how many texts are
    longer. `sentence` is better for long texts. Several texts of a record: the mean of their vectors if `frozen`,
    otherwise the texts are joined.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """

    type = "clip_text"
    group = "text"
    preparation = "sentence"

    def load(self) -> None:
        """Load the model."""
        self._model()

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
        values = texts.to_pylist()
        if self.params.frozen:
            return Prepared(Ragged(self._vectors(values), torch.from_numpy(offsets)).mean(), present)
        rows, longer = self._model().tokens(joined_texts(values, offsets))
        self._note_longer(longer, int(present.sum()))
        return Prepared(tensors_of(flat_tokens(rows)), present)

    def build(self) -> None:
        """Create the projection, and the text half of the model if it is trained."""
        if self.params.frozen:
            super().build()
        else:
            model = self._model()
            self.backbone: Any = model.half("text")
            self.project = nn.Linear(model.dim, self.output_dim)

    def forward(self, values: Tensor | Ragged) -> Tensor:
        """Project the cached vectors, or run the text half over the tokens.

        Args:
            values: Vectors (batch, width), or the token ids of each of `batch` records.

        Returns:
            (batch, output_dim).
        """
        if isinstance(values, Tensor):
            return self.project(values)
        tokens, mask = values.pad()  # (batch, longest)
        output = self.backbone.get_text_features(input_ids=tokens, attention_mask=mask.long())
        return self.project(features(output))

    def exported_state(self) -> JsonObject:
        """Return the tokenizer and the number of tokens that are read."""
        model = self._model()
        return {"tokenizer": model.tokenizer.backend_tokenizer.to_str(), "most": model.max_tokens}

    def export_fault(self) -> str:
        """Return why the encoder cannot be exported: only tokenizers of the library `tokenizers` can."""
        return super().export_fault() or fault_of_tokenizer(self._model().tokenizer)

    def exported_layers(self) -> nn.Module:
        """Return the text half with the projection: an export has no cache of vectors."""
        return SentenceBackbone(self._model().copy(), self.project) if self.params.frozen else self

    def _vectors(self, texts: list[str]) -> Tensor:
        """Return (texts, width) float32 vectors, through the cache."""
        if not texts:
            return torch.zeros(0, self.input_dim or self._model().dim)

        def embed(rows: list[int]) -> Tensor:
            chosen, model = [texts[row] for row in rows], self._model()
            self._note_longer(model.tokens(chosen)[1], len(chosen))
            return model.embed_texts(chosen)

        keys = [digest_of(text.encode()) for text in texts]
        return cached_vectors(keys, f"clip text {self.params.model}", embed, self.context.cache)

    def _note_longer(self, longer: int, texts: int) -> None:
        """Warn of texts whose end is not read."""
        if longer:
            limit = self._model().max_tokens
            self.context.warnings.append(
                f"{longer:,} of {texts:,} texts are longer than the {limit} tokens that the model "
                f"'{self.params.model}' reads: their ends are not read. The encoder 'sentence' reads longer texts."
            )
