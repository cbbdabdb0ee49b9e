"""Clients that are behind are served in turn; the loop delivers live events in between."""

from __future__ import annotations

import asyncio
from collections import Counter

from streamq import Settings, StreamId, open_writer
from streamq.driver import ChunkQueue
from streamq.gateway import Gateway, GatewayOptions
from streamq.gateway._clients import Client
from streamq.gateway._places import EventPlace

CLIENTS = 12


class Rounds:
    """Counts the rounds of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._count()

    def _count(self) -> None:
        self.number += 1
        self._loop.call_soon(self._count)


async def write(queue: ChunkQueue, name: str, chunks: int) -> None:
    """Write a stream that has ended, of events of 1,000 bytes and more."""
    async with open_writer(name, queue=queue) as writer:
        for _ in range(chunks):
            await writer.send_chunk("x" * 1_000)


async def most_in_one_round(gateway: Gateway, name: str, chunks: int) -> int:
    """Have several clients read a stream; return how many got data in one round of the loop."""
    rounds = Rounds()
    served: Counter[int] = Counter()

    async def read(client: Client) -> None:
        stream = StreamId(gateway.settings.tenant, name)
        follower = await gateway.follow(stream, EventPlace(0), client=client)
        assert follower is not None
        is_first = True  # joining is paced by itself
        while not follower.is_ended:
            if await follower.read(10.0) and not is_first:
                served[rounds.number] += 1
            is_first = False
        assert follower.offset == chunks + 1
        gateway.leave(follower)

    async with asyncio.timeout(60):
        await asyncio.gather(*(read(Client(f"client-{i % 3}")) for i in range(CLIENTS)))
    assert sum(served.values()) >= CLIENTS
    return max(served.values())


async def test_pages_are_sent_to_one_client_after_the_other(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Clients that have waited for the same page do not get it in the same round of the loop."""
    await write(queue, "s", 400)
    gateway = Gateway(queue, settings, GatewayOptions())
    async with gateway.running():
        assert await most_in_one_round(gateway, "s", 400) == 1


async def test_what_is_in_memory_is_sent_to_one_client_after_the_other(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Reading again what the ring still has takes turns as well."""
    gateway = Gateway(queue, settings, GatewayOptions())
    async with gateway.running():
        first = await gateway.follow(StreamId("default", "s"), EventPlace(0), may_be_missing=True)
        assert first is not None
        await first.read(0.0)
        await write(queue, "s", 400)
        async with asyncio.timeout(60):
            while not first.is_ended:
                await first.read(10.0)
        assert await most_in_one_round(gateway, "s", 400) == 1
        assert gateway.statistics().page_reads == 0
        gateway.leave(first)
