"""Spaces in which queries are compared with items: those of the encoders of the items' texts and images."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from anyrec.core.errors import Fault, InputError
from anyrec.core.outside import ALLOW
from anyrec.model.fitted import FittedModel
from anyrec.retrieval.semantic.fields import Field, category_field, fields_read, unit_vectors, untrained_fields
from anyrec.retrieval.semantic.queries import Kind


class Space:
    """Vectors of the items' fields, and of queries.

    The vectors of fields that share an encoder's space are added, weighted; those of different spaces are concatenated.

    Attributes:
        name: One of `queries.SPACES`.
        kind: What queries are.
        parts: The fields of each encoder's space.
    """

    def __init__(self, name: str, kind: Kind, fields: Sequence[Field]):
        self.name = name
        self.kind: Kind = kind
        self.parts = [
            [field for field in fields if field.space == one] for one in dict.fromkeys(f.space for f in fields)
        ]

    @property
    def identity(self) -> str:
        """A hash of the encoders and features of the space, without the encoders' weights."""
        fields = [
            (f.name, f.encoder.type, repr(f.encoder.params), round(f.weight, 6)) for part in self.parts for f in part
        ]
        return hashlib.sha256(repr((self.name, fields)).encode()).hexdigest()[:16]

    @property
    def columns(self) -> list[str]:
        """The features of the items that the space describes them by."""
        return list(dict.fromkeys(field.name for field in chain(*self.parts)))

    def of(self, table: pa.Table) -> Space:
        """Return the same space with other items. table: their records."""
        other = copy.copy(self)
        other.parts = [[field.of(table) for field in part] for part in self.parts]
        return other

    def item_vectors(self) -> np.ndarray:
        """Encode the items.

        Returns:
            (items, dim) float32 of norm 1; zeros for an item without a value in any field.

        Raises:
            InputError: If image files must not be opened, because the model is not trusted.
        """
        for field in chain(*self.parts):
            if field.name.startswith("image.") and not field.encoder.context.open_files:
                what = "the images of this model's items are files outside its folder, which are not opened."
                hint = f"Name their folder with image_root=... (--image_root). {ALLOW}"
                raise InputError(Fault(f"--{self.kind}", what, hint, "untrusted"))
        parts = [reduce(torch.add, [field.unit_vectors() * field.weight for field in part]) for part in self.parts]
        return nn.functional.normalize(torch.cat(parts, 1), dim=1).numpy()

    def query_vector(self, value: str) -> np.ndarray:
        """Encode a query.

        Args:
            value: A text, or the name of an image file.

        Returns:
            (1, dim) float32; the vector in each encoder's space has norm 1, or is zero.

        Raises:
            InputError: If all numbers are zero, as for a text of unknown words.
        """
        parts = []
        for field, *_ in self.parts:
            encoder, column = field.encoder, pa.array([value])
            if self.kind == "image":  # the file is the caller's, not one that the data name
                encoder = copy.copy(encoder)
                encoder.context = replace(encoder.context, allow_outside_root=True, warnings=[])
            if not field.name.startswith(f"{self.kind}."):  # in a joint space
                embed = encoder.embed_texts if self.kind == "text" else encoder.embed_images
                parts.append(nn.functional.normalize(embed([value]), dim=1))
            else:
                parts.append(unit_vectors(encoder, column))
        vector = torch.cat(parts, 1)
        if not vector.any():
            what = (
                "none of its words is known to the model." if self.kind == "text" else "it has no features to compare."
            )
            raise InputError(Fault(f"--{self.kind}", what, "Try another one, or --space tower.", "unknown query"))
        return vector.numpy()


def find_space(model: FittedModel, kind: Kind, wanted: str = "auto") -> Space | None:
    """Return the space for queries of a kind.

    Args:
        model: The model.
        kind: What the query is.
        wanted: "joint": the space of texts and images of an encoder such as CLIP. "text", "image": that of the encoders
            that the model reads this kind with. "visual": that of an image encoder that needs no training. "auto": the
            joint space; else, for texts, "text"; else, for images, "image" if its encoder is frozen, otherwise
            "visual", since an encoder trained on the items' own images alone says less about others.

    Returns:
        The space; None if the items have nothing to compare with such a query.
    """
    both = [*fields_read(model, "image"), *fields_read(model, "text")]
    joint = [Field(field.name, field.encoder, field.column, 1.0) for field in both if field.joint]
    if wanted in ("auto", "joint") and joint:
        return Space("joint", kind, joint)
    if kind == "image" and wanted in ("auto", "visual"):
        frozen = [] if wanted == "visual" else [field for field in fields_read(model, "image") if field.frozen]
        fields = frozen or untrained_fields(model, "image")
        return Space("image" if frozen else "visual", kind, fields) if fields else None
    if wanted in ("auto", kind):
        fields = fields_read(model, kind)
        return Space(kind, kind, fields + category_field(model, fields)) if fields else None
    return None
