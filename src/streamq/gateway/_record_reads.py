"""Reads stored records for clients: what is live once for all of them, what is older in turn.

Clients that have all records of a stream wait at the same position, so that one read of the backend
serves all of them. Everything older is read in pages by the queue of the past, in the turns of
:class:`CatchUp`.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streamq._events import StreamId
from streamq._settings import Settings
from streamq.calling._reads import Reads
from streamq.driver import ChunkQueue, Stored
from streamq.opening._open import retry_policy
from streamq.opening._requirements import check_capabilities

from ._clients import Client
from ._pacer import Pacer
from ._record_frames import RecordPage, encode_records
from ._turns import Turns

PAGE_RECORDS = 256
PAGE_BYTES = 65_536
_LIVE_SECONDS = 20.0
_LIVE_POSITIONS = 8
"""Most positions of one stream at which reads wait. At the end of a stream there is one; a client
can name many that nothing follows."""

_POLL_SECONDS = 1.0


class RecordReads:
    """The reads of records of one gateway.

    Args:
        open_live: Returns the queue of live events.
        open_past: Returns the queue of everything else.
        turns: Bounds the reads of the past, in turn for each client.
        pacer: Shares the time of the event loop.
        settings: How calls are retried and bounded.
    """

    def __init__(
        self,
        open_live: Callable[[], Awaitable[ChunkQueue]],
        open_past: Callable[[], Awaitable[ChunkQueue]],
        turns: Turns,
        pacer: Pacer,
        settings: Settings,
    ) -> None:
        self._open_live = open_live
        self._open_past = open_past
        self._turns = turns
        self._pacer = pacer
        self._settings = settings
        self._live: dict[tuple[StreamId, str], _LiveRead] = {}
        self._positions: Counter[StreamId] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def page(
        self,
        stream: StreamId,
        after: str,
        client: Client,
        *,
        max_records: int = PAGE_RECORDS,
        max_bytes: int = PAGE_BYTES,
        max_wait: float | None = None,
    ) -> RecordPage | None:
        """Return the records after a position, ``None`` if there are none yet.

        Args:
            stream: The stream.
            after: The position.
            client: In whose turn they are read.
            max_records: Most records.
            max_bytes: Most bytes of their data, except that there is one in any case.
            max_wait: How long to wait for the turn.

        Raises:
            GatewayLimitError: No turn came in time.
            CursorError: No driver has returned this position.
            CapabilityError: The backend has no replay.
            StreamqError: The backend cannot be queried.
        """
        queue = await self._open_past()
        check_capabilities(queue, ["replay"])  # clients must not take records from another reader
        async with self._turns.turn(client, max_wait):
            retry = retry_policy(self._settings, queue, stream)
            reads = Reads(queue, stream)
            found = await retry.run(
                lambda: reads.read(
                    after, max_records=max_records, max_bytes=max_bytes, max_wait=0.0
                )
            )
        return await self._encoded(found, client, max_records, max_bytes)

    def request(
        self, stream: StreamId, after: str, client: Client, *, is_live: bool
    ) -> RecordRequest:
        """Ask for the records after a position; the caller waits for them, or drops the request.

        Args:
            stream: The stream.
            after: The position.
            client: The client.
            is_live: Whether everything up to the position was all that is stored: the request then
                waits for more.
        """
        if not is_live:
            return RecordRequest(self._begin(self.page(stream, after, client)), None)
        key = (stream, after)
        read = self._live.get(key)
        if read is None or read.task.cancelling():
            if self._positions[stream] >= _LIVE_POSITIONS:
                return RecordRequest(self._begin(self._poll(stream, after, client)), None)
            task = self._begin(self._wait(stream, after, client))
            read = self._live[key] = _LiveRead(task)
            self._positions[stream] += 1
            task.add_done_callback(lambda _: self._ended(key, read))
        read.clients += 1
        return RecordRequest(read.task, read)

    async def aclose(self) -> None:
        """Stop all reads; the clients that wait for one have been stopped before."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, read: Any) -> asyncio.Task[RecordPage | None]:
        task: asyncio.Task[RecordPage | None] = asyncio.create_task(read, name="streamq-records")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A client that goes before its read fails hears nothing of it.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    def _ended(self, key: tuple[StreamId, str], read: _LiveRead) -> None:
        self._positions[key[0]] -= 1
        if not self._positions[key[0]]:
            del self._positions[key[0]]
        if self._live.get(key) is read:
            del self._live[key]

    async def _wait(self, stream: StreamId, after: str, client: Client) -> RecordPage | None:
        """Wait for the records after a position, for all clients that wait there."""
        queue = await self._open_live()
        retry = retry_policy(self._settings, queue, stream)
        reads = Reads(queue, stream)
        while True:
            found = await retry.run(
                lambda: reads.read(
                    after,
                    max_records=PAGE_RECORDS,
                    max_bytes=PAGE_BYTES,
                    max_wait=_LIVE_SECONDS,
                ),
                wait_seconds=_LIVE_SECONDS,
            )
            if found:
                return await self._encoded(found, client, PAGE_RECORDS, PAGE_BYTES)

    async def _poll(self, stream: StreamId, after: str, client: Client) -> RecordPage | None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if (page := await self.page(stream, after, client)) is not None:
                return page

    async def _encoded(
        self, found: Sequence[Stored], client: Client, max_records: int, max_bytes: int
    ) -> RecordPage | None:
        if not found:
            return None
        size = sum(len(stored.data) for stored in found)
        is_full = len(found) >= max_records or 2 * size >= max_bytes
        data = await encode_records(found, self._pacer, client)
        return RecordPage(data, found[-1].position, is_full)


class _LiveRead:
    """A read that waits, for one client or for several.

    Attributes:
        task: The read.
        clients: Number of requests for it.
    """

    __slots__ = ("clients", "task")

    def __init__(self, task: asyncio.Task[RecordPage | None]) -> None:
        self.task = task
        self.clients = 0


class RecordRequest:
    """One client's request for records."""

    __slots__ = ("_read", "_task")

    def __init__(self, task: asyncio.Task[RecordPage | None], read: _LiveRead | None) -> None:
        self._task = task
        self._read = read

    async def wait(self, max_wait: float, until: asyncio.Future[None]) -> bool:
        """Wait for the records, or until something else is done; return whether they are there."""
        if not self._task.done():
            either: set[asyncio.Future[Any]] = {self._task, until}
            await asyncio.wait(either, timeout=max_wait, return_when=asyncio.FIRST_COMPLETED)
        return self._task.done()

    def result(self) -> RecordPage | None:
        """Return the records of a request that is done; ``None`` if there are none.

        Raises:
            StreamqError: They cannot be read.
        """
        if self._task.cancelled():
            return None
        failure = self._task.exception()
        if failure is not None:
            raise failure.with_traceback(None)
        return self._task.result()

    def drop(self) -> None:
        """Give up the request. A read that no client waits for is cancelled. Idempotent."""
        read, self._read = self._read, None
        if read is not None:
            read.clients -= 1
            if read.clients:
                return
        self._task.cancel()
