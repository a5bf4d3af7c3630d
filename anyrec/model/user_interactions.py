"""The histories of the users as a fitted model keeps them, with the parts of the split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.core.config import Config
from anyrec.data.histories import Events, events_of, history_column, parts_of_events
from anyrec.data.learning import LearningData


def events_in(learning: LearningData, rows: np.ndarray, config: Config) -> Events:
    """Return the interactions `rows` as events ordered by user and time, without explicit negatives."""
    return events_of(learning.dataset, rows, learning.labels.negative, config.data.history)


def histories_of(learning: LearningData, config: Config) -> tuple[pa.Array, np.ndarray]:
    """Return all histories, (users,) list<EVENT>, and (events,) int8, the part of the split of each event."""
    events = events_in(learning, np.arange(len(learning.dataset.interactions)), config)
    parts = learning.dataset.keep(parts_of_events(events, learning.parts))
    return history_column(learning.dataset, events), parts
