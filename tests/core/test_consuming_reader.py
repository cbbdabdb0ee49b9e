"""Readers that acknowledge nothing themselves, where what is read is gone: as polls are."""

from __future__ import annotations

import asyncio

from tests.kit.mailbox_driver import MailboxQueue, Post

from streamq import Chunk, open_reader, open_writer

SECONDS = 10.0


async def test_poll_goes_on_after_a_record_that_tells_nothing() -> None:
    """Every stream begins with one: else the first chunk would wait until the poll is over."""
    queue = MailboxQueue(Post(), hidden_seconds=SECONDS)
    async with (
        open_writer("a", queue=queue) as writer,
        open_reader("a", queue=queue, commits=False) as reader,
    ):
        polling = asyncio.ensure_future(reader.read_batch(max_wait=10 * SECONDS))
        async with asyncio.timeout(SECONDS):
            while not reader.statistics().records:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0)
            await writer.send_chunk("x")
            (event,) = await polling
        assert isinstance(event, Chunk)
        assert reader.is_spent


async def test_reader_that_read_nothing_tells_the_backend_that_it_goes() -> None:
    """A request of its own may still be waiting there, and would take what belongs to the next."""
    released: list[str] = []

    class Telling(MailboxQueue):
        async def release(self, stream: object, after: str) -> None:
            released.append(after)

    queue = Telling(Post(), hidden_seconds=SECONDS)
    async with open_reader("a", queue=queue, commits=False) as reader:
        assert await reader.read_batch(max_wait=0.01) == []
    assert released == [""]
