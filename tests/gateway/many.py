"""Reads connections of many streams as a client does: places, reconnects, endings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from .served import Served


def address(*names: str, prefixes: tuple[str, ...] = (), **query: str) -> str:
    """Return the address of a GET; names must need no encoding."""
    parts = [f"stream={name}" for name in names] + [f"prefix={prefix}" for prefix in prefixes]
    return "/events?" + "&".join(parts + [f"{key}={value}" for key, value in query.items()])


class Reader:
    """What a client has received over all its connections, by stream."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.last_id: str | None = None
        """The id of the last event, as an ``EventSource`` keeps it."""
        self.places: dict[str, str] = {}
        """The last place of each stream, as a client of ``POST`` keeps them."""
        self.offsets: dict[str, list[int]] = defaultdict(list)
        """Offsets of all events, in the order of their arrival."""
        self.values: dict[str, list[Any]] = defaultdict(list)
        """Values of all chunks."""
        self.ended: list[str] = []
        """Streams whose end has arrived, in order."""
        self.order: list[str] = []
        """The stream of each event, in order."""

    def take(self, event: ServerSentEvent) -> dict[str, Any]:
        """Note an event, and return its data."""
        data: dict[str, Any] = event.json()
        if event.id:
            self.last_id = event.id
        name = data.get("stream")
        if name is None or event.event == "error":
            return data
        self.places[name] = data["place"]
        if event.event == "stream":
            return data
        self.offsets[name].append(data["offset"])
        self.order.append(name)
        if event.event == "chunk":
            self.values[name].append(data["value"])
        elif event.event == "end":
            self.ended.append(name)
        return data

    @asynccontextmanager
    async def get(self, path: str, **headers: str) -> AsyncIterator[EventSource]:
        """Connect as an ``EventSource`` does, with the last id."""
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        async with aconnect_sse(self.served.client, "GET", path, headers=headers) as source:
            yield source

    @asynccontextmanager
    async def post(self, body: dict[str, Any], **headers: str) -> AsyncIterator[EventSource]:
        """Connect as a ``fetch`` does, with the places."""
        asked = body | ({"after": dict(self.places)} if self.places else {})
        async with aconnect_sse(
            self.served.client, "POST", "/events", json=asked, headers=headers
        ) as source:
            yield source

    async def read(self, source: EventSource, events: int | None = None) -> list[ServerSentEvent]:
        """Read a number of events, or all of them to the end of the connection."""
        found = []
        async for event in source.aiter_sse():
            if event.data:
                self.take(event)
                found.append(event)
                if len(found) == events:
                    break
        return found
