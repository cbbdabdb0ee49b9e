"""Renewing what slow readers hold: no stream waits for another one's request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import new_stream
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._naming import QueueNames
from streamq_sqs._requests import Hidden, SqsRequests

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))
NAMES = QueueNames("streamq-", fifo=True)
VISIBILITY_SECONDS = 3
PATIENCE = 20.0


async def take(queue: Any, stream: StreamId, records: int = 1) -> None:
    """Write records and take them, as a reader that then is slow."""
    await queue.append(stream, [Entry(1, i, b"%d" % i) for i in range(records)])
    position, count = START, 0
    while count < records:
        found = await queue.read(
            stream, position, max_records=99, max_bytes=10**6, max_wait=PATIENCE
        )
        position, count = found[-1].position, count + len(found)


@pytest.mark.parametrize("connections", [32, 1])
async def test_request_that_hangs_costs_no_other_stream_its_messages(
    settings: SqsSettings, plain: Any, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    """Else one queue that does not answer has the messages of all told to others."""
    streams = [new_stream() for _ in range(4)]
    hanging = NAMES.queue(streams[0])
    hide = SqsRequests.hide

    async def hang_for_one(
        service: SqsRequests, url: str, receipts: Sequence[str], seconds: int
    ) -> Hidden:
        if not url.endswith(hanging):
            return await hide(service, url, receipts, seconds)
        async with service._turns:
            await asyncio.sleep(service._settings.operation_timeout_seconds)
        raise AssertionError("nobody waits for so long")

    monkeypatch.setattr(SqsRequests, "hide", hang_for_one)
    brief = settings.model_copy(
        update={"visibility_seconds": VISIBILITY_SECONDS, "max_connections": connections}
    )
    async with await SqsDriver.open(OPTIONS, brief) as queue:
        for stream in streams:
            await take(queue, stream)
        # Longer than the visibility time-out: what was not renewed is given to whoever asks.
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


async def test_renewals_are_made_together_and_leave_connections_to_others(
    settings: SqsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand readers that are slow must not keep writers from sending."""
    under_way, most, renewed, all_renewed = 0, 0, set[str](), asyncio.Event()

    async def count(
        service: SqsRequests, url: str, receipts: Sequence[str], seconds: int
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


async def test_what_is_given_back_before_its_renewal_has_a_turn_is_not_hidden_again(
    settings: SqsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next reader would wait for the time-out of messages that nobody has."""
    first, second = new_stream(), new_stream()
    hide, began, goes_on = SqsRequests.hide, asyncio.Semaphore(0), asyncio.Event()
    hidden: list[int] = []

    async def hold_the_first_up(
        service: SqsRequests, url: str, receipts: Sequence[str], seconds: int
    ) -> Hidden:
        if url.endswith(NAMES.queue(first)):
            began.release()
            await goes_on.wait()
        else:
            hidden.append(seconds)
        return await hide(service, url, receipts, seconds)

    monkeypatch.setattr(SqsRequests, "hide", hold_the_first_up)
    narrow = settings.model_copy(
        update={"visibility_seconds": VISIBILITY_SECONDS, "max_connections": 1}
    )
    async with await SqsDriver.open(OPTIONS, narrow) as queue, asyncio.timeout(PATIENCE):
        await take(queue, first)
        await take(queue, second)
        await began.acquire()
        await queue.release(second, START)
        goes_on.set()
        await began.acquire()  # the next round: what waited has had its turn
    assert hidden == [0]
