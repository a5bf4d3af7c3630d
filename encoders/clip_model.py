"""The model behind the encoders `clip` and `clip_text`: texts and images as vectors of one space."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from anyrec.core.contracts import Context
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.time_limit import check_time
from anyrec.encoders.sentence import backbone, token_ids

DEFAULT = "sentence-transformers/clip-ViT-B-32"
BATCH = 16
"""Texts or images in a forward pass."""


class ClipModel:
    """A CLIP model that sentence-transformers loads, or another model of that interface (SigLIP).

    Attributes:
        network: The model of transformers, with both halves.
        tokenizer: Its tokenizer.
        max_tokens: The most tokens of a text: 77 for CLIP, the special tokens included.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """

    def __init__(self, name: str, context: Context, where: str):
        """Load a model, or take it from memory.

        Args:
            name: Its published name or its folder.
            context: Device and trust.
            where: JSON pointer of the encoder's options.

        Raises:
            ConfigError: If it cannot be loaded, or has no images.
        """
        instead = "name the folder of a CLIP model that is on this machine, or use another encoder of this group"
        self._model: Any = backbone(name, context, f"{where}/model", instead).to(context.device)
        self.network: Any = getattr(self._model[0], "auto_model", None)
        if not hasattr(self.network, "get_image_features") or not hasattr(self.network, "get_text_features"):
            what, hint = f"the model '{name}' has no vectors of texts and images in one space.", "Name a CLIP model."
            raise ConfigError(Fault(f"{where}/model", what, hint, "no such model"))
        self.tokenizer: Any = self._model.tokenizer
        positions = getattr(self.network.config.text_config, "max_position_embeddings", None)
        self.max_tokens = int(min(positions or 77, self.tokenizer.model_max_length))

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that the model reads."""
        return int(self.network.config.vision_config.image_size)

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.network.config.projection_dim)

    def tokens(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """Return the token ids of each text, at most `max_tokens`, and how many texts are longer."""
        whole, cut = token_ids(self.tokenizer, texts, None), token_ids(self.tokenizer, texts, self.max_tokens)
        return cut, sum(len(row) > self.max_tokens for row in whole)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Return (texts, dim) float32. Text past `max_tokens` is not read.

        Texts are tokenised here: `SentenceTransformer.encode` opens texts that look like a file or a URL as images.
        """
        rows, _ = self.tokens(texts)
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH):
                check_time()
                padded = self.tokenizer.pad({"input_ids": rows[start : start + BATCH]}, return_tensors="pt")
                padded = {name: values.to(self._model.device) for name, values in padded.items()}
                vectors.append(self._model(padded)["sentence_embedding"].float().cpu())
        return torch.cat(vectors) if vectors else torch.zeros(0, self.dim)

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """Run images through the model.

        Args:
            images: (height, width, 3) uint8 each.

        Returns:
            (images, dim) float32.
        """
        pictures = [Image.fromarray(one) for one in images]
        encoded = self._model.encode(pictures, batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False)
        return encoded.float().cpu()

    def copy(self) -> nn.Module:
        """Return a copy in float32 that maps tokens to vectors."""
        return copy.deepcopy(self._model).cpu().float().eval()

    def half(self, which: Literal["text", "image"]) -> nn.Module:
        """Return a trainable copy of the half that reads texts or images; `features` calls it."""
        network = copy.deepcopy(self.network).float()
        other = "vision" if which == "text" else "text"
        for part in (f"{other}_model", "visual_projection" if which == "text" else "text_projection"):
            if hasattr(network, part):
                setattr(network, part, None)
        for name, weight in network.named_parameters():
            if name in ("logit_scale", "logit_bias"):  # of the loss that CLIP was trained with
                weight.requires_grad_(False)
        return network

    @property
    def crops_middle(self) -> bool:
        """Whether the model resizes the shorter side of an image to `image_size` and reads the middle square."""
        processor, size = self._model[0].processor.image_processor, self.image_size
        crop = getattr(processor, "crop_size", None) or {}
        return (
            bool(getattr(processor, "do_center_crop", False))
            and processor.size.get("shortest_edge") == crop.get("height") == crop.get("width") == size
            and processor.resample == Image.Resampling.BICUBIC
        )

    def pixel_statistics(self) -> Tensor:
        """Return (2, 3), the mean and the deviation by which the model standardises colours."""
        processor = self._model[0].processor.image_processor
        return torch.tensor([processor.image_mean, processor.image_std])


def features(output: Any) -> Tensor:
    """Return the vectors (batch, dim) of `get_text_features` or `get_image_features` in any version of transformers."""
    return output if isinstance(output, Tensor) else output.pooler_output
