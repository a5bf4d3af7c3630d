"""Which features have values that name files, by the encoders of a model."""

from __future__ import annotations

from anyrec.core.contracts import Encoder
from anyrec.model.blended import has_towers, towers_of
from anyrec.model.fitted import FittedModel


def file_features(model: FittedModel) -> frozenset[str]:
    """Return the groups (`image`) and the single features (`text.transcript`) whose values name files.

    Encoders declare it (`Encoder.reads_files`). A group is there if its default encoder does, also if the model does
    not read it, and a feature if the model's own encoder for it does.
    """
    found = model.registry.file_groups()
    if has_towers(model):
        scorer = towers_of(model).scorer
        for tower in (scorer.user, scorer.item):
            pairs = zip(tower.features, tower.encoders, strict=True)
            found |= {name for name, encoder in pairs if isinstance(encoder, Encoder) and encoder.reads_files}
    return frozenset(found)
