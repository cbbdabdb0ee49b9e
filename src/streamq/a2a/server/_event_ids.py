"""Gives the events of server-sent streams their ids, for requests that ask for this extension.

A client names the extension in ``A2A-Extensions``; the last event that it has seen it names in
``Last-Event-ID``. Both may be in the query, since an ``EventSource`` sets no headers.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from a2a.server.events.event_queue import Event
from a2a.types.a2a_pb2 import TaskStatusUpdateEvent
from a2a.utils.errors import InvalidParamsError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamq.a2a._extension import EVENT_IDS, LAST_EVENT_ID

from ._checks import query_value

_EXTENSIONS, _LAST = b"a2a-extensions", LAST_EVENT_ID.lower().encode()
_CONTINUES = "streamq.continues_after"
_KINDS = ("artifactUpdate", "statusUpdate", "task")

_last_seen: ContextVar[str | None] = ContextVar("streamq_a2a_last_seen", default=None)


def last_seen() -> int | None:
    """Return the number of the last event that the client of the running request has seen.

    Raises:
        InvalidParamsError: It is no number of an event.
    """
    found = _last_seen.get()
    if found is None:
        return None
    if not (found.isascii() and found.isdigit() and len(found) < 16):
        raise InvalidParamsError(
            f"Last-Event-ID {found[:40]!r} is no number of an event; send the id of the last event "
            "that was received, or none"
        )
    return int(found)


def continuing(number: int) -> Event:
    """Return what begins a stream without a snapshot; clients get a comment instead.

    Without it the headers of the answer would wait for the next event.
    """
    event = TaskStatusUpdateEvent()
    event.metadata[_CONTINUES] = number
    return event


class EventIds:
    """Adds ``id:`` to the frames of events, if a request asks for it.

    The id is the event's number, ``generation``. A snapshot has that of the newest event in it.
    Heartbeats and errors have none, so that they move no client.

    Args:
        app: The routes behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or not (wanted := _extensions(scope)):
            await self._app(scope, receive, send)
            return
        others = [each for each in scope["headers"] if each[0] != _EXTENSIONS]
        scope = {**scope, "headers": [*others, (_EXTENSIONS, ",".join(wanted).encode())]}
        if EVENT_IDS not in wanted:
            await self._app(scope, receive, send)
            return
        token = _last_seen.set(_header(scope, _LAST) or query_value(scope, LAST_EVENT_ID.lower()))
        try:
            await self._app(scope, receive, _Numbering(send))
        finally:
            _last_seen.reset(token)


class _Numbering:
    """Sends an answer; in a stream the frames of events get their ids."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_stream = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._is_stream = kind.startswith(b"text/event-stream")
            if self._is_stream:
                headers = [*message["headers"], (_EXTENSIONS, EVENT_IDS.encode())]
                message = {**message, "headers": headers}
        elif self._is_stream and message.get("body", b"").startswith(b"data:"):
            message = {**message, "body": _numbered(message["body"])}
        await self._send(message)


def _numbered(frame: bytes) -> bytes:
    """Return a frame of one event with its id."""
    data: dict[str, Any] = json.loads(frame.removeprefix(b"data:"))
    found = data.get("result", data)
    events = [found[each] for each in _KINDS if each in found]
    metadata = events[0].get("metadata", {}) if events else {}
    if _CONTINUES in metadata:
        return f": continues after {int(metadata[_CONTINUES])}\r\n\r\n".encode()
    if "generation" not in metadata:
        return frame
    return f"id: {int(metadata['generation'])}\r\n".encode() + frame


def _extensions(scope: Scope) -> list[str]:
    """Return the extensions that a request asks for."""
    given = [each.decode("latin-1") for name, each in scope["headers"] if name == _EXTENSIONS]
    given.append(query_value(scope, "a2a-extensions") or "")
    return [each.strip() for each in ",".join(given).split(",") if each.strip()]


def _header(scope: Scope, wanted: bytes) -> str | None:
    found = [each.decode("latin-1") for name, each in scope["headers"] if name == wanted]
    return found[0] if found else None
