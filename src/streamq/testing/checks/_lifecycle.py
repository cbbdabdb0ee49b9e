"""Checks of closing and cancelling at any moment: nothing is lost and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Awaitable, Callable

import pytest

from streamq.driver import (
    START,
    ChunkQueue,
    ClosedError,
    ForeignLoopError,
    QueueOptions,
    StreamId,
    StreamInfo,
    StreamqError,
)
from streamq.testing._cancellation import cancel_at_every_await
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._harness import LONG_TTL, BackendHarness, OpenQueue
from streamq.testing._queue_faults import Block

from ._conditions import requires
from ._records import data_of, entries, new_stream, numbered
from ._streams import StreamChecks, delivered

_FILES = "/proc/self/fd"


def _tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks()


def _open_files() -> int:
    return len(os.listdir(_FILES)) if os.path.isdir(_FILES) else 0


class LifecycleChecks(StreamChecks):
    """Closing and cancelling lose nothing and leave nothing behind."""

    group = "lifecycle"

    async def test_aclose_is_idempotent(self, queue: ChunkQueue) -> None:
        """Nested cleanups close twice."""
        await queue.aclose()
        await asyncio.gather(queue.aclose(), queue.aclose())

    async def test_aclose_ends_blocked_reads_at_once(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A shutdown must not take as long as the longest poll."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        reads = [
            await self.blocked(self.read(queue, stream, tail)),
            await self.blocked(self.read(queue, new_stream())),
        ]
        async with asyncio.timeout(2):
            await queue.aclose()
            results = await asyncio.gather(*reads, return_exceptions=True)
        assert [ClosedError, ClosedError] == [type(result) for result in results]

    async def test_another_event_loop_is_refused_at_once(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A read in a loop where nothing wakes it, or a connection of another loop, hangs."""
        await queue.append(stream, entries(b"a"))

        async def use_everything() -> list[BaseException | None]:
            async def listed() -> list[StreamInfo]:
                return [info async for info in queue.streams(stream.tenant)]

            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: queue.append(stream, entries(b"b", first=1)),
                lambda: self.read(queue, stream),
                lambda: queue.describe(stream),
                lambda: queue.delete(stream),
                listed,
                queue.aclose,
            ]
            errors: list[BaseException | None] = []
            for call in calls:
                try:
                    async with asyncio.timeout(5):
                        await call()
                except Exception as exc:  # noqa: BLE001 - compared below
                    errors.append(exc)
                else:
                    errors.append(None)
            return errors

        errors = await asyncio.to_thread(asyncio.run, use_everything())
        assert [ForeignLoopError] * len(errors) == [type(error) for error in errors], errors
        assert data_of(await self.read(queue, stream)) == [b"a"]

    async def test_closed_queue_refuses_everything(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Using a closed queue is a bug in the caller, and must not look like a broken network."""
        await queue.append(stream, entries(b"a"))
        await queue.aclose()
        with pytest.raises(ClosedError):
            await queue.append(stream, entries(b"b", first=1))
        with pytest.raises(ClosedError):
            await self.read(queue, stream, max_wait=0)
        with pytest.raises(ClosedError):
            await queue.describe(stream)
        with pytest.raises(ClosedError):
            await queue.delete(stream)
        with pytest.raises(ClosedError):
            _ = [info async for info in queue.streams(stream.tenant)]

    async def test_closing_one_queue_leaves_others_alone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Gateway and worker may share a process; closing one must not stop the other."""
        other = await open_queue()
        waiting = await self.blocked(self.read(other, stream))
        await queue.aclose()
        await other.append(stream, entries(b"a"))
        assert data_of(await waiting) == [b"a"]

    @requires("fenced")
    async def test_cancelled_append_can_be_repeated(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A worker that shuts down cancels appends at any point; repeating them must be safe."""
        dice = random.Random(20240607)
        data = numbered(240)
        for first in range(0, len(data), 4):
            batch = entries(*data[first : first + 4], first=first)
            append = self.begin(queue.append(stream, batch))
            if dice.random() < 0.5:
                for _ in range(dice.randrange(8)):
                    await asyncio.sleep(0)
            else:
                await asyncio.wait({append}, timeout=dice.random() * 0.003)
            append.cancel()
            await asyncio.gather(append, return_exceptions=True)
            await queue.append(stream, batch)
        await self.expect(queue, stream, data)

    @requires("replay")
    async def test_cancelled_read_loses_nothing(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Browsers disconnect in the middle of a poll all the time."""
        position = START
        for i in range(10):
            waiting = self.begin(self.read(queue, stream, position))
            await asyncio.wait({waiting}, timeout=0.01)
            if i % 2:
                waiting.cancel()
            append = self.begin(queue.append(stream, entries(b"%d" % i, first=i)))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(append, waiting, return_exceptions=True)
            batch = await self.read(queue, stream, position)
            assert [b"%d" % i] == data_of(batch)
            position = batch[-1].position

    async def test_aclose_ends_appends_that_are_under_way(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """On a shutdown in the middle of a burst, each append ends at once with its outcome."""
        appends = [self.begin(queue.append(stream, entries(b"%d" % i, first=i))) for i in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(self.patience):
            await queue.aclose()
            results = await asyncio.gather(*appends, return_exceptions=True)
        for result in results:
            assert result is None or isinstance(result, StreamqError)
        acknowledged = [b"%d" % i for i, result in enumerate(results) if result is None]
        if queue.capabilities.replay and queue.capabilities.cross_process:
            found = data_of(await self.read(await open_queue(), stream, max_wait=0))
            assert [data for data in acknowledged if data not in found] == []

    @requires("fenced")
    async def test_append_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Wherever a worker is stopped, repeating the append stores only the missing records."""
        data: list[bytes] = []

        async def append() -> None:
            first = len(data)
            await queue.append(stream, entries(b"%d" % first, b"%d+" % first, first=first))

        async def repeat() -> None:
            await append()
            data.extend((b"%d" % len(data), b"%d+" % len(data)))

        await cancel_at_every_await(append, repeat)
        await self.expect(queue, stream, data)

    @requires("replay", "ordered")
    async def test_read_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId, other: ChunkQueue
    ) -> None:
        """Wherever a poll is stopped, the next one finds everything the first would have found."""
        data = numbered(6)
        await queue.append(stream, entries(*data))
        places = [START, *(found.position for found in await self.read_many(queue, stream, 6))]
        for max_wait in (0.0, 0.05):
            for place in (0, 3, 6):
                after, rest = places[place], data[place:]

                async def read(after: str = after, max_wait: float = max_wait) -> None:
                    await self.read(other, stream, after, max_wait=max_wait)

                async def check(after: str = after, rest: list[bytes] = rest) -> None:
                    assert rest == data_of(await self.read(other, stream, after, max_wait=0))

                await cancel_at_every_await(read, check)

    async def test_describing_deleting_and_listing_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A cancelled request must not break the connection for the next one."""

        async def describe() -> None:
            await queue.describe(stream, last=5)

        async def delete() -> None:
            await queue.delete(new_stream())

        async def listing() -> None:
            assert [info.stream async for info in queue.streams(stream.tenant)] == [stream]

        async def works() -> None:
            last = data_of((await queue.describe(stream, last=5)).last)
            assert last == ([b"a"] if queue.capabilities.replay else [])

        await queue.append(stream, entries(b"a"))
        for call in (describe, delete, listing):
            await cancel_at_every_await(call, works)

    async def test_opening_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """A deadline at the start of a worker must not leave half a connection behind."""
        options, settings = QueueOptions(ttl=LONG_TTL), backend.settings()
        tasks, threads = _tasks(), threading.active_count()

        async def open_and_close() -> None:
            await (await backend.driver.open(options, settings)).aclose()

        async def nothing_is_left() -> None:
            async def is_gone() -> bool:
                return _tasks() <= tasks and threading.active_count() <= threads

            await self.eventually(is_gone, "no task and no thread of a cancelled open is left")

        # The thread pool that Python keeps for blocking calls does not belong to the driver.
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40)))
        threads = threading.active_count()
        await cancel_at_every_await(open_and_close, nothing_is_left)

    async def test_aclose_can_be_cancelled_at_any_await_and_finished_later(
        self, open_queue: OpenQueue, stream: StreamId
    ) -> None:
        """A second Ctrl-C must not make it impossible to finish closing."""
        used: list[ChunkQueue] = []

        async def close() -> None:
            used.append(await open_queue())
            await used[-1].append(new_stream(), entries(b"a"))
            await used[-1].aclose()

        async def finish() -> None:
            async with asyncio.timeout(self.patience):
                if used:
                    await used[-1].aclose()

        await cancel_at_every_await(close, finish)

    async def test_nothing_is_left_after_aclose(
        self, backend: BackendHarness, queue: ChunkQueue
    ) -> None:
        """A gateway that opens and closes queues for weeks must not run out of anything."""
        options = QueueOptions(ttl=LONG_TTL)

        async def use() -> None:
            used = await backend.driver.open(options, backend.settings())
            stream = new_stream()
            waiting = await self.blocked(self.read(used, stream))
            await used.append(stream, entries(b"a"))
            await waiting
            waiting = await self.blocked(self.read(used, new_stream()))
            await used.aclose()
            await asyncio.gather(waiting, return_exceptions=True)

        await use()  # objects that are created once and kept are created here
        # Without this, garbage of earlier tests would be freed later and hide a leak.
        gc.collect()
        tasks, threads, files = _tasks(), threading.active_count(), _open_files()
        for _ in range(3):
            await use()

        async def is_released() -> bool:
            return (
                _tasks() <= tasks and threading.active_count() <= threads and _open_files() <= files
            )

        await self.eventually(is_released, "tasks, threads, files of closed queues are released")

    @requires("writable", "replay")
    async def test_writer_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """An activity may be stopped at any point; its chunks come once and in order."""
        sent = 0
        async with self.writer(queue, stream) as writer:

            async def flush() -> None:
                await writer.flush()

            async def send_more() -> None:
                nonlocal sent
                await writer.send_chunk(str(sent))
                sent += 1

            await send_more()
            await cancel_at_every_await(flush, send_more)
            await cancel_at_every_await(writer.finish, writer.finish)
        assert delivered(await self.read_all(queue, stream)) == [*map(str, range(sent)), "END"]

    @requires("writable", "replay")
    async def test_opening_a_writer_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """An attempt that is stopped during its takeover must look like one that wrote nothing."""
        epoch = 0

        async def take_over() -> None:
            nonlocal epoch
            epoch += 1
            await (await self.writer(queue, stream, epoch=epoch)).aclose()

        async def nothing_is_left() -> None:
            assert not [task for task in _tasks() if task.get_name().startswith("streamq-writer")]

        await cancel_at_every_await(take_over, nothing_is_left)
        async with self.writer(queue, stream, epoch=epoch + 1) as writer:
            await writer.send_chunk("a")
        assert delivered(await self.read_all(queue, stream)) == ["a", "END"]

    @requires("writable", "replay")
    async def test_reader_can_be_cancelled_at_any_await(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Subscribers put a deadline around every event; nothing may be lost or repeated."""
        events = []
        sent = 0
        async with self.writer(queue, stream) as writer:
            reader = await self.reader(other, stream)

            async def next_event() -> None:
                events.append(await anext(reader))

            async def send_more() -> None:
                nonlocal sent
                await writer.send_chunk(str(sent))
                await writer.flush()
                sent += 1

            await send_more()
            await cancel_at_every_await(next_event, send_more)
            await writer.finish()
            events += [event async for event in reader]
            await reader.aclose()
        assert delivered(events) == [*map(str, range(sent)), "END"]

    @requires("writable", "replay")
    async def test_writer_that_waits_for_room_can_be_cancelled(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A chunk whose `send_chunk` was cancelled is not in the stream, and blocks no other."""
        faulty, block = FaultyQueue(queue), Block()
        async with self.writer(faulty, stream, settings=self.settings(buffer_bytes=50)) as writer:
            faulty.always("append", block)
            await writer.send_chunk("a" * 60)
            await block.reached()
            waiting = await self.blocked(writer.send_chunk("never"))
            behind = await self.blocked(writer.send_chunk("b"))
            waiting.cancel()
            block.release()
            await behind
            assert (await asyncio.gather(waiting, return_exceptions=True))[0] is not None
        assert delivered(await self.read_all(queue, stream)) == ["a" * 60, "b", "END"]
