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


async def test_queues_of_others_are_left_alone(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """An account has more queues than ours, and some may have names like ours."""
    name = f"{NAMES.tenant(stream.tenant)}of-somebody-else"
    url = plain.create_queue(QueueName=name)["QueueUrl"]
    queue = await open_queue()
    assert [info async for info in queue.streams(stream.tenant)] == []
    await queue.sweep()
    assert url in plain.list_queues(QueueNamePrefix=name)["QueueUrls"]


async def test_sweep_keeps_what_is_written_to(
    settings: SqsSettings, plain: Any, stream: StreamId
) -> None:
    """A stream may last longer than its time to live, which counts from the last append."""
    options = QueueOptions(ttl=timedelta(seconds=2))
    apart = settings.model_copy(update={"queue_prefix": f"t{uuid.uuid4().hex[:8]}-"})
    names = QueueNames(apart.queue_prefix, fifo=True)

    def is_there(stream: StreamId) -> bool:
        return bool(plain.list_queues(QueueNamePrefix=names.queue(stream)).get("QueueUrls"))

    async with await SqsDriver.open(options, apart) as queue:
        idle = StreamId(stream.tenant, "idle")
        await queue.append(idle, [Entry(1, 0, b"")])
        position, index = START, 0
        # Twice the time to live: then even what nobody has read is removed.
        while is_there(idle):
            await queue.append(stream, [Entry(1, index, b"x")])
            position = (await read(queue, stream, position))[-1].position
            index += 1
            await queue.sweep()
        assert index > 2
        assert is_there(stream)


async def test_sweep_looks_again_before_it_deletes(
    settings: SqsSettings, plain: Any, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the list of a thousand queues and the last of them a writer may have woken up."""
    apart = settings.model_copy(update={"queue_prefix": f"t{uuid.uuid4().hex[:8]}-"})
    look = SqsRequests.tags_if_there

    async def look_and_write(service: SqsRequests, url: str) -> QueueTags | None:
        label = await look(service, url)
        await service.tag(url, life_tags(3_600))
        return label

    async with await SqsDriver.open(QueueOptions(ttl=timedelta(seconds=0)), apart) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        with monkeypatch.context() as patched:
            patched.setattr(SqsRequests, "tags_if_there", look_and_write)
            assert await queue.sweep() == 0
        assert (await queue.describe(stream)).records == 1
