"""The tags of a queue name its stream, its attempts and its time to live."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from tests.names import names

from sqs_queues import tags, urls
from streamq.driver import Entry, StreamId
from streamq.testing import OpenQueue
from streamq_sqs._tags import QueueTags, identity_tags


async def test_queue_is_created_tagged_found_again_and_deleted(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """A queue's name is a digest: operators and the driver need its tags to know its stream."""
    odd = StreamId(stream.tenant, "wörkflow/1 *?" + "x" * 400)
    queue, other = await open_queue(), await open_queue()
    await queue.append(odd, [Entry(7, 0, b"a")])
    assert len(urls(plain, odd)) == 1
    found = QueueTags.read(tags(plain, odd))
    assert (found.stream, found.newest_epoch, found.attempts) == (odd, 7, 1)
    assert [info.stream async for info in other.streams(odd.tenant)] == [odd]
    assert (await other.describe(odd)).records == 1
    await other.delete(odd)
    assert urls(plain, odd) == []
    assert [info.stream async for info in queue.streams(odd.tenant)] == []


@given(names)
def test_tags_of_any_name_lead_back_to_its_stream(name: str) -> None:
    """Names are workflow ids, which may be anything; a queue takes 50 tags of 256 characters."""
    stream = StreamId("t" * 64, name)
    found = identity_tags(stream)
    assert QueueTags.read(found).stream == stream
    assert len(found) <= 9
    assert all(len(value) <= 256 for value in found.values())


async def test_many_attempts_fit_into_the_tags(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """A queue takes 50 tags, and an activity may have more attempts."""
    queue = await open_queue()
    for epoch in range(1, 31):
        await queue.append(stream, [Entry(epoch, 0, b"%d" % epoch)])
    assert len(tags(plain, stream)) < 40
    assert (await queue.describe(stream)).attempts == 30
    assert await queue.newest_epoch(stream) == 30
