"""Encodes events as Server-Sent Events, once for all connections.

Only stored events have an ``id:``, which sets the client's ``Last-Event-ID``. JSON is written in
ASCII on one line, because some clients split lines on U+2028, U+2029 and U+0085.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from streamq._events import EventOrGap, Gap

HEARTBEAT = b":\n"
"""A comment line, without a blank line after it: some clients would dispatch an empty event."""

to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
"""Encodes JSON in ASCII, on one line."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded event.

    Attributes:
        first: Offset of the first event in the frame; only a gap stands for several events.
        offset: Offset of the last event.
        epoch: Epoch of the attempt that wrote it; 0 for a gap, whose writer is not known.
        data: The bytes to send.
    """

    first: int
    offset: int
    epoch: int
    data: bytes


def encode_event(event: EventOrGap) -> Frame:
    """Encode a stored event, whatever its value is."""
    fields = event.to_dict()
    text = to_json(fields)
    data = f"id: {event.place}\nevent: {fields['event']}\ndata: {text}\n\n".encode("ascii")
    if isinstance(event, Gap):
        return Frame(event.first, event.offset, 0, data)
    return Frame(event.offset, event.offset, event.epoch, data)


def encode_opening(
    retry_seconds: float, place: str | None = None, expires_in: float | None = None
) -> bytes:
    """Return the first bytes of a connection.

    Args:
        retry_seconds: How long the client should wait before it reconnects.
        place: Place of a client that has not received an event yet. Without it, a client that
            requested the live tail and lost its connection before the first event would request
            the tail again, and silently miss the events in between. A frame without data is not
            dispatched; it only sets ``Last-Event-ID``.
        expires_in: Seconds until the token of this connection ends, in an event of its own: the
            clocks of both sides need not agree.
    """
    position = "" if place is None else f"id: {place}\n\n"
    token = ""
    if expires_in is not None:
        lifetime = {"expires_in_seconds": round(max(expires_in, 0.0), 3)}
        token = f"event: token\ndata: {to_json(lifetime)}\n\n"
    return f"retry: {round(retry_seconds * 1000)}\n{position}{token}".encode("ascii")


def encode_error(code: str, message: str, *, retryable: bool, retry_seconds: float) -> bytes:
    """Return the frame that states why a connection is about to end."""
    text = to_json({"error": code, "message": message, "retryable": retryable})
    return f"event: error\nretry: {round(retry_seconds * 1000)}\ndata: {text}\n\n".encode("ascii")


def encode_reconnect(reason: str, place: str | None) -> bytes:
    """Return the frame before a connection ends although its stream does not.

    Args:
        reason: ``max_age``, ``stopping``, ``token_expired`` or ``revocations_unknown``.
        place: Where the client continues, as in the ``id`` of the last event; ``None`` where it
            keeps the places of many streams by itself.
    """
    fields = {"event": "reconnect", "reason": reason}
    text = to_json(fields if place is None else fields | {"after": place})
    return f"event: reconnect\ndata: {text}\n\n".encode("ascii")


def frame_parts(frames: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield id, event and data of whole frames that :func:`encode_event` has made."""
    for frame in frames.split(b"\n\n")[:-1]:
        place, kind, data = frame.split(b"\n")
        yield place[4:], kind[7:], data[6:]


REVOKED_EVENT = b'event: revoked\ndata: {"event":"revoked"}\n\n'
"""The last event of a connection whose token was revoked."""


def clip(event: EventOrGap, after: int) -> EventOrGap | None:
    """Return the part of an event that a client at ``after`` has not received, if any."""
    if event.offset <= after:
        return None
    if isinstance(event, Gap) and event.first <= after:
        return Gap(after + 1, event.offset, event.attempt)
    return event
