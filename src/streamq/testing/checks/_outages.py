"""Checks of outages: servers that are restarted or hang cost time, and no acknowledged data."""

from __future__ import annotations

import asyncio

from streamq import BackendUnavailableError
from streamq.driver import ChunkQueue, Stored, StreamId, StreamNotFoundError
from streamq.testing._harness import BackendHarness, OpenQueue

from ._conditions import needs, requires
from ._deadlines import hanging
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._sentences import FAILED_APPEND, HEALS, NO_DEADLINE
from ._streams import StreamChecks
from ._verdicts import broken, holds, refuses, same, same_records


class OutageChecks(StreamChecks):
    """A server that is restarted or hangs costs time, and no acknowledged data."""

    group = "outages"

    @promises(
        "Capabilities.durable",
        "An entry whose append has returned is still there after the server was killed without "
        "warning right afterwards, and was started again on its data; so are its stream, its "
        "order and its fence.",
        cause="the append returns before the record is on disk: the server writes it later, or "
        "another replica has it only",
    )
    @needs("restart")
    @requires("durable")
    async def test_acknowledged_records_survive_a_restart(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness, open_queue: OpenQueue
    ) -> None:
        """`durable` means that a killed server loses no acknowledged record."""
        data = numbered(20)
        for i, item in enumerate(data):
            await queue.append(stream, entries(item, first=i))
        await backend.restart()
        again = await open_queue()
        await self.until_answered(lambda: again.describe(stream))
        await self.expect(again, stream, data)
        await again.append(stream, entries(b"more", epoch=2))
        await self.expect(again, stream, [*data, b"more"])

    @promises(*HEALS)
    @needs("restart")
    @requires("cross_host")
    async def test_open_queues_heal_after_a_restart(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Servers are restarted every week; workers must not need a restart."""
        await queue.append(stream, entries(b"a"))
        waiting = await self.blocked(self.read(queue, new_stream(), max_wait=4 * self.patience))
        await backend.restart()
        await self.until_answered(lambda: queue.append(stream, entries(b"b", first=1)))
        newest = (await queue.describe(stream, last=1)).last
        same_records(data_of(newest), [b"b"], "describe(last=1) after an append after the restart")
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        holds(
            isinstance(outcome, (BackendUnavailableError, asyncio.CancelledError)),
            "how a read ended that waited during the restart",
            expected="BackendUnavailableError, or it waited until it was cancelled",
            seen=outcome,
            cause="the client's error for a broken connection comes through, or is mapped to "
            "another one",
        )

    @promises(
        "ChunkQueue.describe",
        "The stream does not exist, or has expired.",
    )
    @promises(
        "Capabilities.durable",
        "An entry whose append has returned is still there after the server was killed without "
        "warning right afterwards",
    )
    @needs("restart")
    @requires("writable", "replay", "cross_host")
    async def test_reader_notices_a_restart_only_if_records_were_lost(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """With durable storage a restart is a pause. Without it the reader gets an error, and never
        a shorter text that looks complete."""
        writer = await self.writer(queue, stream)
        for i in range(5):
            await writer.send_chunk(str(i))
        await writer.flush()
        reader = await self.reader(other, stream)
        events = [await anext(reader) for _ in range(5)]
        await backend.restart()
        if queue.capabilities.durable:
            await writer.send_chunk("5")
            await writer.finish()
            events += [event async for event in reader]
            self.expect_same([events], [*map(str, range(6)), "END"])
        else:
            what = "reading on after a restart that has lost the stream"
            with refuses(StreamNotFoundError, what, cause="describe invents a stream"):
                await anext(reader)
        await reader.aclose()
        await writer.aclose()

    @promises(
        "ChunkQueue",
        "No call waits for ever: it ends within a deadline of the driver's own, also if the "
        "server keeps the connection and answers nothing; a read has its ``max_wait`` in "
        "addition.",
    )
    @needs("hang")
    async def test_every_call_to_a_server_that_hangs_ends_in_time(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness, open_queue: OpenQueue
    ) -> None:
        """A frozen server keeps its connections open; only the driver's deadline ends the wait."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        limit = backend.answer_seconds

        async def append() -> None:
            await queue.append(stream, entries(b"b", first=1))

        async def describe() -> None:
            await queue.describe(stream)

        async def listing() -> None:
            _ = [info async for info in queue.streams(stream.tenant)]

        async def opening() -> None:
            await open_queue()

        async def reading() -> None:
            found = list(await self.read(queue, stream, tail, max_wait=0.1))
            same(found, [], "what a read returned from a server that hangs")

        async def reading_before() -> None:
            found = list(await self.read(queue, stream, tail, max_wait=0.5))
            same(found, [], "what a read returned from a server that began to hang")

        blocked = await self.blocked(reading_before())
        async with backend.hang():
            calls = (append, describe, listing, opening, reading, reading_before)
            tasks = [*(self.begin(call()) for call in calls[:-1]), blocked]
            _, late = await asyncio.wait(tasks, timeout=limit)
            hung = [hanging(task, beside=0) for task in tasks if task in late]
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if hung:
            broken(
                f"calls to a server that hangs: {len(hung)} of {len(tasks)} still wait after "
                f"{limit:g} s",
                expected=f"each ends within answer_seconds, {limit:g} s, with "
                "BackendUnavailableError",
                seen="; ".join(seen for seen, _ in hung),
                details=[line for _, lines in hung for line in lines],
                cause=NO_DEADLINE,
            )
        for call, outcome in zip(calls, outcomes, strict=True):
            if call not in (reading, reading_before) or outcome is not None:
                holds(
                    isinstance(outcome, BackendUnavailableError),
                    f"how the call in {call.__name__}() ended, inside hang()",
                    expected="BackendUnavailableError",
                    seen="it returned" if outcome is None else outcome,
                    cause="the hook lets requests pass, if the call returned; otherwise the "
                    "client's time-out is mapped to another error",
                )
        # The queue recovers by itself.
        await self.until_answered(lambda: queue.append(stream, entries(b"b", b"c", first=1)))
        await self.until_answered(lambda: queue.describe(stream))
        # Without replay, reading from the tail has acknowledged the records before it. Without a
        # fence, the append that hung may have been stored as well as its repeat.
        expected = [*([b"a"] if queue.capabilities.replay else []), b"b", b"c"]
        if queue.capabilities.fenced:
            await self.expect(queue, stream, expected)
            return
        found: list[Stored] = []

        async def read() -> None:
            found[:] = await self.read_many(queue, stream, len(expected))

        async def read_on() -> None:
            found.extend(await self.read(queue, stream, found[-1].position, max_wait=0))

        await self.until_answered(read)
        await self.until_answered(read_on)
        same(
            sorted(set(data_of(found))),
            sorted(set(expected)),
            "the records after the server hung, repeats left out",
        )

    @promises(*HEALS)
    @promises(*FAILED_APPEND)
    @needs("hang")
    @requires("writable", "replay")
    async def test_stream_goes_on_after_the_server_hung(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """The frozen server may have stored its last request or not; the text comes whole, once."""
        live = self.follow(other, stream)
        async with self.writer(queue, stream) as writer:
            await writer.send_chunk("a")
            await writer.flush()
            async with backend.hang():
                await writer.send_chunk("b")
                await asyncio.sleep(0.2)
                await writer.send_chunk("c")
            await writer.send_chunk("d")
        self.expect_same([await live, await self.read_all(queue, stream)], [*"abcd", "END"])
