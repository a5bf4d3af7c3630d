"""Topics of Kafka and Redpanda."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

import msgspec
from pydantic import Field

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import ConfigError, DataError, Fault, MissingDependency, did_you_mean
from anyrec.core.outside import Outside
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows, SourceFile
from anyrec.data.sources.copies import Copy
from anyrec.data.sources.decode import decode
from anyrec.data.sources.open_table import shown

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

SECONDS = 30
"""Time limit of connecting, and of each wait for more messages."""
MESSAGES, PAUSE = 10_000, 0.2
"""Messages of one call, and the seconds that it waits for them."""
KEY, TIME = "kafka_key", "kafka_timestamp"
"""Columns of the key and the time (milliseconds since 1970) of a message."""
REGISTRY = 5
"""Bytes before a value that was written with a schema registry: a zero and the number of its schema."""


class Kafka(Provider):
    """Topics of Kafka and Redpanda whose messages are JSON objects: kafka://HOST:9092/TOPIC."""

    type = "kafka"
    schemes = "kafka"
    remote = True

    class Params(Provider.Params):
        """How the brokers are reached, and up to which time a topic is read."""

        until: str | None = Field(
            default=None,
            max_length=40,
            description="Time (ISO 8601) from which on messages are left out; by default all are read that are there "
            "when reading starts.",
        )
        properties: Annotated[str | None, Outside("a file")] = Field(
            default=None,
            description="File of client properties, such as client.properties of Kafka's own tools: "
            "security.protocol=SASL_SSL and so on. The place for credentials.",
        )

    params: Params

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Read a topic up to its end at this moment into a temporary file, partition by partition."""
        try:
            from confluent_kafka import Consumer
        except ImportError:
            raise MissingDependency("confluent-kafka", "kafka", "Reading Kafka topics") from None
        name = shown(table)
        topic = parse_address(table.places[0]).path.partition("/")[2].strip("/")
        if not topic:
            raise DataError(Fault(name, "the address names no topic.", "Write kafka://HOST:9092/TOPIC.", "address"))
        until = _milliseconds(self.params.until)
        consumer = Consumer(self._settings(access.address(table.places[0]), access, name), logger=_Silent())
        with closing(consumer):
            ends = _ends(consumer, topic, name)
            spool = Spool(topic)
            for partition, (start, end) in sorted(ends.items()):
                spool.add(_messages(consumer, topic, partition, start, end, name), partition, until)
        version = "; ".join(f"{partition}: {start} to {end}" for partition, (start, end) in sorted(ends.items()))
        if self.params.until is not None:
            version += f"; until {self.params.until}"
        if not spool.offsets:
            raise DataError(Fault(name, "the topic holds no messages.", "Check topic and time.", "empty data"))
        file = SourceFile(f"{topic}.jsonl", spool.copy.open, version)
        options = table.format.model_copy(update={"type": "jsonl"}) if table.format.type == "auto" else table.format
        rows = decode([file], options, access)
        rows.place = spool.place
        if spool.empty:
            rows.notes.append(f"{name}: {spool.empty:,} messages without a value are left out.")
        return rows

    def _settings(self, address: str, access: Access, name: str) -> dict[str, str | int | bool]:
        """Return the settings of a consumer that joins no group and stores no offsets."""
        parts = parse_address(address)
        found: dict[str, str | int | bool] = {}
        if self.params.properties is not None:
            found |= _properties(str(access.root / self.params.properties))
        if parts.password is not None:
            found |= {"sasl.username": unquote(parts.user), "sasl.password": unquote(parts.password)}
            found = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", **found}
        return {
            **found,
            "bootstrap.servers": parts.path.partition("/")[0],
            "group.id": "anyrec",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }


@dataclass
class Spool:
    """The messages of a topic as JSON Lines in a temporary file.

    Attributes:
        topic: Its name.
        partitions: (lines,) The partition of each line.
        offsets: (lines,) Its offset in the partition.
        empty: Messages without a value.
        copy: The file.
    """

    topic: str
    partitions: array[int] = field(default_factory=lambda: array("i"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    empty: int = 0
    copy: Copy = field(default_factory=Copy)

    def add(self, messages: Iterator[Message], partition: int, until: int | None) -> None:
        """Append messages that are older than a time in milliseconds since 1970, with their keys and times."""
        with self.copy.writing() as file:
            for message in messages:
                moment = message.timestamp()[1]
                if until is not None and moment >= until:
                    continue
                value = message.value()
                if not value:
                    self.empty += 1
                    continue
                value = _without_schema(value, f"{self.topic} partition {partition} offset {message.offset()}")
                file.write(_line(value, message.key(), moment))
                self.partitions.append(partition)
                self.offsets.append(message.offset() or 0)

    def place(self, row: int, column: str) -> str:
        """Return partition and offset of a row."""
        return f"{self.topic} partition {self.partitions[row]} offset {self.offsets[row]}, column '{column}'"


class _Silent:
    """Takes the log of the client, whose errors are reported once."""

    def log(self, *_: object) -> None:
        """Do nothing."""


def _without_schema(value: bytes, where: str) -> bytes:
    """Return a value without the number of its schema, which a schema registry puts before it.

    Raises:
        DataError: If no JSON follows it, as in values of Avro and Protobuf. where: The message.
    """
    if not value.startswith(b"\0"):
        return value
    if value[REGISTRY:].lstrip().startswith(b"{"):
        return value[REGISTRY:]
    what = "this message is binary, as those of Avro and Protobuf are; messages are read if they are JSON objects."
    hint = "Write the topic as JSON, or to Parquet files by a sink, and name these."
    raise DataError(Fault(where, what, hint, "format"))


def _line(value: bytes, key: bytes | None, moment: int) -> bytes:
    """Return a message as one line. Other than JSON objects stay as they are, and are faults when they are parsed."""
    value = value.replace(b"\n", b" ").replace(b"\r", b" ").strip()
    if not value.startswith(b"{") or not value.endswith(b"}"):
        return value + b"\n"
    added = {TIME: moment} | ({} if key is None else {KEY: key.decode("utf-8", "replace")})
    own = msgspec.json.encode(added)
    return own[:-1] + (b"," if value[1:].lstrip() != b"}" else b"") + value[1:] + b"\n"


def _ends(consumer: Consumer, topic: str, name: str) -> dict[int, tuple[int, int]]:
    """Return the first offset of each partition of a topic and the one after its last."""
    from confluent_kafka import KafkaException, TopicPartition

    try:
        topics = consumer.list_topics(timeout=SECONDS).topics
        if topic not in topics:
            known = [one for one in topics if not one.startswith("__")]
            raise DataError(Fault(name, f"there is no topic '{topic}'.", did_you_mean(topic, known), "no table"))
        parts = [TopicPartition(topic, partition) for partition in topics[topic].partitions]
        return {one.partition: consumer.get_watermark_offsets(one, timeout=SECONDS) for one in parts}
    except KafkaException as error:
        raise _failed(error, name) from None


def _messages(consumer: Consumer, topic: str, partition: int, start: int, end: int, name: str) -> Iterator[Message]:
    """Yield the messages of a partition up to an offset."""
    from confluent_kafka import KafkaException, TopicPartition

    if start >= end:
        return
    consumer.assign([TopicPartition(topic, partition, start)])
    waiting = time.monotonic() + SECONDS
    while time.monotonic() < waiting:
        for message in consumer.consume(MESSAGES, timeout=PAUSE):
            problem = message.error()
            if problem is not None and problem.name() == "_PARTITION_EOF":
                return
            if problem is not None:
                raise _failed(KafkaException(problem), name)
            offset = message.offset() or 0  # a message that was received has one
            if offset >= end:
                return
            yield message
            if offset == end - 1:
                return
            waiting = time.monotonic() + SECONDS
    what = f"no message of partition {partition} came in {SECONDS} s."
    raise DataError(Fault(name, what, "Try again.", "unreachable"))


def _failed(error: Exception, name: str) -> DataError:
    problem = error.args[0]
    if problem.name() in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "TOPIC_AUTHORIZATION_FAILED"):
        hint = "Put security.protocol, sasl.username and sasl.password into the file of the option properties."
        return DataError(Fault(name, f"the brokers refuse access: {problem.str()}.", hint, "credentials"))
    hint = "Check host and port, and the file of the option properties."
    return DataError(Fault(name, f"the brokers cannot be reached: {problem.str()}.", hint, "unreachable"))


def _properties(path: str) -> dict[str, str | int | bool]:
    """Return the settings of a properties file: name=value on each line."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise DataError(Fault(path, f"cannot be read: {error.strerror}.", kind="no file")) from None
    pairs = [line.partition("=") for line in lines if line and not line.startswith(("#", "!"))]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "Write it like 2024-01-31T12:00:00Z."
        raise ConfigError(Fault("provider.until", f"this is no time: {text[:40]}.", hint, "time")) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
