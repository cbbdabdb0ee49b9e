"""Overload: calls that were given up must not take the time of those that come later."""

from __future__ import annotations

import asyncio

from postgres_servers import OpenAt, StartServer
from streamq import BackendUnavailableError, StreamId
from streamq.driver import ChunkQueue, Entry
from streamq.testing import FaultProxy

_PATIENCE_SECONDS = 0.5
_CALLERS = 24


async def described(queue: ChunkQueue, stream: StreamId) -> int:
    """Ask until the server answers, as a client that comes back; return how often."""
    tries = 0
    while True:
        tries += 1
        try:
            await queue.describe(stream)
        except BackendUnavailableError:
            continue
        return tries


async def test_calls_given_up_during_a_stall_are_not_made_after_it(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """A gateway whose clients come back would answer each of them too late, for ever."""
    server = start_server()
    async with FaultProxy("127.0.0.1", server.port) as link:
        queue = await open_at(
            f"postgresql://postgres@{link.address}/postgres",
            operation_timeout_seconds=_PATIENCE_SECONDS,
            lookup_seconds=60,
        )
        await queue.append(stream, [Entry(1, 0, b"x")])
        link.hold()
        async with asyncio.TaskGroup() as tasks:
            callers = [tasks.create_task(described(queue, stream)) for _ in range(_CALLERS)]
            await asyncio.sleep(4 * _PATIENCE_SECONDS)
            # So slow that all callers take longer than one of them waits.
            link.delay_seconds = 0.025
            link.release()
            async with asyncio.timeout(60):
                await asyncio.wait(callers)
        assert min(each.result() for each in callers) > 1
