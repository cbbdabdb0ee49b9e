"""Converts events to plain JSON for Temporal, and back: one object for each run of chunks.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any, NoReturn, cast

from streamq._errors import ChunkTooLargeError, SerializationError, error_text
from streamq._events import Chunk, Event, EventOrGap, Gap, Reset, Seal, SealState
from streamq.records._json_form import is_deeper
from streamq.records._text import well_formed_json
from streamq.records._values import PLAIN, Encoding, Serializer

from ._failure import final_failure

PAYLOAD_BYTES = 1_900_000
"""Largest batch. Temporal refuses payloads above 2 MiB; the rest is for what surrounds a batch."""

MAX_DEPTH = 100
"""Deepest JSON for converters, which recurse: Python stops recursion at 1,000 by default."""

_RUN_BYTES = 72  # size of an entry without its values
_NO_LIMIT = 2**62
_MARK_BYTES = 16  # size of the number, the encoding and the punctuation of an encoded value


class EventPacker:
    """Collects events as entries of a batch, and counts their size as JSON.

    Consecutive chunks of one attempt make one entry::

        {"event": "chunks", "offset": 7, "attempt": 1, "seq": 6, "values": ["Hel", null, {"a": 1}],
         "encoded": {"1": [0, "/wA="]}}

    ``offset`` and ``seq`` are those of the first chunk; each further chunk has both one higher.
    ``encoded`` holds the values that JSON cannot represent, and is left out if there are none. Its
    keys are places in ``values``, where ``null`` stands instead; its values are the number of the
    encoding (0: bytes, 3: a Temporal payload) and the bytes in base64. The entry of any other event
    is its ``to_dict()``.

    Attributes:
        entries: The batch so far.
        size: Upper bound of its size as JSON, in bytes.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.size = 2
        # Offset, attempt and seq of the chunk that would continue the last entry.
        self._run: tuple[int, int, int] | None = None

    def add(self, event: EventOrGap, *, max_bytes: int) -> bool:
        """Add an event, unless the batch would exceed ``max_bytes`` and is not empty.

        Raises:
            ApplicationError: The event alone is larger than Temporal allows; not retryable.
        """
        if not isinstance(event, Chunk):
            entry = event.to_dict()
            size = len(json.dumps(entry)) + 2
            if self._exceeds(event, size, max_bytes):
                return False
            self.entries.append(entry)
            self.size += size
            self._run = None
            return True
        value, encoded, size = _json_value(event)
        place = (event.offset, event.attempt, event.seq)
        begins = place != self._run
        if self._exceeds(event, size + (_RUN_BYTES if begins else 0), max_bytes):
            return False
        if begins:
            self.size += _RUN_BYTES
            self.entries.append(
                {
                    "event": "chunks",
                    "offset": event.offset,
                    "attempt": event.attempt,
                    "seq": event.seq,
                    "values": [],
                }
            )
        run = self.entries[-1]
        if encoded is not None:
            run.setdefault("encoded", {})[str(len(run["values"]))] = encoded
        run["values"].append(value)
        self.size += size
        self._run = (event.offset + 1, event.attempt, event.seq + 1)
        return True

    def _exceeds(self, event: EventOrGap, size: int, max_bytes: int) -> bool:
        if self.entries:
            return self.size + size > max_bytes
        if self.size + size > PAYLOAD_BYTES:
            raise final_failure(
                ChunkTooLargeError,
                f"event {event.offset} takes {self.size + size} bytes as JSON, more than Temporal "
                "carries in one payload (2 MiB); read this stream outside the workflow "
                "(subscribe, delivery 'none') or send smaller chunks",
            )
        return False


def pack(events: Iterable[EventOrGap]) -> list[dict[str, Any]]:
    """Return events as the entries of a batch; see :class:`EventPacker`."""
    packer = EventPacker()
    for event in events:
        packer.add(event, max_bytes=_NO_LIMIT)
    return packer.entries


def unpack(entries: Iterable[dict[str, Any]], serializer: Serializer[Any] = PLAIN) -> list[Event]:
    """Return the events of a batch.

    Values are equal to those that were stored; their bytes may differ, since JSON spells a number
    in several ways (``1.0`` for ``1.00``). A JSON text comes back as text.

    Args:
        entries: What :func:`pack` returned.
        serializer: Decodes the chunks' values.

    Raises:
        SerializationError: The entries are no batch.
    """
    events: list[Event] = []
    for entry in entries:
        try:
            _unpack(entry, serializer, events)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
            raise SerializationError(
                f"an entry of a batch cannot be read ({type(exc).__name__}: {error_text(exc)}): "
                f"{str(entry)[:200]}; send what streamq packed, or see the description of a batch"
            ) from exc
    return events


def _unpack(entry: dict[str, Any], serializer: Serializer[Any], events: list[Event]) -> None:
    kind, offset, attempt = entry["event"], _number(entry, "offset"), _number(entry, "attempt")
    if kind == "chunks":
        seq, encoded = _number(entry, "seq"), entry.get("encoded") or {}
        if not isinstance(entry["values"], list):
            raise TypeError(f"values are {type(entry['values']).__name__}, and no list")
        for i, value in enumerate(entry["values"]):
            mark = encoded.get(str(i)) if encoded else None
            if mark is None:
                encoding, data = _encoded(value)
            else:
                encoding, data = Encoding(mark[0]), base64.b64decode(mark[1], validate=True)
            events.append(Chunk(offset + i, attempt, seq + i, encoding, data, serializer))
    elif kind == "reset":
        events.append(Reset(offset, attempt))
    elif kind == "gap":
        # Polls and forwarding ask for no gaps; another packer may have been given some.
        gap = Gap(_number(entry, "first"), offset, attempt)
        events.append(cast(Event, gap))
    elif kind == "end":
        events.append(
            Seal(
                offset,
                attempt,
                SealState[entry["state"]],
                entry.get("error_type", ""),
                entry.get("message", ""),
                entry.get("retryable", False),
            )
        )
    else:
        raise ValueError(f"unknown event {kind!r}")


def _number(entry: dict[str, Any], name: str) -> int:
    number = entry[name]
    if not isinstance(number, int):
        raise TypeError(f"{name} is {number!r}, and no integer")
    return number


def _json_value(chunk: Chunk[Any]) -> tuple[Any, list[Any] | None, int]:
    """Return a chunk's value as JSON, else its bytes in base64, and an upper bound of its size."""
    encoding = chunk.encoding
    if encoding is Encoding.TEXT or encoding is Encoding.JSON:
        try:
            if encoding is Encoding.TEXT:
                text = chunk.data.decode()
                return text, None, len(json.dumps(text)) + 1
            value = json.loads(well_formed_json(chunk.data), parse_constant=_refuse)
            if is_deeper(value, MAX_DEPTH):
                raise ValueError("nested too deeply for converters that recurse")
            size = len(json.dumps(value, separators=(",", ":"), allow_nan=False)) + 1
            return value, None, size
        except (ValueError, RecursionError):
            pass  # a value that is not strictly JSON is sent as bytes
    data = base64.b64encode(chunk.data).decode("ascii")
    return None, [int(encoding), data], len(data) + _MARK_BYTES + 5


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _encoded(value: Any) -> tuple[Encoding, bytes]:
    if isinstance(value, str):
        try:
            return Encoding.TEXT, value.encode()
        except UnicodeEncodeError:  # a lone surrogate: JSON can express it, UTF-8 cannot
            pass
    return Encoding.JSON, json.dumps(value, separators=(",", ":")).encode()
