"""What SQS is asked, and so bills: batches of ten, long polls, large records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from streamq import open_reader, open_writer
from streamq.devserver import DevServer
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._requests import SqsRequests

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count requests by operation."""
    counts: Counter[str] = Counter()
    call, poll = SqsRequests._call, SqsRequests._poll

    async def counted_call(service: SqsRequests, operation: str, **params: Any) -> Any:
        counts[operation] += 1
        assert len(params.get("Entries", ())) <= 10, "more than SQS takes"
        return await call(service, operation, **params)

    async def counted_poll(service: SqsRequests, wait: float, params: Mapping[str, Any]) -> Any:
        counts["receive_message"] += 1
        return await poll(service, wait, params)

    monkeypatch.setattr(SqsRequests, "_call", counted_call)
    monkeypatch.setattr(SqsRequests, "_poll", counted_poll)
    return counts


async def test_records_travel_by_tens(
    settings: SqsSettings, stream: StreamId, asked: Counter[str]
) -> None:
    """Sent, received and acknowledged: a request for each would cost ten times as much."""
    standard = settings.model_copy(update={"fifo": False})
    async with await SqsDriver.open(OPTIONS, standard) as queue:
        await queue.append(stream, [Entry(1, i, b"a") for i in range(25)])
        assert asked["send_message_batch"] == 3
        position, count = START, 0
        while count < 25:
            found = await queue.read(
                stream, position, max_records=99, max_bytes=10**6, max_wait=10.0
            )
            position, count = found[-1].position, count + len(found)
        assert asked["receive_message"] == 3
        await queue.commit(stream, position)
        assert asked["delete_message_batch"] == 3
        assert (await queue.describe(stream)).records == 0


async def test_batches_keep_to_the_bytes_of_one_message(
    settings: SqsSettings, stream: StreamId, asked: Counter[str]
) -> None:
    """SQS refuses a batch whose messages are together larger than one may be."""
    standard = settings.model_copy(update={"fifo": False})
    async with await SqsDriver.open(OPTIONS, standard) as queue:
        await queue.append(stream, [Entry(1, i, bytes(100_000)) for i in range(5)])
    assert asked["send_message_batch"] == 3


@pytest.mark.parametrize("fifo", [True, False])
async def test_largest_record_fills_a_message(
    elasticmq: DevServer, stream: StreamId, fifo: bool
) -> None:
    """1 MiB is what SQS takes; requests of that size must not hold the event loop up either."""
    settings = SqsSettings(endpoint_url=f"http://{elasticmq.address}", fifo=fifo)
    async with await SqsDriver.open(OPTIONS, settings) as queue:
        largest = queue.capabilities.max_record_bytes
        assert largest > 10**6
        records = [bytes([i]) * largest for i in range(3)]
        await queue.append(stream, [Entry(1, i, data) for i, data in enumerate(records)])
        position, found = START, list[bytes]()
        while len(found) < len(records):
            page = await queue.read(stream, position, max_records=9, max_bytes=2**22, max_wait=10.0)
            position = page[-1].position
            found += [each.data for each in page]
    assert sorted(found) == records


async def test_wait_is_one_request(
    settings: SqsSettings, stream: StreamId, asked: Counter[str]
) -> None:
    """A reader that waits for a slow producer must not be billed for looking."""
    async with await SqsDriver.open(OPTIONS, settings) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        (opening,) = await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=10.0)
        await queue.commit(stream, opening.position)
        before = asked["receive_message"]
        waiting = asyncio.ensure_future(
            queue.read(stream, opening.position, max_records=9, max_bytes=999, max_wait=20.0)
        )
        await asyncio.wait({waiting}, timeout=1.5)
        await queue.append(stream, [Entry(1, 1, b"b")])
        assert [each.data for each in await waiting] == [b"b"]
        assert asked["receive_message"] - before == 1


async def test_thousand_chunks_at_once_cost_a_few_requests(
    settings: SqsSettings, stream: StreamId, asked: Counter[str]
) -> None:
    """What arrives while a request is under way travels in the next one."""
    async with await SqsDriver.open(OPTIONS, settings) as queue:
        async with open_writer(stream, queue=queue) as writer:
            for _ in range(1_000):
                await writer.send_chunk("x" * 100)
        async with open_reader(stream, queue=queue) as reader:
            assert len(await reader.collect()) == 1_000
    assert asked.total() <= 40, asked
