"""Tests the stream of a topic that several calls write, each of which may be tried again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from streamq import (
    BackendUnavailableError,
    Chunk,
    CorruptRecordError,
    FencedError,
    Reset,
    Settings,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, StreamId
from streamq.records._values import Encoding
from streamq.temporal.workflow_streams._story import Publisher
from streamq.temporal.workflow_streams._topic_stream import TopicBatch, TopicStream
from streamq.testing import FaultyQueue

STREAM = StreamId("default", "workflow/run/words")


class Calls:
    """Makes the writers of calls, and reads what they have stored."""

    def __init__(self, queue: ChunkQueue, settings: Settings) -> None:
        self.queue = queue
        self.settings = settings
        self.announced = 0

    def attempt(self, call: str, number: int = 1, workflow_attempt: int = 1) -> TopicStream:
        async def announce() -> None:
            self.announced += 1

        return TopicStream(
            self.queue,
            self.settings,
            STREAM,
            None,
            Publisher(call, number, workflow_attempt),
            may_follow=number > 1 or workflow_attempt > 1,
            announce=announce,
        )

    async def outline(self) -> str:
        """Return the words that are stored, with ``-`` for each reset."""
        words = []
        async with open_reader(STREAM, queue=self.queue, settings=self.settings) as reader:
            while events := await reader.read_batch(max_wait=0):
                for event in events:
                    assert isinstance(event, Chunk | Reset)
                    words.append(event.value if isinstance(event, Chunk) else "-")
        return "".join(words)


@pytest.fixture
def faulty(queue: ChunkQueue) -> FaultyQueue:
    return FaultyQueue(queue)


@pytest.fixture
def calls(faulty: FaultyQueue, settings: Settings) -> Calls:
    return Calls(faulty, settings)


def say(words: str) -> list[tuple[Encoding, bytes]]:
    return [(Encoding.TEXT, word.encode()) for word in words]


async def test_stale_attempt_stops(calls: Calls) -> None:
    """It stalled, timed out, and goes on after its successor has published."""
    stale, next_one = calls.attempt("a", 1), calls.attempt("a", 2)
    await stale.write(TopicBatch(), say("xy"))
    await next_one.write(TopicBatch(), say("ab"))
    with pytest.raises(FencedError, match="a later attempt publishes"):
        await stale.write(TopicBatch(), say("z"))
    await next_one.write(TopicBatch(), say("c"))
    assert await calls.outline() == "xy-abc"
    assert calls.announced == 1
    await next_one.aclose()


async def test_stale_attempt_between_two_writes_is_voided(calls: Calls) -> None:
    """It takes the stream over before its successor has stored anything."""
    stale, next_one = calls.attempt("a", 1), calls.attempt("a", 2)
    await next_one.write(TopicBatch(), [])
    await stale.write(TopicBatch(), say("xy"))
    await next_one.write(TopicBatch(), say("ab"))
    await next_one.aclose()
    assert (await calls.outline()).endswith("-ab")


async def test_calls_alternate(calls: Calls) -> None:
    """Each takes the stream over from the other, and repeats nothing."""
    first, second = calls.attempt("a"), calls.attempt("b")
    batch = TopicBatch()
    for number in range(3):
        await first.write(TopicBatch(), say("ace"[number]))
        batch = TopicBatch()
        await second.write(batch, say("bdf"[number]))
    # A batch whose acknowledgement was lost is sent again.
    await second.write(batch, say("f"))
    await asyncio.gather(first.aclose(), second.aclose())
    assert await calls.outline() == "abcdef"


async def test_retry_keeps_what_the_others_sent(calls: Calls) -> None:
    """Also what they send later, and what a repetition has moved."""
    first, second = calls.attempt("a"), calls.attempt("b")
    await first.write(TopicBatch(), say("a"))
    await second.write(TopicBatch(), say("xy"))
    await first.write(TopicBatch(), say("c"))
    retried = calls.attempt("b", 2)
    await retried.write(TopicBatch(), say("1"))
    assert await calls.outline() == "axyc-ac1"
    await first.write(TopicBatch(), say("e"))
    again = calls.attempt("a", 2)
    await again.write(TopicBatch(), say("A"))
    await retried.write(TopicBatch(), say("2"))
    assert await calls.outline() == "axyc-ac1e-1A2"
    for each in (first, second, retried, again):
        await each.aclose()


async def test_new_attempt_of_the_workflow_voids_everything(calls: Calls) -> None:
    """Its calls are other calls, and those of the attempt before it are stale."""
    old = calls.attempt("a")
    await old.write(TopicBatch(), say("xy"))
    new = calls.attempt("b", 1, 2)
    await new.write(TopicBatch(), say("ab"))
    with pytest.raises(FencedError):
        await old.write(TopicBatch(), say("z"))
    assert await calls.outline() == "xy-ab"
    await new.aclose()


@pytest.mark.parametrize("survives", range(1, 7))
async def test_repetition_that_breaks_off_loses_nothing(
    calls: Calls, faulty: FaultyQueue, monkeypatch: Any, survives: int
) -> None:
    """The worker dies anywhere between the reset and the last chunk of the others."""
    for name in "abc":
        call = calls.attempt(name)
        await call.write(TopicBatch(), say(name + name.upper()))
        await call.aclose()
    append, left = faulty.append, survives

    async def dying(*args: Any, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise asyncio.CancelledError
        await append(*args, **options)

    monkeypatch.setattr(faulty, "append", dying)
    broken = calls.attempt("b", 2)
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(5):
            await broken.write(TopicBatch(), say("x"))
    monkeypatch.setattr(faulty, "append", append)
    last = calls.attempt("b", 3)
    await last.write(TopicBatch(), say("ok"))
    await last.aclose()
    assert (await calls.outline()).rpartition("-")[2] == "aAcCok"


async def test_many_calls_are_repeated(calls: Calls) -> None:
    """Their names would not fit into the headers of one opening."""
    for number in range(80):
        call = calls.attempt(f"call {number}")
        await call.write(TopicBatch(), say("a"))
        await call.aclose()
    failed, retried = calls.attempt("last"), calls.attempt("last", 2)
    await failed.write(TopicBatch(), say("x"))
    await retried.write(TopicBatch(), say("b"))
    assert await calls.outline() == "a" * 80 + "x-" + "a" * 80 + "b"
    await asyncio.gather(failed.aclose(), retried.aclose())


async def test_slow_reads_do_not_keep_calls_from_writing(
    queue: ChunkQueue, monkeypatch: Any
) -> None:
    """A takeover read the whole stream while it fenced the others, who then took over in turn."""
    read = queue.read

    async def slow(*args: Any, **options: Any) -> Any:
        await asyncio.sleep(0.1)
        return await read(*args, **options)

    calls = Calls(queue, load_settings(backend="memory", retry_seconds=2))

    async def publish(call: TopicStream, word: str) -> None:
        for _ in range(8):
            await call.write(TopicBatch(), say(word))
            await asyncio.sleep(0.1)

    first, second = calls.attempt("a"), calls.attempt("b")
    with monkeypatch.context() as patching:
        patching.setattr(queue, "read", slow)
        await asyncio.gather(publish(first, "a"), publish(second, "b"))
        await asyncio.gather(first.aclose(), second.aclose())
    assert sorted(await calls.outline()) == [*("a" * 8 + "b" * 8)]


async def test_takeovers_read_what_is_new(
    calls: Calls, faulty: FaultyQueue, monkeypatch: Any
) -> None:
    """Reading all of it at each takeover costs the square of its length."""
    read, count = faulty.read, 0

    async def counting(*args: Any, **options: Any) -> Any:
        nonlocal count
        found = await read(*args, **options)
        count += len(found)
        return found

    monkeypatch.setattr(faulty, "read", counting)
    first, second = calls.attempt("a"), calls.attempt("b")
    for _ in range(20):
        await first.write(TopicBatch(), say("a"))
        await second.write(TopicBatch(), say("b"))
    await asyncio.gather(first.aclose(), second.aclose())
    assert count <= 2 * len(faulty.appends)  # once by each of the two
    assert await calls.outline() == "ab" * 20


async def test_competition_without_end_may_be_tried_again(
    queue: ChunkQueue, monkeypatch: Any
) -> None:
    """Nothing is wrong with the call; an error that is not retryable would end a model call."""

    async def fenced(*args: Any, **options: Any) -> None:
        raise FencedError("another one was quicker", backend=queue.backend)

    calls = Calls(queue, load_settings(backend="memory", retry_seconds=0.1))
    call, batch = calls.attempt("a"), TopicBatch()
    with monkeypatch.context() as patching:
        patching.setattr(queue, "append", fenced)
        with pytest.raises(BackendUnavailableError, match=r"took stream .* over repeatedly"):
            await call.write(batch, say("a"))
    await call.write(batch, say("a"))
    await call.aclose()
    assert await calls.outline() == "a"


@pytest.mark.parametrize("stored", [0, 1])
async def test_batch_is_repeated_after_another_one(
    calls: Calls, queue: ChunkQueue, monkeypatch: Any, stored: int
) -> None:
    """Of two publishers of an activity; the first batch failed, or its acknowledgement was lost."""
    append = queue.append

    async def failing(stream: Any, entries: Any, **options: Any) -> None:
        if stored:
            await append(stream, entries, **options)
        raise BackendUnavailableError("as the test wants", backend=queue.backend)

    calls.settings = load_settings(backend="memory", retry_seconds=0.05)
    call, failed = calls.attempt("a"), TopicBatch()
    await call.write(TopicBatch(), say("1"))
    with monkeypatch.context() as patching:
        patching.setattr(queue, "append", failing)
        with pytest.raises(BackendUnavailableError):
            await call.write(failed, say("23"))
    await call.write(TopicBatch(), say("ab"))
    await call.write(failed, say("23"))
    await call.write(failed, say("23"))
    await call.write(TopicBatch(), say("4"))
    await call.aclose()
    assert await calls.outline() == ("123ab4" if stored else "1ab234")


async def test_header_of_another_program_is_damage(calls: Calls) -> None:
    async with open_writer(
        STREAM,
        queue=calls.queue,
        settings=calls.settings,
        epoch=1,
        headers={"streamq-repeated": "many"},
    ) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        call = calls.attempt("a", 2)
        with pytest.raises(CorruptRecordError, match="streamq-repeated"):
            await call.write(TopicBatch(), say("b"))
        await call.aclose()


async def test_deleted_stream_begins_again(calls: Calls) -> None:
    """What was known of it is void, and what is published from then on arrives."""
    first, second = calls.attempt("a"), calls.attempt("b")
    for call in (first, second, first, second):
        await call.write(TopicBatch(), say("xy"))
    await asyncio.gather(first.aclose(), second.aclose())
    await calls.queue.delete(STREAM)
    for call, word in ((first, "a"), (second, "b"), (first, "c"), (second, "d")):
        await call.write(TopicBatch(), say(word))
    await asyncio.gather(first.aclose(), second.aclose())
    assert await calls.outline() == "abcd"
