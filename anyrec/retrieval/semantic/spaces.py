"""Where queries and items meet: spaces of an item encoder's own, made of the items' texts or pictures."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from anyrec.core.contracts import Encoder
from anyrec.core.errors import Fault, InputError
from anyrec.core.outside import ALLOW
from anyrec.core.ragged import move, select
from anyrec.data.item_facts import category_feature
from anyrec.data.list_columns import flat
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel

Kind = Literal["text", "image"]
ROWS_AT_A_TIME = 1024
LOOKS = "looks"
"""The encoder of pictures that nothing trained: the space of that name is made by it."""


class Field(NamedTuple):
    """An encoder, the items' column it reads, and how much that says beside others."""

    name: str
    encoder: Encoder
    column: pa.Array
    weight: float


class Space:
    """Vectors of what the items' fields hold, fields that share an encoder added up, others side by side."""

    def __init__(self, name: str, kind: Kind, fields: Sequence[Field]):
        """kind: what queries are."""
        self.name = name
        self.kind: Kind = kind
        self.parts: list[list[Field]] = []
        for key in dict.fromkeys(_shared(field) for field in fields):
            self.parts.append([field for field in fields if _shared(field) == key])

    @property
    def identity(self) -> str:
        """Changes with the encoders and the features that the space is made of, but not with their weights."""
        told = [
            (f.name, f.encoder.type, repr(f.encoder.params), round(f.weight, 6)) for part in self.parts for f in part
        ]
        return hashlib.sha256(repr((self.name, told)).encode()).hexdigest()[:16]

    def items(self) -> np.ndarray:
        """(items, dim) float32, of unit length; zeros for an item that has nothing of this kind."""
        for field in chain(*self.parts):
            context = field.encoder.context
            if field.name.startswith("image.") and not context.open_files:
                what = "the pictures of this model's items are files outside its folder, which are not opened."
                hint = f"Name their folder with image_root=... (--image_root). {ALLOW}"
                raise InputError(Fault(f"--{self.kind}", what, hint, "untrusted"))
        parts = [sum(_unit_rows(field, field.column) * field.weight for field in part) for part in self.parts]
        joined = torch.cat([part for part in parts if isinstance(part, Tensor)], 1)
        return nn.functional.normalize(joined, dim=1).numpy()

    def query(self, value: str) -> np.ndarray:
        """(1, dim) float32 of a text, or of a picture's file. Raises InputError where nothing can be made of it."""
        parts = []
        for fields in self.parts:
            encoder, column = fields[0].encoder, pa.array([value])
            if self.kind == "image":  # a file of the caller, not one that the data name
                encoder = copy.copy(encoder)
                encoder.context = replace(encoder.context, allow_outside_root=True, warnings=[])
            if self.kind == "text" and fields[0].name.startswith("image."):
                parts.append(nn.functional.normalize(encoder.embed_texts([value]), dim=1))
            else:
                parts.append(_unit_rows(Field("", encoder, column, 1.0), column))
        vector = torch.cat(parts, 1)
        if not vector.any():
            what = "none of its words is known to the model." if self.kind == "text" else "nothing can be made of it."
            raise InputError(Fault(f"--{self.kind}", what, "Try others, or --space tower.", "unknown query"))
        return vector.numpy()


def find_space(model: FittedModel, kind: Kind, wanted: str = "auto") -> Space | None:
    """The space for queries of a kind; None where the items have nothing that such a query can be compared with.

    wanted: "auto" (the joint one of texts and pictures where there is one, else the kind's own), "joint", "text", "image" or "looks".
    """
    joint = [field for field in _fields(model, "image") if field.encoder.joint]
    if wanted in ("auto", "joint") and joint:
        return Space("joint", kind, joint)
    if kind == "image" and wanted in ("auto", LOOKS):
        own = [] if wanted == LOOKS else [field for field in _fields(model, "image") if _frozen(field)]
        fields = own or _looks(model)
        return Space("image" if own else LOOKS, "image", fields) if fields else None
    if wanted in ("auto", kind):
        fields = _fields(model, kind)
        return Space(kind, kind, fields + _category(model, fields)) if fields else None
    return None


def _fields(model: FittedModel, kind: Kind) -> list[Field]:
    """The items' features of a kind that the model reads. A long text says more of an item than a short one."""
    if not isinstance(model, TwoTowerModel):
        return []
    tower, table, fields = model.scorer.item, model.dataset.items, []
    for name, encoder in zip(tower.features, tower.encoders, strict=True):
        if name.split(".")[0] == kind and name in table.column_names and isinstance(encoder, Encoder):
            column = table.column(name).combine_chunks()
            fields.append(Field(name, encoder, column, _length(column) if kind == "text" else 1.0))
    return fields


def _category(model: FittedModel, fields: list[Field]) -> list[Field]:
    """The names of the items' categories, read as a text by an encoder that was not trained on one field alone."""
    name = category_feature(model.dataset, model.config.evaluation.category)
    frozen = [field for field in fields if _frozen(field)]
    if name is None or not frozen:
        return []
    column = model.dataset.items.column(name).combine_chunks()
    words = pc.binary_join(column, ", ") if pa.types.is_list(column.type) else column.cast(pa.string())
    return [Field(name, frozen[0].encoder, words, _length(words))]


def _looks(model: FittedModel) -> list[Field]:
    """The items' pictures by their looks alone."""
    encoder: Encoder = model.registry.get("encoder", LOOKS)()
    encoder.context = model.context
    table = model.dataset.items
    names = [name for name in model.dataset.features("item") if name.startswith("image.")]
    return [Field(name, encoder, table.column(name).combine_chunks(), 1.0) for name in names]


def _length(texts: pa.Array) -> float:
    """log(1 + mean number of words)"""
    values = flat(texts)[0]
    if not len(values):
        return 1.0
    return float(np.log1p(pc.mean(pc.add(pc.count_substring(values, " "), 1)).as_py()))


def _frozen(field: Field) -> bool:
    """Whether all is done before training: `prepare` gives the vectors of a model that stays as it is."""
    return field.encoder.input_dim is not None


def _shared(field: Field) -> str:
    """The same for fields whose vectors can be compared with one another."""
    return repr((field.encoder.type, field.encoder.params)) if _frozen(field) else field.name


def _unit_rows(field: Field, column: pa.Array) -> Tensor:
    """(rows, dim) vectors of unit length, what is absent as zeros."""
    encoder: Any = field.encoder
    with torch.inference_mode():
        values, present = encoder.encode_column(column)
        if isinstance(values, Tensor) and values.is_floating_point():
            made = values.float().cpu()
        else:
            device = next(encoder.parameters()).device
            rows = torch.arange(len(column))
            parts = [encoder(move(select(values, part), device)) for part in rows.split(ROWS_AT_A_TIME)]
            made = torch.cat(parts).float().cpu()
        return nn.functional.normalize(made, dim=1) * present.unsqueeze(1)
