"""Reads pages of the log for clients that are behind, without delaying those that are live.

Pages are read by a queue of their own, a few at once, in turn for each client, and are encoded in
small steps. Clients that need the same page share one read.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from streamq._events import Gap
from streamq.driver import ChunkQueue
from streamq.opening._data_converter import configured_conversion
from streamq.opening._open import retry_policy
from streamq.opening._requirements import check_capabilities
from streamq.reading._cursor import Cursor
from streamq.reading._reader import StreamReader
from streamq.records._values import Serializer

from ._clients import Client
from ._frames import Frame, clip, encode_event
from ._hub import Hub
from ._options import GatewayOptions
from ._pacer import Pacer
from ._pages import START_PLACE, EventPage, EventPageCache, ReadPlace
from ._reader_quotas import ReaderQuotas
from ._turns import Turns

_PAGE_BYTES = 16_384
_EVERYTHING = 1 << 62
_RETRY_SECONDS = 5.0
"""Retry limit of one page, during which its turn is taken."""


class CatchUp:
    """Reads pages. Owned by :class:`~streamq.gateway.Gateway`.

    Args:
        open_queue: Returns the queue to read from.
        options: Bounds.
        pacer: Shares the time of the event loop.
        quotas: Bounds the reads of each tenant and subject.
    """

    def __init__(
        self,
        open_queue: Callable[[], Awaitable[ChunkQueue]],
        options: GatewayOptions,
        pacer: Pacer,
        quotas: ReaderQuotas,
    ) -> None:
        self.cache = EventPageCache(options.pages_bytes)
        """Pages that were read."""
        self.turns = Turns(
            options.max_page_reads,
            options.share(options.max_page_reads),
            quotas.allowances("catch_ups"),
        )
        """Bounds the reads, in turn for each client."""
        self._open_queue = open_queue
        self.pacer = pacer
        """Shares the time of the event loop."""
        self._reads: dict[tuple[Hub, int], _Read] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def request(self, hub: Hub, place: ReadPlace, client: Client) -> PageRequest:
        """Ask for the page after a place; the caller waits for it, or drops the request."""
        page = self.cache.get(hub, place.offset)
        if page is not None:
            return PageRequest(page, None)
        key = hub, place.offset
        read = self._reads.get(key)
        if read is None or read.task.cancelling():
            turn: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
            name = f"streamq-page {hub.stream} {place.offset}"
            task = asyncio.create_task(self._read(hub, place, turn), name=name)
            read = self._reads[key] = _Read(task, turn)
            self._own(task)
            task.add_done_callback(partial(self._ended, key, read))
        if client not in read.asks and not read.turn.done():
            read.asks[client] = asyncio.create_task(self._ask(read.turn, client))
            self._own(read.asks[client])
        read.clients += 1
        return PageRequest(None, read)

    async def turn(self, client: Client) -> None:
        """Wait until a client that is behind may be sent something.

        Cancellation: leaves nothing behind.
        """
        await self.pacer.turn(client)

    async def aclose(self) -> None:
        """Stop all reads; the clients that wait for one have been stopped before."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, turn: asyncio.Future[Client], client: Client) -> None:
        """Wait for a turn of one of the clients that want a page; the first one is used."""
        await self.turns.take(client)
        if turn.done():
            self.turns.give_back(client)
        else:
            turn.set_result(client)

    def _ended(
        self, key: tuple[Hub, int], read: _Read, task: asyncio.Task[EventPage | None]
    ) -> None:
        for ask in read.asks.values():
            ask.cancel()
        if read.turn.done() and not read.turn.cancelled():
            self.turns.give_back(read.turn.result())
        if self._reads.get(key) is read:
            del self._reads[key]
        if task.cancelled() or task.exception() is not None:
            return
        hub, offset = key
        page = task.result()
        if page is not None:
            self.cache.put(hub, offset, page)
            hub.places.add(page.end)

    async def _read(
        self, hub: Hub, place: ReadPlace, turn: asyncio.Future[Client]
    ) -> EventPage | None:
        """Return the page after a place; ``None`` if nothing is stored after it."""
        client = await turn  # given back when this task has ended
        reader = self._reader(await self._open_queue(), hub, place)
        try:
            # One read from the backend, and all events that are in it.
            events = await reader.read_batch(
                max_events=_EVERYTHING, max_bytes=_EVERYTHING, max_wait=0.0
            )
            end = ReadPlace(reader.offset, reader.cursor)
        finally:
            await reader.aclose()
        frames: list[Frame] = []
        gaps: dict[int, Gap] = {}
        is_end = reader.seal is not None
        async with self.pacer.steps(client) as steps:
            for each in events:
                event = clip(each, place.offset)
                if event is None:
                    continue
                frames.append(encode_event(event))
                if isinstance(event, Gap):
                    gaps[event.offset] = event
                await steps.rest()
        return EventPage(frames, gaps, end, is_end=is_end) if frames else None

    def _reader(self, queue: ChunkQueue, hub: Hub, place: ReadPlace) -> StreamReader[Any, Gap]:
        check_capabilities(queue, ["replay"])  # clients must not take records from another reader
        retry_seconds = min(hub.settings.retry_seconds, _RETRY_SECONDS)
        settings = hub.settings.model_copy(update={"retry_seconds": retry_seconds})
        serializer: Serializer[Any]
        serializer, codec = configured_conversion(settings, hub.stream)
        start = Cursor() if place.cursor == START_PLACE.cursor else None
        return StreamReader(
            queue,
            hub.stream,
            start or Cursor.decode(place.cursor, hub.stream),
            idle_seconds=settings.idle_seconds,
            retry=retry_policy(settings, queue, hub.stream),
            serializer=serializer,
            codec=codec,
            gaps_as_events=True,
            read_bytes=_PAGE_BYTES,
        )


class _Read:
    """A read that waits for its turn or is under way.

    Attributes:
        task: The read.
        turn: The client in whose turn it is read.
        asks: The clients that want it wait for a turn each: one that asks for many pages must not
            delay another one that wants the same page.
        clients: Number of requests for it.
    """

    __slots__ = ("asks", "clients", "task", "turn")

    def __init__(self, task: asyncio.Task[EventPage | None], turn: asyncio.Future[Client]) -> None:
        self.task = task
        self.turn = turn
        self.asks: dict[Client, asyncio.Task[None]] = {}
        self.clients = 0


class PageRequest:
    """One client's request for a page. It keeps its place in the queue until it is dropped."""

    __slots__ = ("_page", "_read")

    def __init__(self, page: EventPage | None, read: _Read | None) -> None:
        self._page = page
        self._read = read

    async def wait(self, max_wait: float) -> bool:
        """Wait for the page; return whether the request is done."""
        if self._read is None:
            return True
        await asyncio.wait({self._read.task}, timeout=max_wait)
        return self._read.task.done()

    def result(self) -> EventPage | None:
        """Return the page of a request that is done; ``None`` if nothing is stored there.

        Raises:
            StreamqError: The page cannot be read.
        """
        if self._read is None:
            return self._page
        task = self._read.task
        if task.cancelled():
            return None
        failure = task.exception()
        if failure is not None:
            raise failure.with_traceback(None)
        return task.result()

    def drop(self) -> None:
        """Give up the request. A read that no client waits for is cancelled. Idempotent."""
        read, self._read = self._read, None
        if read is not None:
            read.clients -= 1
            if not read.clients:
                read.task.cancel()
