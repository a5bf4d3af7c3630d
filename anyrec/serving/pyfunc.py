"""Loads a model directory for MLflow's `pyfunc`: `mlflow.pyfunc.load_model("models:/shop@champion").predict(users)`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from anyrec.model.request_reader import Users
from anyrec.recommender import Recommender

if TYPE_CHECKING:
    from pandas import DataFrame


class ListsOfUsers:
    """The interface that MLflow calls.

    Args:
        recommender: The loaded recommender.
    """

    def __init__(self, recommender: Recommender):
        self._recommender = recommender

    def predict(self, users: Users, params: Mapping[str, object] | None = None) -> DataFrame:
        """List the best items of each user.

        Args:
            users: Records in any form that `Recommender.recommend` accepts, such as a table with `user_id`.
            params: `k`, the items of each user, and `exclude_seen`.

        Returns:
            user_id, item_id, score and rank, as of `Recommender.recommend`.
        """
        options = params or {}
        k, exclude_seen = options.get("k", 10), options.get("exclude_seen", True)
        return self._recommender.recommend(users, k=int(str(k)), exclude_seen=bool(exclude_seen)).to_pandas()


def _load_pyfunc(path: str) -> ListsOfUsers:
    """Load a model directory; MLflow calls this function by its name."""
    return ListsOfUsers(Recommender.load(Path(path)))
