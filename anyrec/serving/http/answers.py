"""What the answers of scores, searches, vectors and records contain: documented for clients that are generated.

Answers are made as plain objects and not validated, which takes longer than many of them; tests compare the two.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from anyrec.core.types import JsonObject
from anyrec.serving.http.messages import ModelName

Id = int | str


class Answer(BaseModel):
    """An answer without other keys than these."""

    model_config = ConfigDict(extra="forbid")


class PairScore(BaseModel):
    """The score of a user and an item, with the prediction of each head by its name."""

    model_config = ConfigDict(extra="allow")

    user_id: Id
    item_id: Id
    score: float


class Scores(Answer):
    """Scores in the order of the pairs."""

    scores: list[PairScore]
    model: ModelName


class FoundItem(Answer):
    """An item that was found."""

    item_id: Id
    score: float
    rank: int
    fields: JsonObject | None = None


class SimilarTo(Answer):
    """The items most similar to one item."""

    item_id: Id
    items: list[FoundItem]


class SimilarItems(Answer):
    """Similar items in the order of the requested ones."""

    similar: list[SimilarTo]
    model: ModelName
    warnings: list[str]


class SearchResults(Answer):
    """The items that a search found, best first."""

    items: list[FoundItem]
    model: ModelName
    warnings: list[str]


class UserVector(Answer):
    """The vector of a user."""

    user_id: Id
    embedding: list[float]


class ItemVector(Answer):
    """The vector of an item."""

    item_id: Id
    embedding: list[float]


class Vectors(Answer):
    """Vectors: those of ids first, then those of records."""

    users: list[UserVector]
    items: list[ItemVector]
    model: ModelName
    warnings: list[str]


class PopularItem(Answer):
    """An item and the number of people who had it."""

    item_id: Id
    count: int
    rank: int


class PopularItems(Answer):
    """Items by the number of people who had them."""

    items: list[PopularItem]
    model: ModelName


class FoundRecord(BaseModel):
    """The groups of features of an item, and, if it is the only one, the number of people who had it."""

    model_config = ConfigDict(extra="allow")

    item_id: Id
    users: int | None = None


class FoundItems(Answer):
    """Items with some words, by id, and the number of all of them."""

    items: list[FoundRecord]
    total: int


class FoundUser(BaseModel):
    """The groups of features of a user; if it is the only one, with the latest items and events."""

    model_config = ConfigDict(extra="allow")

    user_id: Id
    history: list[Id] = Field(default=[], description="The latest items from training, oldest first.")
    events: list[JsonObject] = Field(default=[], description="The events since, in the order of arrival.")


class FoundUsers(Answer):
    """Users with some words, by id, and the number of all of them."""

    users: list[FoundUser]
    total: int


class ItemsPut(Answer):
    """How many items were added or changed."""

    items: int
    warnings: list[str]


class UsersPut(Answer):
    """How many users were added or changed."""

    users: int
    warnings: list[str]


class Removed(Answer):
    """What was removed or forgotten."""

    removed: Id


class AboutModel(Answer):
    """A version of a model."""

    name: str
    digest: str
    type: str
    loaded: float = Field(description="When it was loaded, in seconds since 1970.")
    users: int
    items: int
    metrics: JsonObject


class Models(Answer):
    """The version that serves, and the one before the last reload."""

    serving: AboutModel
    previous: AboutModel | None


class NowServing(Answer):
    """The version that serves now."""

    serving: AboutModel


def documented(answer: type[BaseModel]) -> JsonObject:
    """Return the options of a route that documents its answer."""
    return {"response_model": None, "responses": {200: {"model": answer, "description": "Successful Response"}}}
