"""Looking for a queue: seldom enough, and never past a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sqs_queues import PATIENCE, urls
from streamq.driver import START, Entry, StreamId
from streamq.testing import OpenQueue
from streamq_sqs._requests import SqsRequests


async def delete_but_keep_its_name(
    plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delete a queue that GetQueueUrl still finds, as on AWS for up to a minute."""
    (url,) = urls(plain, stream)

    async def find(requests: SqsRequests, name: str) -> str:
        return url

    monkeypatch.setattr(SqsRequests, "url", find)
    await asyncio.to_thread(plain.delete_queue, QueueUrl=url)


async def test_deleted_queue_that_is_still_found_gets_few_requests(
    open_queue: OpenQueue, plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is billed, and hundreds in a second would be throttled for the whole account."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await delete_but_keep_its_name(plain, stream, monkeypatch)
    receive, count = SqsRequests.receive, 0

    async def counted(requests: SqsRequests, url: str, request_id: str, wait: float) -> Any:
        nonlocal count
        count += 1
        return await receive(requests, url, request_id, wait)

    monkeypatch.setattr(SqsRequests, "receive", counted)
    assert not await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=2.0)
    # After 0.05, 0.15, 0.35, 0.75 and 1.55 s, and at the end.
    assert 2 <= count <= 7


async def test_pause_ends_at_the_deadline_and_when_the_stream_begins_again(
    open_queue: OpenQueue, plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause must delay neither the end of a poll nor records written in this process."""
    monkeypatch.setattr("streamq_sqs._lookup._FIRST_PAUSE_SECONDS", 10 * PATIENCE)
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await delete_but_keep_its_name(plain, stream, monkeypatch)
    async with asyncio.timeout(PATIENCE):
        assert not await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=0.1)
        waiting = asyncio.ensure_future(
            queue.read(stream, START, max_records=9, max_bytes=999, max_wait=5 * PATIENCE)
        )
        while not queue._lookup._waiting:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await queue.append(stream, [Entry(2, 0, b"b")])
        assert [each.data for each in await waiting] == [b"b"]
