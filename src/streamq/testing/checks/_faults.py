"""Checks of faults: lost, repeated, slow and failed calls cost time, and no data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamq import BackendUnavailableError, StreamqError
from streamq.driver import ChunkQueue, Stored, StreamId, StreamNotFoundError
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._harness import BackendHarness, OpenQueue
from streamq.testing._queue_faults import (
    Block,
    Call,
    Delay,
    Empty,
    Fail,
    Fault,
    LoseAcknowledgement,
    StorePrefix,
    Twice,
)

from ._conditions import needs, requires
from ._records import data_of, entries, new_stream, numbered
from ._streams import StreamChecks

_APPEND_FAULTS = {
    "fails before it stores": Fail(),
    "loses its acknowledgement": LoseAcknowledgement(),
    "stores a prefix": StorePrefix(1),
    "is made twice": Twice(),
    "is slow": Delay(0.02),
}
_READ_FAULTS = {
    "fails": Fail(),
    "loses its answer": LoseAcknowledgement(),
    "finds nothing": Empty(),
    "is slow": Delay(0.02),
}


def _every_other(fault: Fault) -> Callable[[Call], Fault | None]:
    calls = 0

    def choose(_: Call) -> Fault | None:
        nonlocal calls
        calls += 1
        return fault if calls % 2 else None

    return choose


class FaultChecks(StreamChecks):
    """Lost, repeated, slow and failed calls cost time, and no data."""

    group = "faults"

    # -- scripted faults -----------------------------------------------------------------------

    @pytest.mark.parametrize("fault", _APPEND_FAULTS.values(), ids=_APPEND_FAULTS)
    @requires("writable", "replay")
    async def test_stream_is_delivered_once_when_every_other_append(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, fault: Fault
    ) -> None:
        """Requests and answers get lost in networks; the text must not show it."""
        faulty = FaultyQueue(queue)
        faulty.always("append", _every_other(fault))
        live = self.follow(other, stream)
        async with self.writer(faulty, stream) as writer:
            for i in range(10):
                await writer.send_chunk(str(i))
                await writer.send_chunk("x" * 40_000)  # so that an append has several records
                if i % 3 == 0:
                    await writer.flush()
        story = [text for i in range(10) for text in (str(i), "x" * 40_000)]
        self.expect_same([await live, await self.read_all(queue, stream)], [*story, "END"])

    @pytest.mark.parametrize("fault", _READ_FAULTS.values(), ids=_READ_FAULTS)
    @requires("writable", "replay")
    async def test_reader_misses_nothing_when_every_other_read(
        self, queue: ChunkQueue, stream: StreamId, fault: Fault
    ) -> None:
        """A reader that loses its connection continues where it was."""
        faulty = FaultyQueue(queue)
        faulty.always("read", _every_other(fault))
        live = self.follow(faulty, stream)
        async with self.writer(queue, stream) as writer:
            for i in range(10):
                await writer.send_chunk(str(i))
                await writer.flush()
        story = [*map(str, range(10)), "END"]
        self.expect_same([await live, await self.read_all(faulty, stream)], story)

    @requires("writable", "replay")
    async def test_outage_beyond_the_deadline_is_reported_and_later_work_succeeds(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Writers and readers must learn within a stated time that the backend is away."""
        faulty = FaultyQueue(queue)
        brief = self.settings(retry_seconds=0.2)
        writer = await self.writer(faulty, stream, epoch=1, settings=brief)
        async with self.reader(faulty, stream, settings=brief) as reader:
            reading = await self.blocked(reader.read_batch(max_wait=self.patience))
            faulty.take_down()
            await writer.send_chunk("lost")
            async with asyncio.timeout(self.patience):
                with pytest.raises(BackendUnavailableError):
                    await writer.flush()
                with pytest.raises(BackendUnavailableError):
                    await reading
            await writer.aclose()
            faulty.bring_up()
            async with self.writer(faulty, stream, epoch=2) as second:
                await second.send_chunk("found")
            assert [event async for event in reader] == await self.read_all(queue, stream)

    @requires("writable", "replay")
    async def test_call_that_a_driver_never_answers_ends_at_the_deadline(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """If a driver never answers, streamq's own deadline ends the wait."""
        faulty = FaultyQueue(queue)
        # Long enough for the calls that open the writer, on a busy machine as well.
        brief = self.settings(retry_seconds=0.1, operation_seconds=0.5)
        writer = await self.writer(faulty, stream, settings=brief)
        reader = await self.reader(faulty, stream, settings=brief)
        faulty.always("append", Block())
        faulty.always("read", Block())
        async with asyncio.timeout(self.patience):
            await writer.send_chunk("a")
            with pytest.raises(BackendUnavailableError):
                await writer.flush()
            with pytest.raises(BackendUnavailableError):
                await reader.read_batch(max_wait=0.1)
        await writer.aclose()
        await reader.aclose()

    # -- connections ---------------------------------------------------------------------------

    @needs("break_connections")
    async def test_connection_that_dropped_while_idle_is_replaced(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Firewalls cut idle connections: the first call afterwards may fail, the next must not."""
        await queue.append(stream, entries(b"a"))
        await backend.break_connections()
        await self.until_answered(lambda: queue.append(stream, entries(b"b", first=1)))
        await backend.break_connections()
        await self.until_answered(lambda: queue.describe(stream))
        await backend.break_connections()
        await self.until_answered(lambda: self.read(queue, stream, max_wait=0))
        await self.expect(queue, stream, [b"a", b"b"])

    @needs("break_connections")
    async def test_read_that_is_blocked_when_its_connection_drops_fails_or_continues(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness, open_queue: OpenQueue
    ) -> None:
        """A reader that waits on a dead connection would wait for ever, without an error."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        waiting = await self.blocked(self.read(queue, stream, tail, max_wait=4 * self.patience))
        await backend.break_connections()
        await (await open_queue()).append(stream, entries(b"b", first=1))
        found: list[bytes] = []
        async with asyncio.timeout(self.patience):
            try:
                found = data_of(await waiting)
            except BackendUnavailableError:
                # Without replay, the lost answer has hidden the record for a while.
                wait = 0.0 if queue.capabilities.replay else self.patience
                await self.until_answered(lambda: queue.describe(stream))
                found = data_of(await self.read(queue, stream, tail, max_wait=wait))
        assert found == [b"b"]

    @needs("break_connections")
    @requires("writable", "replay")
    async def test_stream_is_delivered_once_through_dropped_connections(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Connections drop in the middle of appends and reads: nothing lost, nothing twice."""
        live = self.follow(other, stream)
        async with self.writer(queue, stream) as writer:
            for i in range(100):
                await writer.send_chunk(str(i))
                if i % 10 == 5:
                    await backend.break_connections()
                if i % 4 == 0:
                    await asyncio.sleep(0.002)
        story = [*map(str, range(100)), "END"]
        self.expect_same([await live, await self.read_all(queue, stream)], story)

    @needs("slow")
    @requires("writable", "replay")
    async def test_slow_backend_is_neither_an_error_nor_a_cause_of_disorder(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Another continent is not an outage."""
        async with backend.slow(0.1):
            live = self.follow(other, stream)
            async with self.writer(queue, stream) as writer:
                for i in range(30):
                    await writer.send_chunk(str(i))
                    await asyncio.sleep(0.005)
            self.expect_same([await live], [*map(str, range(30)), "END"])

    # -- the server ----------------------------------------------------------------------------

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
        assert data_of(newest) == [b"b"]
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(outcome, (BackendUnavailableError, asyncio.CancelledError))

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
            with pytest.raises(StreamNotFoundError):
                await anext(reader)
        await reader.aclose()
        await writer.aclose()

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
            assert list(await self.read(queue, stream, tail, max_wait=0.1)) == []

        async def reading_before() -> None:
            assert list(await self.read(queue, stream, tail, max_wait=0.5)) == []

        blocked = await self.blocked(reading_before())
        async with backend.hang():
            calls = (append, describe, listing, opening, reading, reading_before)
            tasks = [*(self.begin(call()) for call in calls[:-1]), blocked]
            _, late = await asyncio.wait(tasks, timeout=limit)
            names = [call.__name__ for call, task in zip(calls, tasks, strict=True) if task in late]
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not names, f"still waiting after {limit:g} s: {', '.join(names)}"
        for call, outcome in zip(calls, outcomes, strict=True):
            if call not in (reading, reading_before) or outcome is not None:
                assert isinstance(outcome, BackendUnavailableError), (
                    f"{call.__name__} gave {outcome!r} inside hang(): a BackendUnavailableError is "
                    "expected; an answer means that the hook lets requests pass"
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
        assert set(expected) == set(data_of(found))

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

    async def test_errors_of_the_backend_are_errors_of_streamq(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Applications catch one base class; another exception would end their process."""
        for call in (
            lambda: queue.describe(stream),
            lambda: self.read(queue, stream, "not a position", max_wait=0),
        ):
            with pytest.raises(StreamqError) as caught:
                await call()
            assert caught.value.backend == queue.backend
            assert caught.value.stream == str(stream)
