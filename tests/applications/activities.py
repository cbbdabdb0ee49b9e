"""Defines activities as users write them, in every form, for the tests of their test kit."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass

from temporalio import activity
from temporalio.exceptions import ApplicationError

from streamq import BlockingStreamWriter, OnRetry, StreamWriter
from streamq.temporal import streaming_activity

WORDS = ("the", "sea", "is", "deep")


@dataclass
class Token:
    """A chunk that is more than text."""

    text: str
    weight: int = 1


@dataclass
class Summary:
    """A result that is more than text."""

    words: int


@streaming_activity
async def write(stream: StreamWriter[str], subject: str) -> Summary:
    for word in WORDS:
        await stream.send_chunk(f"{subject} {word}")
    return Summary(len(WORDS))


@streaming_activity
def write_in_thread(subject: str, stream: BlockingStreamWriter[str]) -> Summary:
    for word in WORDS:
        stream.send_chunk(f"{subject} {word}")
    return Summary(len(WORDS))


@streaming_activity
async def yields(subject: str) -> AsyncIterator[str]:
    for word in WORDS:
        yield f"{subject} {word}"


@streaming_activity
def yields_in_thread(subject: str) -> Generator[str, None, Summary]:
    for word in WORDS:
        yield f"{subject} {word}"
    return Summary(len(WORDS))


class Poet:
    """Has a dependency, as activity classes do."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    @streaming_activity
    async def recite(self, subject: str, stream: StreamWriter[str]) -> Summary:
        for word in WORDS:
            await stream.send_chunk(f"{subject} {word}{self._suffix}")
        return Summary(len(WORDS))


async def _recite(words: int, subject: str, stream: StreamWriter[str]) -> Summary:
    for word in WORDS[:words]:
        await stream.send_chunk(f"{subject} {word}")
    return Summary(words)


recite_partly = streaming_activity(functools.partial(_recite, 4))


@streaming_activity
async def write_and_log(
    subject: str, stream: StreamWriter[Token], log: StreamWriter[str]
) -> Summary:
    await log.send_chunk("begins")
    for word in WORDS:
        await stream.send_chunk(Token(f"{subject} {word}", len(word)))
    await log.send_chunk("ends")
    return Summary(len(WORDS))


@streaming_activity(on_retry=OnRetry.RESUME)
async def resume(subject: str, stream: StreamWriter[str]) -> Summary:
    for word in WORDS[stream.position :]:
        await stream.send_chunk(f"{subject} {word}")
    return Summary(len(WORDS))


@streaming_activity(on_retry=OnRetry.REPLAY)
async def replay(subject: str, stream: StreamWriter[str]) -> Summary:
    for word in WORDS:
        await stream.send_chunk(f"{subject} {word}")
    return Summary(len(WORDS))


@streaming_activity(on_retry=OnRetry.RESUME)
def resume_in_thread(subject: str, stream: BlockingStreamWriter[str]) -> Summary:
    for word in WORDS[stream.position :]:
        stream.send_chunk(f"{subject} {word}")
    return Summary(len(WORDS))


@streaming_activity
async def count(upto: int, stream: StreamWriter[int]) -> int:
    """Go on where the details of the last heartbeat say."""
    details = activity.info().heartbeat_details
    start = int(details[0]) if details else 0
    for number in range(start, upto):
        await stream.send_chunk(number)
        activity.heartbeat(number + 1, "counted")
    return activity.info().attempt


@streaming_activity
def count_in_thread(upto: int, stream: BlockingStreamWriter[int]) -> int:
    for number in range(upto):
        stream.send_chunk(number)
        activity.heartbeat(number + 1, "counted")
    return activity.info().attempt


@streaming_activity
async def wait(stream: StreamWriter[str]) -> None:
    """Wait for something that never comes, after two chunks."""
    await stream.send_chunk("begins")
    await stream.send_chunk("waits")
    await asyncio.Event().wait()


@streaming_activity
async def hang_once(stream: StreamWriter[str]) -> int:
    """Wait for ever in the first attempt."""
    await stream.send_chunk("begins")
    if activity.info().attempt == 1:
        await asyncio.Event().wait()
    return activity.info().attempt


@streaming_activity
async def trickle(stream: StreamWriter[str]) -> None:
    """Send a chunk now and then."""
    for word in WORDS:
        await stream.send_chunk(word)
        await asyncio.sleep(0.3)


@streaming_activity
async def tidy_up(stream: StreamWriter[str]) -> None:
    """Send a last chunk when it is cancelled."""
    try:
        for number in range(100):
            await stream.send_chunk(f"line {number}")
    except asyncio.CancelledError:
        await stream.send_chunk("cut short")
        raise


@streaming_activity
async def fail(stream: StreamWriter[str], how: str) -> object:
    await stream.send_chunk("begins")
    if how == "for good":
        raise ApplicationError("no such model", type="ModelError", non_retryable=True)
    if how == "at all":
        raise ValueError("no model")
    return object()  # which no converter encodes


@streaming_activity
async def seal_early(stream: StreamWriter[str]) -> str:
    await stream.send_chunk("all of it")
    await stream.finish()
    await stream.send_chunk("and more")
    return "unreachable"
