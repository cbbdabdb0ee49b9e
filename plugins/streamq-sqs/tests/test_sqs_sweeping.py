"""Listing and sweeping: only expired queues of streamq are deleted."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from sqs_queues import NAMES, read
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._naming import QueueNames
from streamq_sqs._requests import SqsRequests
from streamq_sqs._tags import QueueTags, life_tags


async def test_foreign_queues_are_left_alone(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """An account has queues of other programs, perhaps with names like those of streamq."""
    name = f"{NAMES.tenant(stream.tenant)}of-another-program"
    url = plain.create_queue(QueueName=name)["QueueUrl"]
    queue = await open_queue()
    assert [info async for info in queue.streams(stream.tenant)] == []
    await queue.sweep()
    assert url in plain.list_queues(QueueNamePrefix=name)["QueueUrls"]


async def test_sweep_keeps_a_stream_that_is_written_to(
    settings: SqsSettings, plain: Any, stream: StreamId
) -> None:
    """The time to live counts from the last append, so a stream may exist for longer."""
    options = QueueOptions(ttl=timedelta(seconds=2))
    apart = settings.model_copy(update={"queue_prefix": f"t{uuid.uuid4().hex[:8]}-"})
    names = QueueNames(apart.queue_prefix, fifo=True)

    def is_there(stream: StreamId) -> bool:
        return bool(plain.list_queues(QueueNamePrefix=names.queue(stream)).get("QueueUrls"))

    async with await SqsDriver.open(options, apart) as queue:
        idle = StreamId(stream.tenant, "idle")
        await queue.append(idle, [Entry(1, 0, b"")])
        position, index = START, 0
        # After twice the time to live, even a queue with unread messages is deleted.
        while is_there(idle):
            await queue.append(stream, [Entry(1, index, b"x")])
            position = (await read(queue, stream, position))[-1].position
            index += 1
            await queue.sweep()
        assert index > 2
        assert is_there(stream)


async def test_sweep_checks_again_before_it_deletes(
    settings: SqsSettings, plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a sweep lists a thousand queues, a writer may renew one of them."""
    apart = settings.model_copy(update={"queue_prefix": f"t{uuid.uuid4().hex[:8]}-"})
    read_tags = SqsRequests.tags_if_there

    async def read_and_renew(requests: SqsRequests, url: str) -> QueueTags | None:
        found = await read_tags(requests, url)
        await requests.tag(url, life_tags(3_600))
        return found

    async with await SqsDriver.open(QueueOptions(ttl=timedelta(seconds=0)), apart) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        with monkeypatch.context() as patched:
            patched.setattr(SqsRequests, "tags_if_there", read_and_renew)
            assert await queue.sweep() == 0
        assert (await queue.describe(stream)).records == 1
