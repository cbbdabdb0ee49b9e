"""Renewing the messages of slow readers: no stream waits for the request of another one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from sqs_queues import NAMES, PATIENCE
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import new_stream
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._requests import Hidden, SqsRequests

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))
VISIBILITY_SECONDS = 3


async def take(queue: Any, stream: StreamId, records: int = 1) -> None:
    """Write records and receive them, like a reader that is slow afterwards."""
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(records)])
    position, count = START, 0
    while count < records:
        found = await queue.read(
            stream, position, max_records=99, max_bytes=10**6, max_wait=PATIENCE
        )
        position, count = found[-1].position, count + len(found)


@pytest.mark.parametrize("connections", [32, 1])
async def test_request_that_hangs_delays_no_other_renewal(
    settings: SqsSettings, plain: Any, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    """Otherwise one queue that does not answer would make all streams lose their messages."""
    streams = [new_stream() for _ in range(4)]
    hanging = NAMES.queue(streams[0])
    hide = SqsRequests.hide

    async def hang_for_one(
        requests: SqsRequests, url: str, receipts: Sequence[str], seconds: int
    ) -> Hidden:
        if not url.endswith(hanging):
            return await hide(requests, url, receipts, seconds)
        async with requests._turns:
            await asyncio.sleep(requests._settings.operation_timeout_seconds)
        raise AssertionError("the renewal did not give up")

    monkeypatch.setattr(SqsRequests, "hide", hang_for_one)
    brief = settings.model_copy(
        update={"visibility_seconds": VISIBILITY_SECONDS, "max_connections": connections}
    )
    async with await SqsDriver.open(OPTIONS, brief) as queue:
        for stream in streams:
            await take(queue, stream)
        # Waits longer than the visibility time-out: messages that were not renewed are delivered.
        answers = await asyncio.gather(
            *(
                asyncio.to_thread(
                    plain.receive_message,
                    QueueUrl=plain.get_queue_url(QueueName=NAMES.queue(stream))["QueueUrl"],
                    WaitTimeSeconds=2 * VISIBILITY_SECONDS,
                )
                for stream in streams
            )
        )
        assert ["Messages" in each for each in answers] == [True, False, False, False]


async def test_renewals_run_concurrently_and_leave_connections_to_writers(
    settings: SqsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand slow readers must not prevent writers from sending."""
    under_way, most, renewed, all_renewed = 0, 0, set[str](), asyncio.Event()

    async def count(
        requests: SqsRequests, url: str, receipts: Sequence[str], seconds: int
    ) -> Hidden:
        nonlocal under_way, most
        assert len(receipts) <= 10, "more than one request takes"
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        renewed.update(receipts)
        if len(renewed) == 5 * 12:
            all_renewed.set()
        return Hidden(list(receipts))

    standard = settings.model_copy(
        update={"visibility_seconds": VISIBILITY_SECONDS, "max_connections": 6, "fifo": False}
    )
    async with await SqsDriver.open(OPTIONS, standard) as queue:
        for _ in range(5):
            await take(queue, new_stream(), records=12)
        monkeypatch.setattr(SqsRequests, "hide", count)
        async with asyncio.timeout(PATIENCE):
            await all_renewed.wait()
    assert most == 3


async def test_message_given_back_before_its_renewal_is_not_hidden_again(
    settings: SqsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next reader would wait for the time-out of messages that no reader holds."""
    first, second = new_stream(), new_stream()
    hide, began, resumed = SqsRequests.hide, asyncio.Semaphore(0), asyncio.Event()
    hidden: list[int] = []

    async def delay_the_first(
        requests: SqsRequests, url: str, receipts: Sequence[str], seconds: int
    ) -> Hidden:
        if url.endswith(NAMES.queue(first)):
            began.release()
            await resumed.wait()
        else:
            hidden.append(seconds)
        return await hide(requests, url, receipts, seconds)

    monkeypatch.setattr(SqsRequests, "hide", delay_the_first)
    narrow = settings.model_copy(
        update={"visibility_seconds": VISIBILITY_SECONDS, "max_connections": 1}
    )
    async with await SqsDriver.open(OPTIONS, narrow) as queue, asyncio.timeout(PATIENCE):
        await take(queue, first)
        await take(queue, second)
        await began.acquire()
        await queue.release(second, START)
        resumed.set()
        await began.acquire()  # the next round, so the renewal that waited is done
    assert hidden == [0]
