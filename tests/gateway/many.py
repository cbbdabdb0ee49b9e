"""Reads connections of many streams as a client does: places, reconnects, endings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from .served import Served


def address(
    *names: str, prefixes: tuple[str, ...] = (), from_: str = "", wait: str = "", after: str = ""
) -> str:
    """Return the address of a GET; names must need no encoding."""
    parts = [("stream", name) for name in names] + [("prefix", each) for each in prefixes]
    parts += [("from", from_), ("wait", wait), ("after", after)]
    return "/events?" + "&".join(f"{key}={value}" for key, value in parts if value)


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
        self.errors: list[tuple[str | None, str, bool]] = []
        """Of each error: the stream that it concerns, the code, whether the gateway goes on."""

    def take(self, event: ServerSentEvent) -> dict[str, Any]:
        """Note an event, and return its data."""
        data: dict[str, Any] = event.json()
        if event.id:
            self.last_id = event.id
        name = data.get("stream")
        if event.event == "error":
            self.errors.append((name, data["error"], data["retryable"]))
            return data
        if name is None:
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

    async def events(self, source: EventSource) -> AsyncIterator[ServerSentEvent]:
        """Yield the events of a connection; a frame without data only sets the id."""
        async for event in source.aiter_sse():
            if event.data:
                yield event
            elif event.id:
                self.last_id = event.id

    async def read(self, source: EventSource, events: int | None = None) -> list[ServerSentEvent]:
        """Take a number of events of a connection, or all of them to its end."""
        return await self.rest(self.events(source), events)

    async def rest(
        self, events: AsyncIterator[ServerSentEvent], most: int | None = None
    ) -> list[ServerSentEvent]:
        """Take a number of events, or all of them to the end of the connection."""
        found = []
        async for event in events:
            self.take(event)
            found.append(event)
            if len(found) == most:
                break
        return found

    async def until(
        self, events: AsyncIterator[ServerSentEvent], condition: Callable[[], bool]
    ) -> list[dict[str, Any]]:
        """Take events until a condition is met; return their data."""
        found = []
        async with asyncio.timeout(20):
            while not condition():
                found.append(self.take(await anext(events)))
        return found

    async def until_ended(
        self, events: AsyncIterator[ServerSentEvent], *names: str
    ) -> list[dict[str, Any]]:
        """Take events until streams have ended; return their data."""
        return await self.until(events, lambda: {*names} <= {*self.ended})
