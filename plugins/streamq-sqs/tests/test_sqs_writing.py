"""Appends: one writer for each epoch, and no new queue in place of a deleted one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sqs_queues import urls
from streamq import FencedError, StreamNotFoundError
from streamq.driver import Entry, StreamId
from streamq.testing import OpenQueue


async def test_queue_with_other_attributes_is_used(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """If an operator adds a dead-letter queue or encryption, writers must still work."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    plain.set_queue_attributes(
        QueueUrl=urls(plain, stream)[0], Attributes={"VisibilityTimeout": "77"}
    )
    await (await open_queue()).append(stream, [Entry(2, 0, b"b")])
    assert await queue.newest_epoch(stream) == 2
    assert (await queue.describe(stream)).attempts == 2


async def test_at_most_one_of_two_openers_of_an_epoch_continues(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Otherwise a reader would get a mixture of two writers as one attempt."""
    first, second = await open_queue(), await open_queue()
    await first.append(stream, [Entry(1, 0, b"earlier")])
    for epoch in range(2, 12):
        outcomes = await asyncio.gather(
            first.append(stream, [Entry(epoch, 0, b"a")]),
            second.append(stream, [Entry(epoch, 0, b"b")]),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, FencedError)]
        assert refused, "both were accepted"
        assert len(refused) + outcomes.count(None) == 2
        assert await first.newest_epoch(stream) == epoch


async def test_append_to_a_deleted_queue_creates_no_new_one(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """A new queue would hold the rest of the stream, and readers would take it for the whole."""
    queue, other = await open_queue(), await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await other.delete(stream)
    assert await queue.newest_epoch(stream) == 0
    for _ in range(2):
        with pytest.raises(StreamNotFoundError):
            await queue.append(stream, [Entry(1, 1, b"b")])
    assert urls(plain, stream) == []
