"""What looks for items: those like another, and those that a text or a picture describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.core.errors import Fault, InputError
from anyrec.data.formats.columns import show
from anyrec.model.arguments import checked_choice, checked_k, checked_share, checked_text, log
from anyrec.model.fitted import Known
from anyrec.model.records import Records
from anyrec.retrieval.index import Index
from anyrec.retrieval.semantic.search import SPACES, Queries, Search


class Nearest(Known):
    """The part of the facade that looks for items."""

    directory: Path | None = None
    """The folder that the model was loaded from."""
    _search: Search | None = None
    _alike: tuple[Tensor, Index] | None = None
    """What the interaction reads of the items, and the index of their vectors' cosines."""

    def search(
        self,
        *,
        text: str | None = None,
        image: str | Path | None = None,
        user: Any = None,
        k: int = 10,
        space: str = "auto",
        where: dict[str, Any] | None = None,
        personal: float = 0.3,
        exclude_seen: bool = False,
        candidates: Sequence[Any] | pa.Array | None = None,
        strict: bool | None = None,
    ) -> pa.Table:
        """The k items nearest to a text, a picture or both: item_id, score, rank (from 1).

        image: a file, or a URL where the config allows it. user: an id or a record (a dict), whose liking of an item then makes up the
        share `personal` of its score; without one the score is the cosine. space: "auto", "joint", "text", "image", "looks" or "tower"
        (docs/search.md). where: a condition (docs/rules.md). exclude_seen: leave out what the user had. candidates: ids of the only
        items to list. Raises InputError where the items have nothing to be searched by, for an empty text or an unreadable picture.
        """
        k, text, personal = (
            checked_k(k, len(self.dataset.items)),
            checked_text(text, "text"),
            checked_share(personal, "personal"),
        )
        space = checked_choice(space, SPACES, "--space")
        records = None if user is None else self.read_records("user", self._one_user(user), strict=strict)
        allowed = self._searchable(records, where, exclude_seen, candidates)
        liking = None
        if records is not None:
            with self._inference():
                liking = self._represent("user", records)[1]
        found = self.searcher().find(
            Queries(text, _picture(image)), k, space=space, allowed=allowed, liking=liking, personal=personal
        )
        if records is not None:
            log(user, records.context.warnings)
        return pa.table(
            {
                "item_id": self.dataset.ids("item").take(pa.array(found.items)),
                "score": pa.array(found.scores),
                "rank": pa.array(np.arange(1, len(found.items) + 1)),
            }
        )

    def searcher(self) -> Search:
        """What `search` goes through; its spaces are made once."""
        search = self._search
        if search is None or search.recommender is not self or search.made_of != (self.model, self.dataset):
            self._search = search = Search(self, self.directory)  # type: ignore[arg-type]
        return search

    def _searchable(
        self, records: Records | None, where: dict[str, Any] | None, exclude_seen: bool, candidates: Any
    ) -> np.ndarray | None:
        """(items,) bool, None for all."""
        from anyrec.pipeline.requests import make_requests

        if exclude_seen and records is None:
            raise InputError(Fault("--exclude-seen", "it needs to know of whom.", "Give --user as well.", "option"))
        allowed = np.ones(len(self.dataset.items), bool)
        if candidates is not None:
            rows = self._rows_of_ids("item", candidates)
            allowed[:] = False
            allowed[rows] = True
        if where is not None or exclude_seen:
            request = next(make_requests(self, self._nobody_known() if records is None else records))  # type: ignore[arg-type]
            if where is not None:
                allowed &= _holds(self, where, request, records is not None)
            if exclude_seen:
                allowed[request.seen[1]] = False
        return None if allowed.all() else allowed

    def _one_user(self, user: Any) -> Any:
        """The user of a search as `read_records` takes it. Raises InputError unless it is one id or one record."""
        if isinstance(user, dict):
            document = set(user) & {"user_data", "interactions"}
            return user if document else [self._nobody() | user]
        if isinstance(user, bool) or not isinstance(user, (str, int, np.integer)):
            raise InputError(Fault("user", f"expected an id or a record; found {show(user)}.", kind="option"))
        return [user]

    def _nobody_known(self) -> Records:
        """A user of whom nothing is known, without a note that says so."""
        return self.read_records("user", [self._nobody()], faults=[])

    def _nobody(self) -> dict[str, Any]:
        """The record of a user of whom nothing is known."""
        return {"user_id": -1 if pa.types.is_integer(self.dataset.ids("user").type) else "-"}

    def similar(self, items: Sequence[Any] | pa.Array, k: int = 10) -> pa.Table:
        """The k items nearest to each of `items` by the cosine of item vectors: query_id, item_id, score, rank.

        Args:
            items: Ids that the model knows.
            k: Items for each; at most as many as there are others.
        """
        k = checked_k(k, len(self.dataset.items))
        rows = self._rows_of_ids("item", items)
        with self._inference():
            known = self._known_rows("item")
            if self._alike is None or self._alike[0] is not known:
                vectors = self._vectors("item", known).float().cpu().numpy()
                index = self.registry.get("index", "exact")(vectors.shape[1], "cosine")
                index.build(vectors)
                self._alike = known, index
        index = self._alike[1]
        keys, scores = index.search(index.store.vectors[rows], k, exclude=(np.arange(len(rows)), rows))
        return self._similar_table(rows, torch.from_numpy(keys), torch.from_numpy(scores), k)

    def _similar_table(self, rows: np.ndarray, places: Tensor, scores: Tensor, k: int) -> pa.Table:
        """rows: (queries,); places, scores: (queries, at least k) items, best first."""
        k = min(k, len(self.dataset.items) - 1)
        ids = self.dataset.ids("item")
        return pa.table(
            {
                "query_id": ids.take(pa.array(np.repeat(rows, k))),
                "item_id": ids.take(pa.array(places[:, :k].reshape(-1).cpu().numpy())),
                "score": pa.array(scores[:, :k].reshape(-1).cpu().numpy()),
                "rank": pa.array(np.tile(np.arange(1, k + 1), len(rows))),
            }
        )


def _picture(image: Any) -> str | None:
    """The picture of a query as a name: a file of the working directory by its full path. Raises InputError for what is none."""
    if image is None:
        return None
    if not isinstance(image, (str, Path)):
        raise InputError(Fault("image", f"expected the name of a file; found {show(image)}.", kind="option"))
    try:
        found = Path(image).is_file()
    except (OSError, ValueError):
        found = False
    return str(Path(image).resolve()) if found else str(image)


def _holds(recommender: Any, where: dict[str, Any], request: Any, personal: bool) -> np.ndarray:
    """(items,) bool. Raises ConfigError for what does not fit the data, InputError for a condition on a user where none is given."""
    from anyrec.core.errors import ConfigError
    from anyrec.pipeline.conditions.conditions import Condition

    condition = Condition(where)
    faults = condition.check(recommender, "--where")
    if faults:
        raise ConfigError(faults)
    if condition.names_user and not personal:
        raise InputError(Fault("--where", "it names a feature of the user.", "Give --user as well.", "option"))
    return np.array(condition.holds(request)).reshape(-1)
