"""Appends entries to a stream: sends updates to its host, and starts the host if needed.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import timedelta

from temporalio.api.common.v1 import Payload
from temporalio.api.update.v1 import Outcome

from streamq.driver import BackendError, Entry, StreamId, StreamNotFoundError, batches

from ._errors import BACKEND, HostBusyError, refused_append
from ._protocol import APPEND, RECORD_OVERHEAD_BYTES, binary_payload, pack
from ._settings import WorkflowStreamsSettings
from .requests._connection import TemporalConnection
from .requests._hosts import HostRequests

_MOST_REMEMBERED = 4_096
_REQUEST_BYTES = 1_572_864  # Temporal takes 2 MiB in one update
_UPDATES_AT_ONCE = 32
_BUSY_SECONDS = 0.02


class Appender:
    """Appends to the streams of one queue.

    Args:
        connection: The connection to Temporal.
        requests: The requests to hosts.
        settings: The driver's settings.
        max_record_bytes: Largest record.
    """

    def __init__(
        self,
        connection: TemporalConnection,
        requests: HostRequests,
        settings: WorkflowStreamsSettings,
        *,
        max_record_bytes: int,
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._settings = settings
        self._max_record_bytes = max_record_bytes
        self._started: OrderedDict[StreamId, None] = OrderedDict()
        # Without this limit, a burst of new streams would reach its deadlines while their hosts
        # wait for a worker.
        self._turns = asyncio.Semaphore(_UPDATES_AT_ONCE)
        self._clock = asyncio.get_running_loop().time

    async def append(self, stream: StreamId, entries: Sequence[Entry], ttl: timedelta) -> None:
        """Store entries, by the rules of :meth:`streamq.driver.ChunkQueue.append`."""
        for batch in self._batches(stream, entries):
            await self._append(stream, batch, ttl)

    def forget(self, stream: StreamId) -> None:
        """Forget that a stream's host was started, because the stream has been deleted."""
        self._started.pop(stream, None)

    def _batches(self, stream: StreamId, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        """Divide entries so that each batch fits into one update, before any of them is sent."""
        largest = max((len(entry.data) for entry in entries), default=0)
        if largest > self._max_record_bytes:
            raise BackendError(
                f"a record of {largest} bytes is more than a workflow takes, which is "
                f"{self._max_record_bytes}",
                backend=BACKEND,
                stream=str(stream),
            )
        return batches(entries, max_bytes=_REQUEST_BYTES, overhead_bytes=RECORD_OVERHEAD_BYTES)

    async def _append(self, stream: StreamId, entries: list[Entry], ttl: timedelta) -> None:
        header = {
            "tenant": stream.tenant,
            "name": stream.name,
            "ttl": ttl.total_seconds(),
            "max_bytes": self._settings.max_stream_bytes,
            "keys": [(entry.epoch, entry.index) for entry in entries],
        }
        request = binary_payload(pack(header, [entry.data for entry in entries]))
        outcome = await self._send(stream, request)
        self._started[stream] = None
        self._started.move_to_end(stream)
        if len(self._started) > _MOST_REMEMBERED:
            self._started.popitem(last=False)
        if outcome.HasField("failure"):
            raise refused_append(outcome.failure, stream)

    async def _send(self, stream: StreamId, request: Payload) -> Outcome:
        starts = stream not in self._started
        until = self._clock() + self._settings.operation_timeout_seconds
        while True:
            try:
                async with self._turns:
                    return await self._requests.send_update(stream, APPEND, request, starts=starts)
            except StreamNotFoundError:
                # The host has ended, by its time to live or by a deletion: a new stream begins.
                starts = True
            except HostBusyError:
                # The host is continuing as new, or others send it updates as well.
                if self._clock() > until:
                    raise
                await self._connection.pause(_BUSY_SECONDS)
