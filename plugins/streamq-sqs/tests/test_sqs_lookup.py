"""Looking for a queue: seldom enough, and never past a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sqs_queues import PATIENCE, urls
from streamq.driver import START, Entry, StreamId
from streamq.testing import OpenQueue
from streamq_sqs._requests import SqsRequests


async def delete_but_name_it_still(
    plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delete a queue that GetQueueUrl leads to all the same, as on AWS for up to a minute."""
    (url,) = urls(plain, stream)

    async def name_it(service: SqsRequests, name: str) -> str:
        return url

    monkeypatch.setattr(SqsRequests, "url", name_it)
    await asyncio.to_thread(plain.delete_queue, QueueUrl=url)


async def test_queue_that_is_gone_and_still_named_is_asked_now_and_then(
    open_queue: OpenQueue, plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is billed, and hundreds in a second are throttled, for everybody."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await delete_but_name_it_still(plain, stream, monkeypatch)
    receive, asked = SqsRequests.receive, 0

    async def count(service: SqsRequests, url: str, request_id: str, wait: float) -> Any:
        nonlocal asked
        asked += 1
        return await receive(service, url, request_id, wait)

    monkeypatch.setattr(SqsRequests, "receive", count)
    assert not await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=2.0)
    # After 0.05, 0.15, 0.35, 0.75 and 1.55 s, and at the end.
    assert 2 <= asked <= 7


async def test_pause_of_a_reader_ends_at_its_deadline_and_when_the_stream_begins_again(
    open_queue: OpenQueue, plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause must neither make a poll late nor what is written here."""
    monkeypatch.setattr("streamq_sqs._lookup._FIRST_PAUSE_SECONDS", 10 * PATIENCE)
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await delete_but_name_it_still(plain, stream, monkeypatch)
    async with asyncio.timeout(PATIENCE):
        assert not await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=0.1)
        waiting = asyncio.ensure_future(
            queue.read(stream, START, max_records=9, max_bytes=999, max_wait=5 * PATIENCE)
        )
        while not queue._lookup._waiting:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await queue.append(stream, [Entry(2, 0, b"b")])
        assert [each.data for each in await waiting] == [b"b"]
