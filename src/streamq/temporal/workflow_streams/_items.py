"""Defines the items of a workflow's log: what is published, and how it is stored."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec, PayloadConverter

from streamq._errors import CorruptRecordError

T = TypeVar("T")

TOPIC = "workflow-streams"
"""Topic of the stream that is a workflow's log; each item of the log has a topic of its own."""

TOPICS = "workflow-streams-topics"
"""Topic of the stream that lists the topics of a log that are streams of their own."""

_TOPIC_KEY, _PUBLISHER_KEY = "streamq-topic", "streamq-publisher"


@dataclass
class WorkflowStreamItem(Generic[T]):
    """One item of a workflow's log.

    Attributes:
        topic: Topic to which it was published.
        data: The value, decoded to the type that the subscriber requested.
        offset: Its position in the log, from 0, in ascending order.
    """

    topic: str
    data: T
    offset: int = 0


class Topic(Generic[T]):
    """One topic of a workflow's log, and the type of its items."""

    def __init__(self, name: str, type: type[T]) -> None:
        self._name = name
        self._type = type

    @property
    def name(self) -> str:
        """The topic."""
        return self._name

    @property
    def type(self) -> type[T]:
        """The type to which it is bound."""
        return self._type


@dataclass
class PublishEntry:
    """One item to publish.

    Attributes:
        topic: Topic to publish to.
        data: The serialized payload as base64.
    """

    topic: str
    data: str

    def size(self) -> int:
        """Return its approximate size as JSON, in bytes."""
        return len(self.topic) + len(self.data)

    def payload(self) -> Payload:
        """Return the payload."""
        return Payload.FromString(base64.b64decode(self.data))


@dataclass
class PublishRequest:
    """Items that a workflow publishes in one call.

    Attributes:
        publisher: Identifies the publisher, a run of the workflow.
        first: Number of the first item.
        items: The items in order.
        topics: Whether each topic is a stream of its own as well.
    """

    publisher: str = ""
    first: int = 1
    items: list[PublishEntry] = field(default_factory=list)
    topics: bool = False

    def size(self) -> int:
        """Return its approximate size as JSON, in bytes."""
        return sum(entry.size() for entry in self.items)


@dataclass
class WorkflowStreamState:
    """State that a workflow passes to its next run: published items that have not arrived yet.

    Attributes:
        pending: The items in order. Some may have arrived; a repeat is recognised by its number.
        sequences: For each publisher that sends signals, the number of its newest batch.
        last_seen: When that batch came, in seconds since 1970; not in states of older versions.
    """

    pending: list[PublishRequest] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)
    last_seen: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Numbered:
    """One item as it is stored: numbered by its publisher, so that a repeat is recognised."""

    topic: str
    payload: Payload
    publisher: str
    number: int

    async def encode(self, codec: PayloadCodec | None) -> bytes:
        """Return the item as bytes, encoded by the codec if there is one."""
        payload = Payload(metadata=self.payload.metadata, data=self.payload.data)
        payload.metadata[_TOPIC_KEY] = self.topic.encode()
        payload.metadata[_PUBLISHER_KEY] = f"{self.number} {self.publisher}".encode()
        if codec is not None:
            [payload] = await codec.encode([payload])
        data: bytes = payload.SerializeToString()
        return data

    @classmethod
    async def decode(cls, data: bytes, codec: PayloadCodec | None) -> Numbered:
        """Undo :meth:`encode`.

        Raises:
            CorruptRecordError: Another program wrote to the log, or the codec is another one.
        """
        payload = Payload.FromString(data)
        if codec is not None:
            [payload] = await codec.decode([payload])
        try:
            topic = payload.metadata[_TOPIC_KEY].decode()
            number, _, publisher = payload.metadata[_PUBLISHER_KEY].decode().partition(" ")
            metadata = {
                key: value
                for key, value in payload.metadata.items()
                if key not in (_TOPIC_KEY, _PUBLISHER_KEY)
            }
            plain = Payload(metadata=metadata, data=payload.data)
            return cls(topic, plain, publisher, int(number))
        except ValueError as exc:
            raise CorruptRecordError(
                "an item of the workflow's log cannot be read: was it published with another "
                "payload codec?"
            ) from exc


def to_payload(value: Any, converter: PayloadConverter) -> Payload:
    """Return a value as payload; a payload is returned unchanged."""
    return value if isinstance(value, Payload) else converter.to_payloads([value])[0]


def bind(bound: dict[str, Any], name: str, type_: Any) -> Any:
    """Bind a topic to a type, ``Any`` if there is none.

    Raises:
        RuntimeError: It is bound to another type, or the type is ``Payload``.
    """
    chosen = Any if type_ is None else type_
    if chosen is Payload:
        raise RuntimeError(
            "a topic cannot be bound to type=Payload, which no converter decodes; leave the type "
            "out, publish payloads as they are, and subscribe with result_type=RawValue"
        )
    if bound.setdefault(name, chosen) != chosen:
        raise RuntimeError(
            f"topic {name!r} is bound to type {bound[name]!r} here, and cannot be bound to "
            f"{chosen!r}; use one type for a topic, or none"
        )
    return chosen
