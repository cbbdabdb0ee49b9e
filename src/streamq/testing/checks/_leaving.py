"""Checks of leaving: closing and opening release everything, however often they are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import sys
import threading
import warnings
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import ClassVar

import pytest

from streamq.driver import START, ChunkQueue, ClosedError, QueueOptions, StreamId
from streamq.testing._cancellation import cancel_at_every_await, count_awaits, interrupt
from streamq.testing._harness import LONG_TTL, BackendHarness
from streamq.testing._shown import shown

from ._promises import promises
from ._records import entries, new_stream
from ._sentences import FAILED_OPEN, RELEASED
from ._streams import StreamChecks
from ._verdicts import broken, refuses

_FILES = "/proc/self/fd"
_SEED = 20_261_130
_AT_ONCE = 10
_WAITING_SECONDS = 0.1
_PLACES = (1, 2, 3, 5, 8, 13)  # awaits at which calls are cancelled


class _Held:
    """The tasks, threads and descriptors of this process at one moment; connections are such."""

    def __init__(self) -> None:
        # Without this, garbage of earlier checks would be freed later and hide a leak.
        gc.collect()
        self._tasks = asyncio.all_tasks()
        self._threads = set(threading.enumerate())
        self._files = len(_open_files())

    def left(self) -> list[str]:
        """Return what the process holds now in addition."""
        threads = set(threading.enumerate()) - self._threads
        left = [repr(each) for each in (*(asyncio.all_tasks() - self._tasks), *threads)]
        files = _open_files()
        if len(files) > self._files:
            left.append(f"{len(files) - self._files} descriptors, among these: {shown(files)}")
        return left


def _open_files() -> list[str]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_FILES):
            with contextlib.suppress(OSError):  # the descriptor that lists the directory
                found.append(os.readlink(f"{_FILES}/{name}"))
    return found


async def _list(queue: ChunkQueue) -> None:
    infos = queue.streams("t")
    try:
        async for _ in infos:
            break
    finally:
        if isinstance(infos, AsyncGenerator):
            await infos.aclose()


class LeavingChecks(StreamChecks):
    """Closing releases everything, wherever and however often it is cancelled."""

    group = "leaving"

    subscribers: ClassVar[int] = 40
    """How many subscribers come and go in the check of them."""

    @promises(
        "ChunkQueue.aclose",
        "everything is released all the same, at the latest soon after the call has been left, "
        "however often it is cancelled, also at every await",
    )
    @promises(*RELEASED)
    async def test_aclose_releases_everything_wherever_it_is_cancelled(
        self, backend: BackendHarness
    ) -> None:
        """A server that cancels the request of a client that is gone closes nothing later."""
        held = await self._settled(backend)
        used = await self._used(backend)

        async def close() -> None:
            await used.aclose()

        async def is_released() -> None:
            nonlocal used
            await self._expect_nothing_besides(held)
            used = await self._used(backend)

        await cancel_at_every_await(close, is_released)
        await cancel_at_every_await(close, is_released, insists=True)
        await used.aclose()

    @promises(*FAILED_OPEN)
    async def test_opening_leaves_nothing_if_it_is_cancelled_again_and_again(
        self, backend: BackendHarness
    ) -> None:
        """A cancel scope of anyio cancels at every await, also those of the cleanup."""
        options, settings = QueueOptions(ttl=LONG_TTL), backend.settings()
        held = await self._settled(backend)

        async def open_and_close() -> None:
            await (await backend.driver.open(options, settings)).aclose()

        async def nothing_is_left() -> None:
            await self._expect_nothing_besides(held)

        await cancel_at_every_await(open_and_close, nothing_is_left, insists=True)

    @promises(*RELEASED)
    async def test_calls_that_are_cancelled_leave_nothing_once_the_queue_is_closed(
        self, backend: BackendHarness
    ) -> None:
        """The first call of a queue may connect; a client that goes away then leaves no half of
        it."""
        held = await self._settled(backend)
        options, settings = QueueOptions(ttl=LONG_TTL), backend.settings()
        for places in _PLACES:
            used = await backend.driver.open(options, settings)
            stream = new_stream()
            calls = [used.append(stream, entries(b"a")), self.read(used, stream), _list(used)]
            await asyncio.gather(
                *(interrupt(each, places, insists=places % 2 == 0) for each in calls),
                return_exceptions=True,
            )
            await used.aclose()
        await self._expect_nothing_besides(held)

    @promises(*RELEASED)
    @promises(*FAILED_OPEN)
    async def test_subscribers_that_come_and_go_leave_nothing(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Browser tabs are closed at any moment, for weeks, and the server must not notice."""
        dice = random.Random(_SEED)
        writer = None
        if queue.capabilities.writable and queue.capabilities.replay:
            writer = await self.writer(queue, stream)
            await writer.send_chunk("a")
            await writer.aclose()  # without a seal: the readers wait for more

        async def subscribe(arrived: asyncio.Event, max_wait: float = 60.0) -> None:
            options = QueueOptions(ttl=LONG_TTL)
            used = await backend.driver.open(options, backend.settings())
            try:
                async with self.reader(used, stream) as reader:
                    await reader.read_batch(max_wait=max_wait if writer else 0.0)
                    arrived.set()
                    await reader.read_batch(max_wait=max_wait)
            finally:
                await used.aclose()

        async def come_and_go(count: int, places: Iterator[int]) -> None:
            leaving = []
            for _ in range(count):
                arrived = asyncio.Event()
                coming = interrupt(
                    subscribe(arrived),
                    next(places),
                    is_late=dice.random() < 0.3,
                    insists=dice.random() < 0.5,
                )
                task = asyncio.ensure_future(coming)
                leaving.append((task, asyncio.ensure_future(arrived.wait())))
            for pair in leaving:
                await asyncio.wait(pair, timeout=self.patience, return_when=FIRST_COMPLETED)
            await asyncio.sleep(_WAITING_SECONDS)  # nothing tells when a reader waits
            for each in itertools.chain(*leaving):
                each.cancel()
            for end in await asyncio.gather(*itertools.chain(*leaving), return_exceptions=True):
                if isinstance(end, Exception):
                    raise end

        # A client may keep and use again what as many queues as ever have had at the same time
        # (SQLite does so with descriptors). Those that were left may still close when others come.
        await come_and_go(2 * _AT_ONCE, itertools.repeat(sys.maxsize))
        held = await self._settled(backend)
        latest = await count_awaits(subscribe(asyncio.Event(), max_wait=0.05))
        places = itertools.cycle(range(1, latest + 1))
        for _ in range(0, self.subscribers, _AT_ONCE):
            await come_and_go(_AT_ONCE, places)
        await self._expect_nothing_besides(held)

    @promises(
        "ChunkQueue.abandon",
        "Release what needs no event loop, because the queue's own has ended without ``aclose``.",
        cause="threads wait for work of a loop that is gone: abandon() has to end them",
    )
    async def test_threads_end_when_a_queue_is_closed_whose_loop_has_ended(
        self, backend: BackendHarness, queue: ChunkQueue
    ) -> None:
        """A program that closes too late, after its asyncio.run, must not be kept alive."""
        if type(queue).abandon is ChunkQueue.abandon:
            pytest.skip(f"{queue.backend} has no abandon() of its own: it keeps no threads")
        await self._settled(backend)
        before = set(threading.enumerate())

        async def use() -> ChunkQueue:
            used = await backend.driver.open(QueueOptions(ttl=LONG_TTL), backend.settings())
            await used.append(new_stream(), entries(b"a"))
            return used

        # The connections of a loop that has ended cannot be closed, and clients warn of that.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            used = await asyncio.to_thread(asyncio.run, use())
            await used.aclose()
            del used
            gc.collect()

        async def have_ended() -> bool:
            return set(threading.enumerate()) <= before

        await self.eventually(have_ended, "the threads of a queue whose loop has ended have ended")

    @promises(
        "ChunkQueue",
        ":class:`~streamq.ClosedError` after :meth:`aclose`",
        cause="each method has to look whether the queue is closed, also those that few use",
    )
    async def test_optional_calls_of_a_closed_queue_are_refused(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A sweep that finds nothing because its queue is closed would report that all is well."""
        await queue.append(stream, entries(b"a"))
        await queue.aclose()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "commit": lambda: queue.commit(stream, START),
            "release": lambda: queue.release(stream, START),
            "newest_epoch": lambda: queue.newest_epoch(stream),
            "sweep": queue.sweep,
        }
        origins = [each for each in type(queue).__mro__ if each not in ChunkQueue.__mro__]
        for name, call in calls.items():
            if any(name in vars(origin) for origin in origins):
                with refuses(ClosedError, f"{name} of a queue that has been closed"):
                    await call()

    async def _settled(self, backend: BackendHarness) -> _Held:
        """Return what is held once everything that is made once and kept has been made."""
        # The thread pool that Python keeps for blocking calls does not belong to the driver.
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40)))
        await (await self._used(backend)).aclose()
        return _Held()

    async def _expect_nothing_besides(self, held: _Held) -> None:
        """Wait until the process holds nothing more than before; there is no event for that."""
        __tracebackhide__ = True
        clock = asyncio.get_running_loop().time
        give_up = clock() + self.patience
        while left := held.left():
            if clock() > give_up:
                broken(
                    f"what closed queues have left behind after {self.patience:g} s",
                    expected="no task, thread or descriptor more than before",
                    seen=f"{len(left)} things",
                    details=left,
                    cause="the connection that a cancelled call was making, or a cleanup that was "
                    "itself cancelled, is dropped: close_all() and SingleFlight of streamq.driver "
                    "go on in a task of their own",
                )
            await asyncio.sleep(0.01)  # nothing tells when the last of it is gone

    async def _used(self, backend: BackendHarness) -> ChunkQueue:
        """Return a queue that has all the connections and tasks that it makes when it is used."""
        used = await backend.driver.open(QueueOptions(ttl=LONG_TTL), backend.settings())
        stream = new_stream()
        waiting = await self.blocked(self.read(used, stream))
        await used.append(stream, entries(b"a"))
        await waiting
        return used
