"""Checks of closing and cancelling at any moment: nothing is lost and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable

from streamq.driver import (
    ChunkQueue,
    ClosedError,
    ForeignLoopError,
    QueueOptions,
    StreamId,
    StreamInfo,
    StreamqError,
)
from streamq.testing._cancellation import cancel_at_every_await
from streamq.testing._harness import LONG_TTL, BackendHarness, OpenQueue

from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream
from ._sentences import FAILED_OPEN, RELEASED
from ._streams import StreamChecks
from ._verdicts import holds, refuses, same, same_records

_FILES = "/proc/self/fd"


def _tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks()


def _open_files() -> int:
    return len(os.listdir(_FILES)) if os.path.isdir(_FILES) else 0


_LEFT = (
    "a task that was started is not awaited after its cancellation, or a connection that was being "
    "made when the call was cancelled has no owner"
)


class LifecycleChecks(StreamChecks):
    """Closing and cancelling lose nothing and leave nothing behind."""

    group = "lifecycle"

    @promises(
        "ChunkQueue.aclose",
        "Release everything. Idempotent",
        cause="the second close raises, since what it closes is gone",
    )
    @promises(
        "ChunkQueue.aclose",
        "A second call, concurrent or later, waits for that.",
    )
    async def test_aclose_is_idempotent(self, queue: ChunkQueue) -> None:
        """Nested cleanups close twice."""
        await queue.aclose()
        await asyncio.gather(queue.aclose(), queue.aclose())

    @promises(
        "ChunkQueue.aclose",
        "a blocked :meth:`read` raises ``ClosedError`` at once",
    )
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
        async with within(2, "aclose() while two reads wait"):
            await queue.aclose()
            results = await asyncio.gather(*reads, return_exceptions=True)
        same(
            [type(result) for result in results],
            [ClosedError, ClosedError],
            "how two reads that waited ended, when their queue was closed",
            cause="closing does not wake the reads that wait, or the client's error for a closed "
            "connection comes through",
        )

    @promises(
        "ChunkQueue",
        "Elsewhere every call raises :class:`~streamq.ForeignLoopError` at once; this class sees "
        "to that for every driver.",
    )
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
                    async with within(5, "a call in another event loop"):
                        await call()
                except Exception as exc:  # noqa: BLE001 - compared below
                    errors.append(exc)
                else:
                    errors.append(None)
            return errors

        errors = await asyncio.to_thread(asyncio.run, use_everything())
        same(
            [type(error) for error in errors],
            [ForeignLoopError] * len(errors),
            "how append, read, describe, delete, streams and aclose ended in another event loop",
            cause="the class sets __init_subclass__ or __new__ without calling that of ChunkQueue",
        )
        found = data_of(await self.read(queue, stream))
        same_records(found, [b"a"], "the records after calls in another event loop were refused")

    @promises(
        "ChunkQueue.aclose",
        "Every later call raises ``ClosedError``.",
    )
    async def test_closed_queue_refuses_everything(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Using a closed queue is a bug in the caller, and must not look like a broken network."""
        await queue.append(stream, entries(b"a"))
        await queue.aclose()
        cause = "the call does not look whether the queue is closed, and makes a request"
        with refuses(ClosedError, "append, after aclose()", cause=cause):
            await queue.append(stream, entries(b"b", first=1))
        with refuses(ClosedError, "read, after aclose()", cause=cause):
            await self.read(queue, stream, max_wait=0)
        with refuses(ClosedError, "describe, after aclose()", cause=cause):
            await queue.describe(stream)
        with refuses(ClosedError, "delete, after aclose()", cause=cause):
            await queue.delete(stream)
        with refuses(ClosedError, "streams, after aclose()", cause=cause):
            _ = [info async for info in queue.streams(stream.tenant)]

    @promises(
        "ChunkQueue.aclose",
        "Every later call raises ``ClosedError``.",
    )
    @promises(
        "ChunkQueue",
        "Each error has the driver's name as ``backend`` and, if the call has one, the stream as "
        "``stream``.",
    )
    async def test_calls_that_are_made_while_it_closes_are_refused(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A task that goes on during a shutdown must neither hang nor store anything."""
        await queue.append(stream, entries(b"a"))
        closing = self.begin(queue.aclose())
        await asyncio.sleep(0)
        calls: list[Awaitable[object]] = [
            queue.append(stream, entries(b"b", first=1)),
            self.read(queue, stream),
            self.read(queue, stream, max_wait=0),
            queue.describe(stream),
            queue.delete(stream),
        ]
        async with within(self.patience, "calls of a queue that is being closed"):
            results = await asyncio.gather(*calls, return_exceptions=True)
            await closing
        same(
            [
                (type(each), getattr(each, "backend", ""), getattr(each, "stream", ""))
                for each in results
            ],
            [(ClosedError, queue.backend, str(stream))] * len(calls),
            "how append, read, describe and delete ended while the queue was being closed, and "
            "backend and stream of their errors",
            cause="the queue looks closed only when aclose() has ended, and calls are lost with "
            "the connection: close() of Guard comes before the first await",
        )

    @promises(
        "ChunkQueue",
        "Closing one queue leaves the others alone.",
        cause="a client, pool or thread that queues share is closed with the first of them",
    )
    async def test_closing_one_queue_leaves_others_alone(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """Gateway and worker may share a process; closing one must not stop the other."""
        other = await open_queue()
        waiting = await self.blocked(self.read(other, stream))
        await queue.aclose()
        await other.append(stream, entries(b"a"))
        found = data_of(await waiting)
        same_records(found, [b"a"], "what a read returned after another queue was closed")

    @promises(
        "ChunkQueue.aclose",
        "An append that is under way ends at once, with its outcome or an error.",
    )
    async def test_aclose_ends_appends_that_are_under_way(
        self, queue: ChunkQueue, stream: StreamId, open_queue: OpenQueue
    ) -> None:
        """On a shutdown in the middle of a burst, each append ends at once with its outcome."""
        appends = [self.begin(queue.append(stream, entries(b"%d" % i, first=i))) for i in range(50)]
        await asyncio.sleep(0)
        async with within(self.patience, "aclose() while fifty appends are under way"):
            await queue.aclose()
            results = await asyncio.gather(*appends, return_exceptions=True)
        for result in results:
            holds(
                result is None or isinstance(result, StreamqError),
                "how an append ended that was under way when its queue was closed",
                expected="it returned, or raised an error of streamq",
                seen=result,
                cause="the client cancels its calls, or its error for a closed connection comes "
                "through: Guard of streamq.driver ends them with ClosedError",
            )
        acknowledged = [b"%d" % i for i, result in enumerate(results) if result is None]
        if queue.capabilities.replay and queue.capabilities.cross_process:
            found = data_of(await self.read(await open_queue(), stream, max_wait=0))
            lost = [data for data in acknowledged if data not in found]
            what = "records whose append returned while the queue was closed, and that are missing"
            same(lost, [], what, cause="the append returns before the backend has answered")

    @promises(*FAILED_OPEN)
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

            what = "no task and no thread of a cancelled open is left"
            await self.eventually(is_gone, what, cause=_LEFT)

        # The thread pool that Python keeps for blocking calls does not belong to the driver.
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40)))
        threads = threading.active_count()
        await cancel_at_every_await(open_and_close, nothing_is_left)

    @promises(
        "ChunkQueue.aclose",
        "everything is released all the same, at the latest soon after the call has been left, "
        "however often it is cancelled, also at every await",
    )
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
            async with within(self.patience, "a second aclose(), after one that was cancelled"):
                if used:
                    await used[-1].aclose()

        await cancel_at_every_await(close, finish)

    @promises(*RELEASED)
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

        what = "tasks, threads and files of closed queues are released"
        await self.eventually(is_released, what, cause=_LEFT)
