"""What requests and answers contain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.formats.times import EARLIEST_SECOND, LATEST_SECOND, parse_time, time_hint
from anyrec.serving.live.query import Query


def _whole(value: object) -> object:
    """Return 12.0 as 12: in JSON they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seconds(value: object) -> object:
    """Return a time in ISO 8601 as seconds since 1970, as the data format reads it; other values as they are.

    Raises:
        ValueError: For a text that is not a time, and a number that is none of seconds.
    """
    if isinstance(value, str):
        time = parse_time(value)
        if time is None:
            raise ValueError(f"{show(value)} is not a time. {time_hint(value)}")
        value = time / 1_000_000
    if isinstance(value, (int, float)) and not EARLIEST_SECOND <= value < LATEST_SECOND:
        raise ValueError(f"{show(value)} is not a time of the years 1 to 5138. {time_hint(value)}")
    return value


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Id = Annotated[
    Int64 | Text,
    BeforeValidator(_whole),
    Field(description="Id of a user or an item, of the type of the model's ids."),
]
Moment = Annotated[
    float,
    BeforeValidator(
        _seconds,
        json_schema_input_type=Annotated[float, Field(ge=EARLIEST_SECOND, lt=LATEST_SECOND)]
        | Annotated[str, Field(json_schema_extra={"format": "date-time"})],
    ),
    Field(description="ISO 8601, UTC if no zone is given, or seconds since 1970."),
]
Record = Annotated[
    JsonObject,
    Field(description="Groups of features as in the data format: {'text': {'bio': ...}, 'categorical': {...}}."),
]


class Message(BaseModel):
    """A message whose unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Recommend(Message):
    """A request for one list. A person can be given by an id, a record, a history, all of these, or nothing."""

    user_id: Id | None = None
    user: Record | None = Field(default=None, description="The person's record; replaces the known one.")
    history: list[Id] = Field(default=[], max_length=10_000, description="Items the person had, oldest first.")
    images: dict[str, str] = Field(
        default={},
        max_length=10,
        description="Pictures of the person by feature (`photo`): JPEG, PNG, WebP or GIF files in base64. No other "
        "pictures of the record are then read.",
    )
    k: int = Field(default=10, ge=1, description="Items of the list.")
    offset: int = Field(default=0, ge=0, description="Items before the list, from former pages.")
    exclude: list[Id] = Field(default=[], max_length=10_000, description="Items not to list.")
    candidates: list[Id] | None = Field(
        default=None, min_length=1, max_length=100_000, description="The only items that can be listed."
    )
    filter: JsonObject | None = Field(default=None, description="A condition that all items meet (docs/rules.md).")
    context: JsonObject | None = Field(default=None, description="Values of the moment that rules read.")
    now: Moment | None = Field(default=None, description="Time of the request; by default the present.")
    include_seen: bool = Field(default=False, description="Also list items that the person had.")
    fields: bool | list[str] = Field(
        default=False, description="Add the items' features to the answer: all, or those named (`text.title`)."
    )
    explain: bool = Field(default=False, description="Add the reasons for each item.")
    trace: bool = Field(default=False, description="Add what each stage did with each item.")

    def query(self, pictures: tuple[tuple[str, bytes], ...] = ()) -> Query:
        """Return the request as the live model reads it. pictures: `images`, decoded."""
        return Query(
            user_id=self.user_id,
            user=self.user,
            pictures=pictures,
            history=tuple(self.history),
            k=self.k,
            offset=self.offset,
            exclude=tuple(self.exclude),
            candidates=None if self.candidates is None else tuple(self.candidates),
            where=self.filter,
            context=self.context,
            now=None if self.now is None else round(self.now * 1_000_000),
            include_seen=self.include_seen,
            explain=self.explain,
            trace=self.trace,
        )


class RecommendBatch(Message):
    """Requests for several lists."""

    requests: list[Recommend] = Field(min_length=1)


class ModelName(BaseModel):
    """The model that answered."""

    name: str
    digest: str


class Reason(BaseModel):
    """What a score rests on: a feature, or an item that the person had."""

    kind: Literal["history", "user", "item"]
    name: int | str
    told: str = Field(description="The reason in words.")
    effect: float = Field(description="By how much the score falls without it.")
    share: float = Field(ge=0, le=1, description="Share of all that speaks for the item.")


class Explanation(BaseModel):
    """Why an item is in a list."""

    title: str
    sentence: str
    reasons: list[Reason] = Field(description="The largest share first.")


class Item(BaseModel):
    """One item of a list."""

    item_id: int | str
    score: float
    rank: int = Field(ge=1, description="Place in the whole list, from 1: with `offset` a later page goes on.")
    fields: JsonObject | None = Field(default=None, description="With `fields`: features of the item by group.")
    explanation: Explanation | None = Field(default=None, description="With `explain`.")


class Step(BaseModel):
    """What a stage of the pipeline did with an item (docs/pipeline.md)."""

    item_id: int | str
    event: Literal["barred", "source", "stage", "moved", "removed", "added", "logged"]
    by: str = Field(description="The filter, source, stage or rule.")
    rank: int | None = Field(default=None, ge=1)
    before: int | None = Field(default=None, ge=1)
    score: float | None = None


class List(BaseModel):
    """One list: `$defs/list` of `schemas/result.schema.json`."""

    recommendation_id: str = Field(description="To be sent with the events that the list leads to.")
    user_id: int | str | None = None
    items: list[Item] = Field(description="Best first; fewer than `k` if fewer items are eligible.")
    model: ModelName
    variant: str = Field(description="The variant of the experiment that made the list; `default` without one.")
    fallback: bool = Field(description="Whether the list is not personal.")
    fallback_reason: str | None = Field(default=None, description="Why it is not personal.")
    latency_ms: dict[str, float] = Field(description="Milliseconds of each stage, and of all (`total`).")
    warnings: list[str] = Field(description="What of the request was not read, and what failed and was skipped.")
    trace: list[Step] | None = Field(default=None, description="With `trace`.")


class Failure(BaseModel):
    """The error of one request of a batch."""

    error: str


class ListBatch(BaseModel):
    """The answers to several requests, in their order: `$defs/lists` of `schemas/result.schema.json`."""

    results: list[List | Failure]


class Pair(Message):
    """A user and an item."""

    user_id: Id
    item_id: Id


class Score(Message):
    """Pairs of known users and items to score."""

    pairs: list[Pair] = Field(min_length=1)


class Similar(Message):
    """Items whose similar ones are wanted."""

    item_ids: list[Id] = Field(min_length=1)
    k: int = Field(default=10, ge=1)
    fields: bool | list[str] = False


class Search(Message):
    """A search for items by words, a picture, or both, optionally for a person."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["text"], "properties": {"text": {"type": "string"}}},
                {"required": ["image"], "properties": {"image": {"type": "string"}}},
            ]
        }
    )

    text: str | None = Field(default=None, min_length=1)
    image: str | None = Field(default=None, min_length=1, description="A JPEG, PNG, WebP or GIF file in base64.")
    user_id: Id | None = None
    user: Record | None = None
    k: int = Field(default=10, ge=1)
    filter: JsonObject | None = None
    personal: float = Field(default=0.3, ge=0, le=1, description="Weight of the person's taste.")
    space: Literal["auto", "joint", "text", "image", "visual", "tower"] = "auto"
    fields: bool | list[str] = False


class Embed(Message):
    """Known users or items by id, or records of new ones."""

    user_ids: list[Id] = []
    users: list[JsonObject] = []
    item_ids: list[Id] = []
    items: list[JsonObject] = []


class Event(Message):
    """Something that a user did with an item: an interaction of the data format."""

    event_id: Annotated[str, Field(min_length=1, max_length=200, description="Sent again, it counts once.")]
    user_id: Id
    item_id: Id
    interaction_type: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    timestamp: Moment | None = Field(default=None, description="When it happened; by default now.")
    rating: float | None = None
    label: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1)] | None = Field(
        default=None, description="0: explicitly not liked; 1: explicitly liked."
    )
    weight: Annotated[float, Field(ge=0)] | None = None
    context: JsonObject | None = Field(default=None, description="Values of the moment, for the next training.")
    recommendation_id: Annotated[str, Field(max_length=200)] | None = None
    value: float | None = Field(default=None, description="What it was worth; kept in the log.")
    user: Record | None = Field(default=None, description="Record of a new user.")
    item: Record | None = Field(default=None, description="Record of a new item.")


class Events(Message):
    """Several events. All of them are accepted, or none."""

    events: list[Event] = Field(min_length=1)


class Accepted(BaseModel):
    """What became of the events. `duplicates` were received before."""

    accepted: int
    duplicates: int
    warnings: list[str] = []


class ItemRecord(Message):
    """Groups of features of one item, as in the data format."""

    model_config = ConfigDict(extra="allow")

    item_id: Id


class PutItems(Message):
    """Items to add or change: records of the data format, each with its `item_id`."""

    items: list[ItemRecord] = Field(min_length=1)


class UserRecord(Message):
    """Groups of features of one user, as in the data format."""

    model_config = ConfigDict(extra="allow")

    user_id: Id


class PutUsers(Message):
    """Users to add or change: records of the data format, each with its `user_id`."""

    users: list[UserRecord] = Field(min_length=1)


class Ready(BaseModel):
    """Whether requests are answered."""

    ready: bool
    reasons: list[str] = Field(description="Why not; empty if they are.")
    notes: list[str] = Field(description="What an operator should know although requests are answered.")
    model: str | None = Field(description="Name of the model that serves; null before one does.")


class Reload(Message):
    """A model folder on the server to serve from now on, inside the folder of the present one's runs."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=200)] | None = Field(
        default=None, description="Name of a run in the same folder; by default the present run again."
    )
