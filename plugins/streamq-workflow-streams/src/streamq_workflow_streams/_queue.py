"""Implements streamq's contract on host workflows.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from temporalio.client import Client

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Closing,
    Entry,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    TemporalEndpoint,
    closed_error,
    decode_position,
)

from ._errors import BACKEND
from ._live_tail import LiveTail
from ._reading import HostReader
from ._settings import WorkflowStreamsSettings
from ._writing import Appender
from .requests._connection import TemporalConnection
from .requests._hosts import HostRequests

_CHECKS_PER_SECOND = 50
_SDK_SECONDS = 0.02


class WorkflowStreamsQueue(ChunkQueue):
    """Streams on one Temporal namespace, each in a host workflow of its own.

    Args:
        options: Options that every queue is opened with.
        settings: The driver's settings.
        capabilities: The capabilities to declare.
        client: The SDK's client.
    """

    backend = BACKEND

    def __init__(
        self,
        options: QueueOptions,
        settings: WorkflowStreamsSettings,
        capabilities: Capabilities,
        client: Client,
        endpoint: TemporalEndpoint,
    ) -> None:
        self.capabilities = capabilities
        self._ttl = options.ttl
        self._settings = settings
        self._connection = TemporalConnection(client, settings, endpoint)
        self.requests = HostRequests(self._connection, settings)
        self._reader = HostReader(self._connection, self.requests, settings)
        self._appender = Appender(
            self._connection,
            self.requests,
            settings,
            max_record_bytes=capabilities.max_record_bytes,
        )
        self._live_tail = LiveTail(self.requests, settings.absent_poll_seconds)
        self._waiting_for_stream = 0
        self._closing = Closing(self._end_following, self._connection.gone, self._leave_sdk)
        self._clock = asyncio.get_running_loop().time

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self._connection.guard.check(stream)
        await self._appender.append(stream, entries, ttl or self._ttl)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        self._connection.guard.check(stream)
        start = decode_position(after, backend=BACKEND, stream=stream)
        until = self._clock() + max_wait
        tap = self._live_tail.tap(stream, start) if max_wait > 0 else None
        while True:
            if tap is not None:
                records = await tap.read(start, max_records, max_bytes, until)
                if records is not None:
                    return records
            found = await self._reader.read(stream, start, max_records, max_bytes)
            left = until - self._clock()
            if found is None:
                if left <= 0:
                    return []
                await self._wait_for_stream(left)
                continue
            records, offset = found
            if records or left <= 0:
                return records
            tap = self._live_tail.follow(stream, start, offset)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return await self._reader.describe(stream, max(0, last))

    async def delete(self, stream: StreamId) -> None:
        with contextlib.suppress(StreamNotFoundError):
            await self.requests.terminate(stream)
        self._appender.forget(stream)
        self._live_tail.drop(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self._connection.guard.check()
        # Visibility lags behind: a stream created or ended just before must be listed, or must not.
        await self._connection.pause(self._settings.listing_delay_seconds)
        seen: set[StreamId] = set()
        async for stream in self.requests.list_streams(tenant):
            if stream.name.startswith(prefix) and stream not in seen:
                seen.add(stream)
                yield StreamInfo(stream)

    async def aclose(self) -> None:
        self._connection.close()
        await self._closing.run()

    # -- inside --------------------------------------------------------------------------------

    async def _end_following(self) -> None:
        ending = self._live_tail.close(closed_error(BACKEND))
        if ending:
            await asyncio.wait(ending)

    async def _leave_sdk(self) -> None:
        # Threads of the SDK need the interpreter once more after a call has ended. A process that
        # ends at this moment crashes.
        await asyncio.sleep(_SDK_SECONDS)

    async def _wait_for_stream(self, seconds: float) -> None:
        """Wait before checking for a stream again; longer if more readers of this queue wait."""
        self._waiting_for_stream += 1
        try:
            share = self._waiting_for_stream / _CHECKS_PER_SECOND
            interval = max(self._settings.absent_poll_seconds, share)
            await self._connection.pause(min(seconds, interval))
        finally:
            self._waiting_for_stream -= 1
