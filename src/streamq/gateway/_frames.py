"""Events to the bytes of Server-Sent Events: encoded once, shared by every connection.

Only events of the log carry an ``id:``; a frame with one moves the client's ``Last-Event-ID``.
JSON is written in ASCII on one line: some clients split lines on U+2028, U+2029 and U+0085.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from streamq._errors import SerializationError
from streamq._events import Event, Gap

HEARTBEAT = b":\n"
"""A comment line. Without a blank line after it: some clients dispatch an empty event for that."""

_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded event.

    Attributes:
        first: Offset of the first event that the frame stands for; only a gap stands for several.
        offset: Offset of the last one.
        data: The bytes to send.
    """

    first: int
    offset: int
    data: bytes


def encode_event(event: Event) -> Frame:
    """Encode an event of the log.

    Raises:
        SerializationError: A chunk does not have the encoding that it claims, or is no valid JSON.
    """
    fields = event.to_dict()
    try:
        text = _to_json(fields)
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"event {event.offset} cannot be written as JSON: {exc}") from exc
    data = f"id: {event.offset}\nevent: {fields['event']}\ndata: {text}\n\n".encode("ascii")
    return Frame(event.first if isinstance(event, Gap) else event.offset, event.offset, data)


def encode_opening(retry_seconds: float, offset: int | None = None) -> bytes:
    """Return what a connection starts with.

    Args:
        retry_seconds: How long the client shall wait before it reconnects.
        offset: Where the client stands although it was sent nothing yet. Without it, a client that
            asked for the live tail and lost its connection before the first event would ask for
            the tail again, and silently miss what came in between. A frame without data is not
            dispatched; it only sets ``Last-Event-ID``.
    """
    place = "" if offset is None else f"id: {offset}\n\n"
    return f"retry: {round(retry_seconds * 1000)}\n{place}".encode("ascii")


def encode_error(code: str, message: str, *, retryable: bool, retry_seconds: float) -> bytes:
    """Return the frame that tells why a connection is about to end."""
    text = _to_json({"error": code, "message": message, "retryable": retryable})
    return f"event: error\nretry: {round(retry_seconds * 1000)}\ndata: {text}\n\n".encode("ascii")


def clip(event: Event, after: int) -> Event | None:
    """Return what of an event a client at ``after`` has not seen, if anything."""
    if event.offset <= after:
        return None
    if isinstance(event, Gap) and event.first <= after:
        return Gap(after + 1, event.offset, event.attempt)
    return event
