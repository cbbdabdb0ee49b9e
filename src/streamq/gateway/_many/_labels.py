"""Puts the name of the stream, and its place, in front of the data of encoded events.

Events are encoded once, by the hub, for all clients. Here bytes are put between bytes; no JSON is
decoded.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

from streamq.gateway._error_responses import Problem
from streamq.gateway._frames import to_json
from streamq.gateway._places import EventPlace

from ._places_token import PlacesToken

_DATA = b"data: {"


def name_of(name: str) -> bytes:
    """Return the name of a stream as JSON."""
    return to_json(name).encode("ascii")


def with_names(frames: bytes, name: bytes) -> bytes:
    """Return frames of :func:`encode_event` without ids: the client keeps the places.

    Args:
        frames: Whole frames of one stream.
        name: The stream, from :func:`name_of`.
    """
    begin = b'\ndata: {"stream":' + name + b',"place":"'
    out = []
    for frame in frames.split(b"\n\n")[:-1]:
        place, kind, data = frame.split(b"\n", 2)
        out.append(b'%b%b%b",%b\n\n' % (kind, begin, place[4:], data[len(_DATA) :]))
    return b"".join(out)


def with_ids(frames: bytes, name: bytes, stream: str, token: PlacesToken) -> bytes:
    """Return frames of :func:`encode_event` whose ids have the places of all streams.

    Args:
        frames: Whole frames of one stream.
        name: The stream, from :func:`name_of`.
        stream: The same as text.
        token: The places; that of this stream is advanced.
    """
    begin = b'\ndata: {"stream":' + name + b',"place":"'
    ids = token.ids_of(stream)
    out = []
    place = EventPlace(0)
    for frame in frames.split(b"\n\n")[:-1]:
        first, kind, data = frame.split(b"\n", 2)
        text = first[4:]
        offset, _, epoch = text.partition(b"@")
        place = EventPlace(int(offset), int(epoch or 0))
        fields = (ids.at(place), kind, begin, text, data[len(_DATA) :])
        out.append(b'id: %b\n%b%b%b",%b\n\n' % fields)
    token.set(stream, place)
    return b"".join(out)


def stream_frame(name: bytes, place: str, state: str, *, is_new: bool) -> bytes:
    """Return the frame that says that a stream belongs to the connection, and where it begins.

    Args:
        name: The stream, from :func:`name_of`.
        place: Where its events begin.
        state: ``OPEN``, ``ABSENT`` or ``ENDED``.
        is_new: Whether it has appeared since the connection began.
    """
    flag = b"true" if is_new else b"false"
    fields = (name, place.encode("ascii"), state.encode("ascii"), flag)
    data = b'{"event":"stream","stream":%b,"place":"%b","state":"%b","is_new":%b}' % fields
    return b"event: stream\ndata: %b\n\n" % data


def error_frame(what: str, name: str, problem: Problem, *, retryable: bool) -> bytes:
    """Return the frame of an error that concerns one stream, or one prefix, only.

    Args:
        what: ``stream`` or ``prefix``.
        name: The stream or prefix.
        problem: What happened.
        retryable: Whether the gateway goes on with it by itself.
    """
    data = {
        "event": "error",
        what: name,
        "error": problem.code,
        "message": problem.message,
        "retryable": retryable,
    }
    return f"event: error\ndata: {to_json(data)}\n\n".encode("ascii")
