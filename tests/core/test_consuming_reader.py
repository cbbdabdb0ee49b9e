"""Readers that do not acknowledge by themselves (polls), where reading removes records."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import partial
from typing import Any

import pytest
from tests.kit.mailbox_driver import MailboxQueue, Post
from tests.kit.modest_driver import ModestQueue

from streamq import Chunk, Event, FencedError, Reset, Seal, TrimmedError, open_reader, open_writer
from streamq.driver import START, StreamId
from streamq.testing import run_in_virtual_time

SECONDS = 10.0


async def test_poll_continues_after_a_record_without_events() -> None:
    """Every stream begins with one; the first chunk must not wait until the poll has ended."""
    queue = MailboxQueue(Post(), hidden_seconds=SECONDS)
    async with (
        open_writer("a", queue=queue) as writer,
        open_reader("a", queue=queue, commits=False) as reader,
    ):
        polling = asyncio.ensure_future(reader.read_batch(max_wait=10 * SECONDS))
        async with asyncio.timeout(SECONDS):
            while not reader.statistics().records:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0)
            await writer.send_chunk("x")
            (event,) = await polling
        assert isinstance(event, Chunk)
        assert reader.is_spent


async def test_reader_that_read_nothing_still_releases() -> None:
    """Its request may still wait at the backend, and would take records from the next reader."""
    released: list[str] = []

    class Noting(MailboxQueue):
        async def release(self, stream: object, after: str) -> None:
            released.append(after)

    queue = Noting(Post(), hidden_seconds=SECONDS)
    async with open_reader("a", queue=queue, commits=False) as reader:
        assert await reader.read_batch(max_wait=0.01) == []
    assert released == [""]


async def test_opening_after_the_last_event_is_acknowledged_with_it() -> None:
    """Nothing more comes before it is acknowledged: an opening without events would block."""
    queue = MailboxQueue(Post(), hidden_seconds=10 * SECONDS)
    first = await open_writer("a", queue=queue, epoch=10)
    await first.send_chunk("x")
    await first.flush()
    second = await open_writer("a", queue=queue, epoch=20)
    async with (
        asyncio.timeout(SECONDS),
        open_reader("a", queue=queue, commits=False) as reader,
    ):
        (chunk,) = await reader.read_batch()
        cursor = reader.cursor
    await second.send_chunk("y")
    await second.finish()
    async with (
        asyncio.timeout(SECONDS),
        open_reader("a", queue=queue, from_=cursor, commits=False) as reader,
    ):
        reset, again, seal = await reader.read_batch()
    assert isinstance(chunk, Chunk)
    assert isinstance(reset, Reset)
    assert isinstance(again, Chunk)
    assert isinstance(seal, Seal)
    assert [each.offset for each in (chunk, reset, again, seal)] == [1, 2, 3, 4]
    assert [each.attempt for each in (chunk, reset, again, seal)] == [1, 2, 2, 2]
    await first.aclose()


async def test_reader_continues_after_an_opening() -> None:
    """The same for a reader that acknowledges by itself."""
    queue = MailboxQueue(Post(), hidden_seconds=10 * SECONDS)
    first = await open_writer("a", queue=queue, epoch=10)
    await first.send_chunk("x")
    await first.flush()
    second = await open_writer("a", queue=queue, epoch=20)
    async with asyncio.timeout(SECONDS), open_reader("a", queue=queue) as reader:
        events = [await anext(reader)]
        await second.send_chunk("y")
        await second.finish()
        events += [event async for event in reader]
    assert [type(each) for each in events] == [Chunk, Reset, Chunk, Seal]
    assert [each.attempt for each in events] == [1, 2, 2, 2]
    await first.aclose()


async def test_place_within_a_record_is_not_changed_by_later_records() -> None:
    """A full poll stops in the middle of a record; a later opening must not make the rest stale."""
    queue = MailboxQueue(Post(), hidden_seconds=10 * SECONDS)
    async with asyncio.timeout(SECONDS):
        first = await open_writer("a", queue=queue, epoch=10)
        for text in "xyz":
            await first.send_chunk(text)
        await first.flush()
        await open_writer("a", queue=queue, epoch=20)
        received: list[Event[object]] = []
        cursor = "beginning"
        while len(received) < 3:
            async with open_reader("a", queue=queue, from_=cursor, commits=False) as reader:
                received += await reader.read_batch(max_events=1)
                cursor = reader.cursor
    assert [each.value for each in received if isinstance(each, Chunk)] == ["x", "y", "z"]
    await first.aclose()


class Unshuffled(random.Random):
    """Leaves everything as it is."""

    def sample(self, population: Any, k: int, *, counts: object = None) -> list[Any]:
        return [*population][:k]


class NearlyOrdered(ModestQueue):
    """Gives the oldest of what it may give, as SQS does mostly; what was hidden comes late."""

    def __init__(self) -> None:
        super().__init__(Post())
        self.hidden_seconds = 30.0
        self.dice = Unshuffled()

    async def lose_the_first(self, stream: StreamId) -> str:
        """Let a reader take the opening and the first chunk, and die."""
        taken = await self.read(stream, START, max_records=9, max_bytes=999, max_wait=0)
        return taken[-1].position


@pytest.mark.parametrize(("count", "size"), [(120, 100_000), (1_200, 1)], ids=["bytes", "records"])
@pytest.mark.parametrize("is_lost", [False, True], ids=["hidden", "lost"])
def test_records_taken_by_a_dead_reader_are_waited_for_before_they_count_as_lost(
    count: int, size: int, is_lost: bool
) -> None:
    """Without order, more records than can be held back may arrive meanwhile."""

    async def run() -> None:
        queue, clock = NearlyOrdered(), asyncio.get_running_loop().time
        stream = StreamId("default", "a")
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("first")
            await writer.flush()
            taken, died = await queue.lose_the_first(stream), clock()
            if is_lost:
                await queue.commit(stream, taken)
            for _ in range(count):
                await writer.send_chunk("x" * size)
                await writer.flush()
        async with open_reader(stream, queue=queue, commits=False) as reader:
            if is_lost:
                with pytest.raises(TrimmedError, match="or the backend gives records out further"):
                    await reader.read_batch(max_wait=SECONDS * 10)
                assert clock() >= died + queue.hidden_seconds
            else:
                first, *_ = await reader.read_batch(max_wait=SECONDS * 10)
                assert isinstance(first, Chunk)
                assert first.value == "first"

    run_in_virtual_time(run)


def test_cursor_names_a_bounded_number_of_early_records() -> None:
    """A poll stores the cursor in Temporal's history; each receipt has some hundred characters."""

    async def run() -> None:
        queue, stream = NearlyOrdered(), StreamId("default", "a")
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("first")
            await writer.flush()
            await queue.lose_the_first(stream)
            for _ in range(1_200):
                await writer.send_chunk("x")
                await writer.flush()
        async with open_reader(stream, queue=queue, commits=False) as reader:
            assert await reader.read_batch(max_wait=1.0) == []
            assert 100 < reader.statistics().records < 1_000

    run_in_virtual_time(run)


class Given(random.Random):
    """Gives in an order that is given."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def sample(self, population: Any, k: int, *, counts: object = None) -> list[Any]:
        return [population[each] for each in self.order if each < len(population)]


@pytest.mark.parametrize(
    ("chunks_of_stale", "step"), [(0, 1), (1, 7), pytest.param(1, 1, marks=pytest.mark.full)]
)
def test_seal_of_a_stale_attempt_ends_nothing_in_whatever_order_it_comes(
    chunks_of_stale: int, step: int
) -> None:
    """It may come before the newer opening, which was stored before it."""

    async def run(order: tuple[int, ...]) -> list[str]:
        queue = ModestQueue(Post())
        queue.dice = Given(order)
        stale = await open_writer("a", queue=queue, epoch=10)
        for _ in range(chunks_of_stale):
            await stale.send_chunk("old")
            await stale.flush()
        async with open_writer("a", queue=queue, epoch=20) as writer:
            with pytest.raises(FencedError):
                await stale.finish()
            await writer.send_chunk("new")
            await writer.flush()
        await stale.aclose()
        async with open_reader("a", queue=queue, idle_seconds=SECONDS) as reader:
            return await reader.collect()

    orders = itertools.permutations(range(5 + chunks_of_stale))
    for order in itertools.islice(orders, 0, None, step):
        assert run_in_virtual_time(partial(run, order)) == ["new"], order
