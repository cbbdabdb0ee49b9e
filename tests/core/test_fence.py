"""Tests that a superseded writer detects it, on a backend that refuses nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.kit.mailbox_driver import MailboxQueue, Post

from streamq import FencedError, StreamNotFoundError, open_writer
from streamq.driver import StreamId
from streamq.testing import run_in_virtual_time

STREAM = StreamId("default", "a")
SECONDS = 60.0


def test_writer_whose_stream_was_deleted_stops() -> None:
    """It would continue for hours without readers, at the price of a model's tokens."""

    async def run() -> None:
        queue = MailboxQueue(Post(), hidden_seconds=SECONDS)
        writer = await open_writer(STREAM, queue=queue)
        await queue.delete(STREAM)
        async with asyncio.timeout(SECONDS):
            assert isinstance(await writer.wait_stopped(), StreamNotFoundError)
        await writer.aclose()

    run_in_virtual_time(run)


def test_end_of_a_deleted_stream_is_not_confirmed() -> None:
    """A worker must not report success if there is nothing left to read."""

    async def run() -> None:
        queue = MailboxQueue(Post(), hidden_seconds=SECONDS)
        writer = await open_writer(STREAM, queue=queue)
        await queue.delete(STREAM)
        with pytest.raises(StreamNotFoundError, match="was deleted"):
            await writer.finish()
        assert not writer.is_sealed
        await writer.aclose()

    run_in_virtual_time(run)


def test_one_stale_answer_stops_no_writer() -> None:
    """Clouds list a new queue everywhere only after a while."""

    async def run() -> None:
        late: list[int] = []

        class Lagging(MailboxQueue):
            async def newest_epoch(self, stream: StreamId) -> int:
                known = await super().newest_epoch(stream)
                return late.pop() if late else known

        queue = Lagging(Post(), hidden_seconds=SECONDS)
        async with open_writer(STREAM, queue=queue) as writer:
            for _ in range(3):
                late.append(0)
                await asyncio.sleep(2.5)
            assert not late
            late.append(0)
            await writer.finish()
            assert writer.is_sealed

    run_in_virtual_time(run)


def test_deleted_stream_that_another_attempt_began_again_fences() -> None:
    """The error names the reason: a newer attempt."""

    async def run() -> None:
        queue = MailboxQueue(Post(), hidden_seconds=SECONDS)
        first = await open_writer(STREAM, queue=queue, epoch=10)
        await queue.delete(STREAM)
        async with open_writer(STREAM, queue=queue, epoch=20):
            with pytest.raises(FencedError):
                await first.finish()
        await first.aclose()

    run_in_virtual_time(run)
