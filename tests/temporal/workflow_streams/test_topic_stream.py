"""Tests the stream of a topic that several calls write, each of which may be tried again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from streamq import Chunk, FencedError, Reset, Settings, open_reader
from streamq.driver import ChunkQueue, StreamId
from streamq.records._values import Encoding
from streamq.temporal.workflow_streams._story import Publisher
from streamq.temporal.workflow_streams._topic_stream import TopicStream
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
    await stale.write(0, say("xy"))
    await next_one.write(0, say("ab"))
    with pytest.raises(FencedError, match="a later attempt publishes"):
        await stale.write(2, say("z"))
    await next_one.write(2, say("c"))
    assert await calls.outline() == "xy-abc"
    assert calls.announced == 1
    await next_one.aclose()


async def test_stale_attempt_between_two_writes_is_voided(calls: Calls) -> None:
    """It takes the stream over before its successor has stored anything."""
    stale, next_one = calls.attempt("a", 1), calls.attempt("a", 2)
    await next_one.write(0, [])
    await stale.write(0, say("xy"))
    await next_one.write(0, say("ab"))
    await next_one.aclose()
    assert (await calls.outline()).endswith("-ab")


async def test_calls_alternate(calls: Calls) -> None:
    """Each takes the stream over from the other, and repeats nothing."""
    first, second = calls.attempt("a"), calls.attempt("b")
    for number in range(3):
        await first.write(number, say("ace"[number]))
        await second.write(number, say("bdf"[number]))
    # A batch whose acknowledgement was lost is sent again.
    await second.write(2, say("f"))
    await asyncio.gather(first.aclose(), second.aclose())
    assert await calls.outline() == "abcdef"


async def test_retry_keeps_what_the_others_sent(calls: Calls) -> None:
    """Also what they send later, and what a repetition has moved."""
    first, second = calls.attempt("a"), calls.attempt("b")
    await first.write(0, say("a"))
    await second.write(0, say("xy"))
    await first.write(1, say("c"))
    retried = calls.attempt("b", 2)
    await retried.write(0, say("1"))
    assert await calls.outline() == "axyc-ac1"
    await first.write(2, say("e"))
    again = calls.attempt("a", 2)
    await again.write(0, say("A"))
    await retried.write(1, say("2"))
    assert await calls.outline() == "axyc-ac1e-1A2"
    for each in (first, second, retried, again):
        await each.aclose()


async def test_new_attempt_of_the_workflow_voids_everything(calls: Calls) -> None:
    """Its calls are other calls, and those of the attempt before it are stale."""
    old = calls.attempt("a")
    await old.write(0, say("xy"))
    new = calls.attempt("b", 1, 2)
    await new.write(0, say("ab"))
    with pytest.raises(FencedError):
        await old.write(2, say("z"))
    assert await calls.outline() == "xy-ab"
    await new.aclose()


@pytest.mark.parametrize("survives", range(1, 7))
async def test_repetition_that_breaks_off_loses_nothing(
    calls: Calls, faulty: FaultyQueue, monkeypatch: Any, survives: int
) -> None:
    """The worker dies anywhere between the reset and the last chunk of the others."""
    for name in "abc":
        call = calls.attempt(name)
        await call.write(0, say(name + name.upper()))
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
            await broken.write(0, say("x"))
    monkeypatch.setattr(faulty, "append", append)
    last = calls.attempt("b", 3)
    await last.write(0, say("ok"))
    await last.aclose()
    assert (await calls.outline()).rpartition("-")[2] == "aAcCok"


async def test_many_calls_are_repeated(calls: Calls) -> None:
    """Their names would not fit into the headers of one opening."""
    for number in range(80):
        call = calls.attempt(f"call {number}")
        await call.write(0, say("a"))
        await call.aclose()
    failed, retried = calls.attempt("last"), calls.attempt("last", 2)
    await failed.write(0, say("x"))
    await retried.write(0, say("b"))
    assert await calls.outline() == "a" * 80 + "x-" + "a" * 80 + "b"
    await asyncio.gather(failed.aclose(), retried.aclose())
