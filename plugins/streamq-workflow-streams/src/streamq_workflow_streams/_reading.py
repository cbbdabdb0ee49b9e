"""Reads stored records, counts and time to live from hosts, by queries.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from streamq.driver import Stored, StreamId, StreamInfo, StreamNotFoundError, encode_position

from ._errors import BACKEND, HostBusyError, no_answer
from ._protocol import DESCRIBE, READ, Key, pack, unpack
from ._settings import WorkflowStreamsSettings
from .requests._connection import TemporalConnection
from .requests._hosts import HostRequests

_BUSY_SECONDS = 0.02
_SHORTEST_QUERY_SECONDS = 1.0


class HostReader:
    """Queries the hosts of the streams of one queue.

    Args:
        connection: The connection to Temporal.
        requests: The requests to hosts.
        settings: The driver's settings.
    """

    def __init__(
        self,
        connection: TemporalConnection,
        requests: HostRequests,
        settings: WorkflowStreamsSettings,
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._settings = settings
        self._locks: WeakValueDictionary[StreamId, asyncio.Lock] = WeakValueDictionary()
        self._clock = asyncio.get_running_loop().time

    async def read(
        self, stream: StreamId, start: Key, max_records: int, max_bytes: int
    ) -> tuple[list[Stored], int] | None:
        """Return records after a key and the host's offset behind them; ``None`` if no stream."""
        request = pack({"after": start, "max_records": max_records, "max_bytes": max_bytes})
        try:
            answer = await self._query(stream, READ, request)
        except StreamNotFoundError:
            return None
        header, records = unpack(answer)
        return _stored(header, records), header["next"]

    async def describe(self, stream: StreamId, last: int) -> StreamInfo:
        """Return counts, time to live and the newest records of a stream.

        Raises:
            StreamNotFoundError: There is no stream, or it has no record yet.
        """
        header, records = unpack(await self._query(stream, DESCRIBE, pack({"last": last})))
        if not header["records"]:  # its first append was refused, or the host has yet to handle it
            raise StreamNotFoundError(
                f"there is no stream {stream} yet", backend=BACKEND, stream=str(stream)
            )
        return StreamInfo(
            stream,
            tuple(reversed(_stored(header, records))),
            header["records"],
            header["size_bytes"],
            _expires_in(header),
        )

    async def _query(self, stream: StreamId, name: str, argument: bytes) -> bytes:
        """Query the host of a stream.

        Temporal accepts few concurrent queries of one workflow. So the queries of a queue go one
        after the other, and one that is refused because of others is repeated until its deadline.
        The deadline counts from the call, so that waiting for a server that hangs does not add up.
        """
        lock = self._locks.setdefault(stream, asyncio.Lock())
        limit = self._settings.operation_timeout_seconds
        until = self._clock() + limit
        try:
            async with asyncio.timeout_at(until):
                await lock.acquire()
        except TimeoutError as exc:
            raise no_answer(self._settings.address, limit, str(stream)) from exc
        try:
            while True:
                try:
                    left = max(until - self._clock(), _SHORTEST_QUERY_SECONDS)
                    return await self._requests.query(stream, name, argument, min(left, limit))
                except HostBusyError:
                    if self._clock() > until:
                        raise
                await self._connection.pause(_BUSY_SECONDS)
        finally:
            lock.release()


def _stored(header: dict[str, Any], records: list[bytes]) -> list[Stored]:
    return [
        Stored(encode_position((epoch, index)), data)
        for (epoch, index), data in zip(header["keys"], records, strict=True)
    ]


def _expires_in(header: dict[str, Any]) -> timedelta:
    # For information only: a stream has expired when its host has ended, by Temporal's clock.
    return max(timedelta(), datetime.fromisoformat(header["expires_at"]) - datetime.now(UTC))
