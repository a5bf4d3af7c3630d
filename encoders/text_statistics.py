"""Statistics of texts: how long they are, and how they are written. Nothing is downloaded."""

from __future__ import annotations

import pyarrow as pa

from anyrec.core.ragged import Prepared
from anyrec.data.preparation.text_statistics import statistics_of
from anyrec.encoders.continuous import Continuous


class TextStatistics(Continuous):
    """Numbers of characters, words, sentences and lines of a text, and how it is written; encoded like numbers.

    The statistics are `STATISTICS` of `anyrec.data.preparation.text_statistics`. Several texts of a record count as
    one. It tells short from long and careful from careless texts, not what they are about: choose it for a single
    field, and another encoder for the others.

    Example:
        {"features": {"text": {"fields": {"review": {"type": "text_statistics"}}}}}
    """

    type = "text_statistics"
    group = "text"
    preparation = "text_statistics"

    def fit(self, column: pa.Array) -> None:
        """Learn the mean, the standard deviation and the quantiles of each statistic.

        Args:
            column: (records,) texts, or lists of texts.
        """
        super().fit(statistics_of(column))

    def prepare(self, column: pa.Array) -> Prepared:
        """Compute and standardise the statistics; a record without a text, or with a blank one, is absent.

        Args:
            column: (records,) texts, or lists of texts.

        Returns:
            (records, statistics) float32.
        """
        return super().prepare(statistics_of(column))
