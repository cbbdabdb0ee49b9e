"""Reading again after a crash: at once where the service remembers requests, else later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from streamq.devserver import DevServer
from streamq.driver import START, ChunkQueue, Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._requests import Received, SqsRequests

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))
VISIBILITY_SECONDS = 60

Workers: TypeAlias = tuple[ChunkQueue, ChunkQueue]


def settings(server: DevServer) -> SqsSettings:
    """Return settings with a time-out that no test waits for."""
    return SqsSettings(
        endpoint_url=f"http://{server.address}", visibility_seconds=VISIBILITY_SECONDS
    )


@pytest.fixture
async def workers(elasticmq: DevServer) -> AsyncIterator[Workers]:
    """Return the queues of two processes on a service that remembers requests."""
    async with (
        await SqsDriver.open(OPTIONS, settings(elasticmq)) as one,
        await SqsDriver.open(OPTIONS, settings(elasticmq)) as other,
    ):
        yield one, other


async def read(queue: ChunkQueue, stream: StreamId, after: str) -> tuple[list[bytes], str]:
    """Read as a poll does: acknowledge what the cursor names, then take what comes."""
    if after:
        await queue.commit(stream, after)
    found = await queue.read(stream, after, max_records=100, max_bytes=10**6, max_wait=10)
    return [each.data for each in found], found[-1].position


async def test_repeat_from_another_worker_gets_the_same_batch_at_once(
    workers: Workers, stream: StreamId
) -> None:
    """ReceiveRequestAttemptId: who asks again from the same place need not wait a time-out."""
    dies, follows = workers
    data = [b"%d" % i for i in range(25)]
    await dies.append(stream, [Entry(1, i, each) for i, each in enumerate(data)])
    first, cursor = await read(dies, stream, START)
    lost, _ = await read(dies, stream, cursor)
    # No release, no acknowledgement: the process is gone.
    started = time.monotonic()
    seen = list(first)
    while len(seen) < len(data):
        batch, cursor = await read(follows, stream, cursor)
        seen += batch
    took = time.monotonic() - started
    assert seen == data
    assert lost == data[len(first) : len(first) + len(lost)]
    assert took < VISIBILITY_SECONDS / 2, "it waited for the visibility time-out"


async def test_place_that_was_given_back_is_read_again(workers: Workers, stream: StreamId) -> None:
    """A poll that stopped early asks from the same place as the next one, with the same id."""
    queue, other = workers
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(3)])
    found: Any = None
    for each in (queue, other, queue):
        found, _ = await read(each, stream, START)
        assert found == [b"0", b"1", b"2"]
        await each.release(stream, START)


async def test_repeat_after_requests_in_vain_gets_the_same_batch_after_as_many(
    workers: Workers, stream: StreamId
) -> None:
    """A slow producer: the batch came with a later id, which the next worker comes to as well."""
    dies, follows = workers
    await dies.append(stream, [Entry(1, 0, b"a")])
    _, cursor = await read(dies, stream, START)
    await dies.commit(stream, cursor)
    assert not await dies.read(stream, cursor, max_records=9, max_bytes=999, max_wait=1.0)
    await dies.append(stream, [Entry(1, 1, b"b")])
    lost, _ = await read(dies, stream, cursor)
    # No release, no acknowledgement: the process is gone.
    found: list[bytes] = []
    async with asyncio.timeout(VISIBILITY_SECONDS / 2):
        while not found:
            page = await follows.read(stream, cursor, max_records=9, max_bytes=999, max_wait=1.0)
            found = [each.data for each in page]
    assert found == lost == [b"b"]


async def test_id_that_brought_nothing_is_not_used_for_the_next_request(
    open_queue: OpenQueue, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that remembers answers may remember an empty one, and withhold all that comes."""
    answers: dict[str, Received] = {}
    receive, ids = SqsRequests.receive, list[str]()

    async def remember(service: SqsRequests, url: str, request_id: str, wait: float) -> Received:
        ids.append(request_id)
        if request_id not in answers:
            answers[request_id] = await receive(service, url, request_id, wait)
        return answers[request_id]

    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    _, cursor = await read(queue, stream, START)
    monkeypatch.setattr(SqsRequests, "receive", remember)
    assert not await queue.read(stream, cursor, max_records=9, max_bytes=999, max_wait=1.0)
    await queue.append(stream, [Entry(1, 1, b"b")])
    found, _ = await read(queue, stream, cursor)
    assert found == [b"b"]
    assert 1 < len(ids) == len(set(ids))
