"""Partial answers and foreign messages, produced between the driver and the emulator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sqs_queues import NAMES, PATIENCE
from streamq import BackendUnavailableError
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._messages import to_message
from streamq_sqs._requests import Hidden, SqsRequests

Replace = Callable[[Any], None]


@pytest.fixture
def answer_with(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Return a function that replaces every request."""
    return lambda call: monkeypatch.setattr(SqsRequests, "_call", call)


async def test_partly_accepted_batch_keeps_its_order(
    open_queue: OpenQueue, stream: StreamId, answer_with: Replace
) -> None:
    """If a later record came before an earlier one, the reader would report a permanent gap."""
    call, refusals = SqsRequests._call, [0]

    async def refuse_the_first(requests: SqsRequests, operation: str, **params: Any) -> Any:
        if operation != "send_message_batch" or not refusals:
            return await call(requests, operation, **params)
        refusals.pop()
        first, *rest = params["Entries"]
        answer: dict[str, Any] = {"Successful": []}
        if rest:
            answer = await call(requests, operation, **params | {"Entries": rest})
        failed = {"Id": first["Id"], "Code": "InternalError", "SenderFault": False}
        return {**answer, "Failed": [failed]}

    queue = await open_queue()
    data = [b"%d" % i for i in range(6)]
    entries = [Entry(1, i, each) for i, each in enumerate(data)]
    await queue.append(stream, entries[:1])
    answer_with(refuse_the_first)
    with pytest.raises(BackendUnavailableError, match="InternalError"):
        await queue.append(stream, entries[1:])
    await queue.append(stream, entries[1:])
    found: list[bytes] = []
    position = START
    while len(found) < len(data):
        if position:
            await queue.commit(stream, position)
        read = await queue.read(stream, position, max_records=9, max_bytes=999, max_wait=PATIENCE)
        assert read, f"nothing came after {found}"
        found += [each.data for each in read]
        position = read[-1].position
    assert found == data


async def test_foreign_message_is_removed_and_logged_once(
    open_queue: OpenQueue, plain: Any, stream: StreamId, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would be received for ever, and the queue would never be empty."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    url = plain.get_queue_url(QueueName=NAMES.queue(stream))["QueueUrl"]
    plain.send_message(
        QueueUrl=url, MessageBody="secret", MessageGroupId="x", MessageDeduplicationId="y"
    )
    with caplog.at_level(logging.WARNING, "streamq.sqs"):
        position = START
        while (await queue.describe(stream)).records:
            found = await queue.read(
                stream, position, max_records=9, max_bytes=999, max_wait=PATIENCE / 10
            )
            assert [each.data for each in found] in ([], [b"a"])
            if found:
                await queue.commit(stream, found[-1].position)
                position = found[-1].position
    (message,) = caplog.messages
    assert "none of streamq's" in message
    assert "secret" not in message


async def test_defect_in_one_renewal_does_not_end_the_others(
    settings: SqsSettings, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background task that fails unnoticed would make all readers lose messages."""
    brief = settings.model_copy(update={"visibility_seconds": 2})
    calls, called_again = 0, asyncio.Event()

    async def break_once(
        requests: SqsRequests, url: str, receipts: list[str], seconds: int
    ) -> Hidden:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("Successful")
        called_again.set()
        return Hidden()

    async with await SqsDriver.open(QueueOptions(ttl=timedelta(minutes=5)), brief) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=PATIENCE)
        monkeypatch.setattr(SqsRequests, "hide", break_once)
        async with asyncio.timeout(PATIENCE):
            await called_again.wait()


async def test_receipts_that_sqs_failed_to_renew_are_kept(
    settings: SqsSettings, answer_with: Replace
) -> None:
    """Only receipts that SQS refuses are useless; forgetting the others would repeat messages."""

    async def answer(requests: SqsRequests, operation: str, **params: Any) -> Any:
        return {
            "Successful": [{"Id": "0"}],
            "Failed": [
                {"Id": "1", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"},
                {"Id": "2", "SenderFault": False, "Code": "InternalError"},
            ],
        }

    answer_with(answer)
    hidden = await SqsRequests(settings).hide("url", ["done", "useless", "again"], 30)
    assert hidden == Hidden(["done"], ["useless"])


async def test_time_out_counts_from_the_answer_of_a_long_poll(
    settings: SqsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from the request, a message that came late would be given up too early."""
    arrives, clock = asyncio.Event(), asyncio.get_running_loop().time

    async def poll(requests: SqsRequests, wait: float, params: Any) -> Any:
        await arrives.wait()
        sent = to_message("0", Entry(1, 0, b"a"), fifo=True)
        return {"Messages": [{"ReceiptHandle": "r", **sent}]}

    monkeypatch.setattr(SqsRequests, "_poll", poll)
    receiving = asyncio.ensure_future(SqsRequests(settings).receive("url", "id", PATIENCE))
    await asyncio.sleep(0)
    requested = clock()
    while clock() == requested:  # noqa: ASYNC110 - the clock's next tick
        await asyncio.sleep(0)
    arrived = clock()
    arrives.set()
    (taken,) = (await receiving).messages
    assert taken.data == b"a"
    assert taken.hidden_until >= arrived + settings.visibility_seconds
