"""Events of a stream as readers see them, numbered by one dense offset: chunks, resets, gaps, seal.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Generic, Never, TypeAlias
from urllib.parse import quote

from typing_extensions import TypeVar

from .records._json_form import json_form
from .records._values import PLAIN, Encoding, Serializer, T, TCo

_LOOKS_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
SYSTEM_TENANT = "streamq.system"
"""The tenant of streams that streamq keeps for itself; settings and tokens cannot name it."""

STREAM_NAME_BYTES = 1_536
"""Longest name of a stream: the longest workflow id and a run id leave 498 bytes for the topic."""


@dataclass(frozen=True, slots=True)
class StreamId:
    """Identity of a stream: ``tenant/name``.

    ``str()`` is the form for messages, terminals and logs, :func:`shown`; keys are made of
    :attr:`full_name`.

    Attributes:
        tenant: Isolation scope, 1 to 64 characters of ``[A-Za-z0-9._-]``.
        name: 1 to 1,536 bytes of UTF-8, any characters: what Temporal takes as an id, it is.

    Raises:
        ValueError: A part is outside these bounds.
    """

    tenant: str
    name: str

    def __post_init__(self) -> None:
        tenant_ok = 0 < len(self.tenant) <= 64 and all(
            c.isascii() and (c.isalnum() or c in "._-") for c in self.tenant
        )
        if not tenant_ok:
            raise ValueError(
                f"tenant {self.tenant!r} must be 1 to 64 letters, digits, '.', '_' or '-'"
            )
        try:
            size = len(self.name.encode())
        except UnicodeEncodeError:
            raise ValueError(
                f"stream name {self.name[:100]!r} has a lone surrogate, which is no character and "
                "cannot be stored; give text that can be encoded as UTF-8"
            ) from None
        if not 0 < size <= STREAM_NAME_BYTES:
            raise ValueError(f"stream name must be 1 to {STREAM_NAME_BYTES} bytes, not {size}")

    @property
    def full_name(self) -> str:
        """``tenant/name`` exactly as it is: for keys and digests, never to be shown."""
        return f"{self.tenant}/{self.name}"

    def __str__(self) -> str:
        return f"{self.tenant}/{shown(self.name)}"


def user_stream(tenant: str, name: str) -> StreamId:
    """Return the identity of a stream that is not one of streamq's own.

    Raises:
        ValueError: It cannot be one.
    """
    if tenant == SYSTEM_TENANT:
        raise ValueError(f"tenant {tenant!r} is reserved for streamq itself; choose another name")
    return StreamId(tenant, name)


def shown(name: str) -> str:
    """Return a name as it is shown to people: the name itself if every character is visible.

    Otherwise, and if the name has ``%`` and two hexadecimal digits, control characters, invisible
    and unassigned ones, spaces at the ends and ``%`` are percent-encoded as in URLs. A terminal or
    a log thus gets no control character, two names never look the same for this, and
    ``urllib.parse.unquote`` returns the name from every shown form. Which characters are visible
    depends on the version of Python; nothing is stored under this form.
    """
    if name.isprintable() and name == name.strip() and not _LOOKS_ENCODED.search(name):
        return name
    visible = range(len(name) - len(name.lstrip(" ")), len(name.rstrip(" ")))
    return "".join(
        char if i in visible and char.isprintable() and char != "%" else quote(char, safe="")
        for i, char in enumerate(name)
    )


class SealState(enum.IntEnum):
    """How a stream ended."""

    END = 0
    ERROR = 1
    CANCELLED = 2

    def __str__(self) -> str:
        return self.name


def place_text(offset: int, epoch: int) -> str:
    """Return the place of an event in the life of a stream, ``OFFSET@EPOCH``.

    The epoch of the attempt that wrote the event tells apart two streams that had one name after
    each other. Where it is not known (0) the place is the offset alone.
    """
    return f"{offset}@{epoch}" if epoch else str(offset)


@dataclass(frozen=True, slots=True)
class Chunk(Generic[TCo]):
    """One value that the producer sent.

    Attributes:
        offset: Dense number of this event in the stream, from 1, the same for every reader.
        attempt: Which attempt of the producer sent it, 1, 2, 3, ...
        seq: Position within the attempt, from 0 (continues across attempts that resume).
        encoding: How ``data`` is encoded.
        data: The encoded bytes.
        serializer: Decodes them.
        epoch: Epoch of the attempt; 0 if it is not known, as in batches of a workflow.
    """

    offset: int
    attempt: int
    seq: int
    encoding: Encoding
    data: bytes
    serializer: Serializer[TCo] = field(default=PLAIN, repr=False, compare=False)
    epoch: int = field(default=0, repr=False, compare=False)

    @property
    def place(self) -> str:
        """The event's place, :func:`place_text`: the gateway continues after it."""
        return place_text(self.offset, self.epoch)

    @property
    def value(self) -> TCo:
        """The value as it was sent, decoded on each access.

        Raises:
            SerializationError: The bytes do not have the declared encoding, or are not of the
                requested type.
        """
        return self.serializer.decode(self.encoding, self.data)

    def to_dict(self) -> dict[str, object]:
        """Return the event as JSON-ready data.

        Whatever the value is, it has a form: ``value`` for text and JSON, ``base64`` for bytes,
        ``undecoded`` for what nothing decodes. ``docs/gateway.md`` describes them. A payload is
        decoded as :attr:`value` is.
        """
        data: dict[str, object] = {
            "event": "chunk",
            "offset": self.offset,
            "attempt": self.attempt,
            "seq": self.seq,
        }
        return data | json_form(self.encoding, self.data, self.serializer)


@dataclass(frozen=True, slots=True)
class Reset:
    """A new attempt starts over: every chunk before it is void.

    Attributes:
        offset: Dense number of this event.
        attempt: The attempt that begins here.
        epoch: Epoch of that attempt; 0 if it is not known, as in batches of a workflow.
    """

    offset: int
    attempt: int
    epoch: int = field(default=0, repr=False, compare=False)

    @property
    def place(self) -> str:
        """The event's place, :func:`place_text`: the gateway continues after it."""
        return place_text(self.offset, self.epoch)

    def to_dict(self) -> dict[str, object]:
        """Return the event as JSON-ready data."""
        return {"event": "reset", "offset": self.offset, "attempt": self.attempt}


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are no longer stored; delivered only with ``gaps_as_events``.

    Attributes:
        first: Offset of the first missing event.
        offset: Offset of the last missing event.
        attempt: Attempt of the first event after the gap.
    """

    first: int
    offset: int
    attempt: int

    def to_dict(self) -> dict[str, object]:
        """Return the event as JSON-ready data."""
        return {
            "event": "gap",
            "first": self.first,
            "offset": self.offset,
            "attempt": self.attempt,
        }

    @property
    def place(self) -> str:
        """The place after the gap: its last offset, since who wrote that event is not known."""
        return str(self.offset)


@dataclass(frozen=True, slots=True)
class Seal:
    """The ending of a stream; always the last event.

    Attributes:
        offset: Dense number of this event.
        attempt: The attempt that ended.
        state: END, ERROR or CANCELLED.
        error_type: The producer's name for its failure (ERROR only).
        message: The producer's text about the ending.
        retryable: Whether the producer called its failure retryable (ERROR only).
        epoch: Epoch of that attempt; 0 if it is not known, as in batches of a workflow.
    """

    offset: int
    attempt: int
    state: SealState
    error_type: str = ""
    message: str = ""
    retryable: bool = False
    epoch: int = field(default=0, repr=False, compare=False)

    @property
    def place(self) -> str:
        """The event's place, :func:`place_text`: the gateway continues after it."""
        return place_text(self.offset, self.epoch)

    def to_dict(self) -> dict[str, object]:
        """Return the event as JSON-ready data."""
        data: dict[str, object] = {
            "event": "end",
            "offset": self.offset,
            "attempt": self.attempt,
            "state": self.state.name,
        }
        if self.message:
            data["message"] = self.message
        if self.state is SealState.ERROR:
            data |= {"error_type": self.error_type, "retryable": self.retryable}
        return data


Event: TypeAlias = Chunk[T] | Reset | Seal
"""An event of a stream, as readers get it that did not ask for gaps."""

EventOrGap: TypeAlias = Chunk[T] | Reset | Gap | Seal
"""An event of a stream, as readers get it that asked for ``gaps_as_events``."""

GapT = TypeVar("GapT", default=Never, covariant=True)
"""Type of the gaps that a reader returns: :class:`Gap`, or nothing."""
