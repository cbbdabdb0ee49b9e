"""Objects are removed with their stream, and only with their stream."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from s3sns_bucket import segments
from s3sns_objects import fetch, objects
from streamq import (
    BackendUnavailableError,
)
from streamq.driver import ChunkQueue, Entry, StreamId, StreamNotFoundError
from streamq.testing import OpenQueue
from streamq_s3sns import (
    HandOver,
    ObjectReference,
    S3SnsSettings,
)
from streamq_s3sns._naming import OBJECT, segment_name
from streamq_s3sns._queue import S3SnsQueue


def note_requests(queue: ChunkQueue, seen: list[str]) -> None:
    """Record the requests of a queue to S3 from now on."""
    assert isinstance(queue, S3SnsQueue)
    queue.store.bucket.client.meta.events.register(
        "before-call.s3", lambda model, **_: seen.append(model.name)
    )


async def test_stream_without_objects_costs_one_more_listing(
    queue: ChunkQueue, stream: StreamId
) -> None:
    """Users who hand nothing over must not pay for it: listings are the most expensive requests."""
    seen: list[str] = []
    note_requests(queue, seen)
    await queue.delete(stream)
    assert seen == ["ListObjectsV2", "ListObjectsV2", "DeleteObjects"]
    await queue.append(stream, [Entry(1, 0, b"a")])
    seen.clear()
    await queue.sweep()
    assert seen == ["ListObjectsV2", "HeadObject"]
    await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    seen.clear()
    assert await queue.sweep() == 1
    assert seen.count("ListObjectsV2") == 3


@pytest.mark.parametrize("way", ["delete", "sweep"])
async def test_objects_are_removed_with_their_stream(
    hand_over: HandOver,
    queue: ChunkQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    way: str,
) -> None:
    """Deleting a stream means all of it, and nothing of others."""
    other = StreamId(stream.tenant, f"{stream.name}-other")
    await queue.append(other, [Entry(1, 0, b"a")])
    kept = await hand_over.upload(other, b"other")
    for _ in range(3):
        await hand_over.upload(stream, b"film")
    assert len(objects(s3, settings)) == 4
    if way == "delete":
        await queue.delete(stream)
    else:
        await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
        await asyncio.sleep(0.01)
        assert await queue.sweep() == 1
    directory = queue.store.keys.directory(other)  # type: ignore[attr-defined]
    assert segments(s3, settings) == [f"{directory}{OBJECT}{kept.id}", directory + segment_name(1)]


async def test_interrupted_deletion_leaves_an_expired_stream(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """No reader gets a reference to an object that is gone, and a sweep removes the rest."""
    await hand_over.upload(stream, b"film")
    assert isinstance(queue, S3SnsQueue)
    turns: list[str] = []

    def interrupt(**_: object) -> None:
        turns.append("objects" if objects(s3, settings) else "segments")
        if len(turns) == 2:
            raise EndpointConnectionError(endpoint_url="s3")

    queue.store.bucket.client.meta.events.register("before-call.s3.DeleteObjects", interrupt)
    with pytest.raises(BackendUnavailableError):
        await queue.delete(stream)
    assert turns == ["objects", "segments"]
    assert segments(s3, settings)
    with pytest.raises(StreamNotFoundError):
        await queue.describe(stream)
    assert [info async for info in queue.streams(stream.tenant)] == []
    await queue.sweep()
    assert segments(s3, settings) == []


async def test_sweep_leaves_the_objects_of_a_new_stream_of_that_name(
    hand_over: HandOver, queue: ChunkQueue, open_queue: OpenQueue, stream: StreamId
) -> None:
    """A new stream may begin, with an object, while the old one is being removed."""
    await hand_over.upload(stream, b"old")
    await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    sweeping = await open_queue()
    assert isinstance(sweeping, S3SnsQueue)
    new: list[ObjectReference] = []

    async def begin_anew(params: dict[str, Any], **_: object) -> None:
        if OBJECT in params["url_path"] + str(params["query_string"]) and not new:
            await queue.append(stream, [Entry(2, 0, b"new")])
            new.append(await hand_over.upload(stream, b"new"))

    sweeping.store.bucket.client.meta.events.register("before-call.s3.ListObjectsV2", begin_anew)
    assert await sweeping.sweep() == 1
    assert (await fetch(await hand_over.url(stream, new[0]))).content == b"new"
    assert (await queue.describe(stream)).records == 1


async def test_objects_do_not_disturb_segments(
    hand_over: HandOver, queue: ChunkQueue, open_queue: OpenQueue, stream: StreamId
) -> None:
    """Objects are in the stream's own directory, together with its segments."""
    for _ in range(3):
        await hand_over.upload(stream, b"film")
    other = await open_queue()
    assert isinstance(other, S3SnsQueue)
    other.store.bucket.page_keys = 2
    assert [info.stream async for info in other.streams(stream.tenant)] == [stream]
    info = await other.describe(stream, last=1)
    assert (info.records, info.last[0].data) == (1, b"a")
    await other.append(stream, [Entry(2, 0, b"b")])
    found = await other.read(stream, "", max_records=9, max_bytes=99, max_wait=0)
    assert [each.data for each in found] == [b"a", b"b"]


async def test_deletion_fails_while_a_writer_does_not_pause(
    hand_over: HandOver, queue: ChunkQueue, open_queue: OpenQueue, stream: StreamId
) -> None:
    """A writer could refer to objects that are being removed: everything stays for a retry."""
    reference = await hand_over.upload(stream, b"film")
    deleting = await open_queue()
    assert isinstance(deleting, S3SnsQueue)
    count = itertools.count(1)

    async def write(**_: object) -> None:
        await queue.append(stream, [Entry(1, next(count), b"b")])

    client = deleting.store.bucket.client
    client.meta.events.register("before-call.s3.PutObject", write)
    with pytest.raises(BackendUnavailableError, match="try again"):
        await deleting.delete(stream)
    assert (await fetch(await hand_over.url(stream, reference))).content == b"film"
    client.meta.events.unregister("before-call.s3.PutObject", write)
    await deleting.delete(stream)
    with pytest.raises(StreamNotFoundError):
        await hand_over.url(stream, reference)
