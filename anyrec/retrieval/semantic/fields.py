"""Fields of items that a query is compared with: an encoder, and the column that it reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from anyrec.core.contracts import Encoder
from anyrec.core.ragged import move, select
from anyrec.data.item_facts import category_feature
from anyrec.data.list_columns import flat
from anyrec.model.blended import has_towers, towers_of
from anyrec.model.fitted import FittedModel
from anyrec.retrieval.semantic.queries import Kind

ROWS_AT_A_TIME = 1024
"""Rows that a trained encoder is called with at once."""


class Field(NamedTuple):
    """A feature of the items that describes them.

    Attributes:
        name: The feature, as `text.title`.
        encoder: The encoder of its values.
        column: (items,) its values.
        weight: The weight of its vectors next to those of other fields.
    """

    name: str
    encoder: Encoder
    column: pa.Array
    weight: float

    @property
    def frozen(self) -> bool:
        """Whether `prepare` of the encoder returns vectors, which training does not change."""
        return self.encoder.input_dim is not None

    @property
    def space(self) -> str:
        """The name of the space of the vectors.

        Fields of the same frozen encoder share a space, a trained encoder has one for each field.
        """
        return self.encoder.space if self.frozen else self.name

    @property
    def joint(self) -> bool:
        """Whether the vectors are in a space of texts and images, which training would have changed."""
        return self.encoder.joint and self.frozen

    def of(self, table: pa.Table) -> Field:
        """Return this field of other items. table: their records."""
        return self._replace(column=_values(table, self.name))

    def unit_vectors(self) -> Tensor:
        """Return the vectors of the column: (items, dim) float32 of norm 1; zeros for absent values."""
        return unit_vectors(self.encoder, self.column)


def unit_vectors(encoder: Encoder, column: pa.Array) -> Tensor:
    """Encode a column.

    Args:
        encoder: A fitted encoder.
        column: (rows,) values.

    Returns:
        (rows, dim) float32 on the CPU, of norm 1; zeros for absent values.
    """
    with torch.inference_mode():
        values, present = encoder.encode_column(column)
        if isinstance(values, Tensor) and values.is_floating_point():
            vectors = values.float().cpu()
        else:
            device = next(encoder.parameters()).device
            parts = torch.arange(len(column)).split(ROWS_AT_A_TIME)
            vectors = torch.cat([encoder(move(select(values, part), device)) for part in parts]).float().cpu()
        return nn.functional.normalize(vectors, dim=1) * present.unsqueeze(1)


def fields_read(model: FittedModel, kind: Kind) -> list[Field]:
    """Return the fields of a kind that the item tower reads.

    Texts are weighted by their length, because a plot says more than a title. Texts that name files are left out: the
    text of a query would be taken for the name of a file.
    """
    if not has_towers(model):
        return []
    model = towers_of(model)
    tower, table, fields = model.scorer.item, model.dataset.items, []
    for name, encoder in zip(tower.features, tower.encoders, strict=True):
        if name.split(".")[0] != kind or name not in table.column_names or not isinstance(encoder, Encoder):
            continue
        if kind == "image" or not encoder.reads_files:
            column = _values(table, name)
            fields.append(Field(name, encoder, column, _length_weight(column) if kind == "text" else 1.0))
    return fields


def category_field(model: FittedModel, fields: list[Field]) -> list[Field]:
    """Return the names of the items' categories as a further text field; empty if no encoder of `fields` can read them.

    Args:
        model: The model.
        fields: The text fields. A frozen encoder reads any text, a trained one only the field that it was trained on.
    """
    name = category_feature(model.dataset, model.config.evaluation.category)
    frozen = [field for field in fields if field.frozen]
    if name is None or not frozen:
        return []
    words = _values(model.dataset.items, name)
    return [Field(name, frozen[0].encoder, words, _length_weight(words))]


def untrained_fields(model: FittedModel, kind: Kind) -> list[Field]:
    """Return the items' features of a kind with an encoder that needs no training (`Encoder.untrained`)."""
    encoders = [plugin for plugin in model.registry.plugins("encoder") if plugin.untrained and plugin.group == kind]
    if not encoders:
        return []
    encoder: Encoder = encoders[0].load()()
    encoder.context = model.context
    names = [name for name in model.dataset.features("item") if name.startswith(f"{kind}.")]
    return [Field(name, encoder, _values(model.dataset.items, name), 1.0) for name in names]


def _values(table: pa.Table, name: str) -> pa.Array:
    """Return a column of items as an encoder of texts or images reads it: categories as their names."""
    column = table.column(name).combine_chunks()
    if not name.startswith("categorical."):
        return column
    return pc.binary_join(column, ", ") if pa.types.is_list(column.type) else column.cast(pa.string())


def _length_weight(texts: pa.Array) -> float:
    """log(1 + mean number of words); 1 without any text."""
    values = flat(texts)[0]
    if not len(values):
        return 1.0
    return float(np.log1p(pc.mean(pc.add(pc.count_substring(values, " "), 1)).as_py()))
