"""What SQS does by halves, and what others do to its queues: put in between us and the emulator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamq import BackendUnavailableError
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._messages import to_message
from streamq_sqs._naming import QueueNames
from streamq_sqs._requests import Hidden, SqsRequests

PATIENCE = 20.0
NAMES = QueueNames("streamq-", fifo=True)
Replace = Callable[[Any], None]


@pytest.fixture
def answer_with(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Return a function that puts another one in the place of every request."""
    return lambda call: monkeypatch.setattr(SqsRequests, "_call", call)


async def test_batch_that_is_taken_in_part_keeps_its_order(
    open_queue: OpenQueue, stream: StreamId, answer_with: Replace
) -> None:
    """A later record before an earlier one is a gap for the reader, which never heals."""
    ask, refusals = SqsRequests._call, [0]

    async def refuse_the_first(service: SqsRequests, operation: str, **params: Any) -> Any:
        if operation != "send_message_batch" or not refusals:
            return await ask(service, operation, **params)
        refusals.pop()
        first, *rest = params["Entries"]
        answer: dict[str, Any] = {"Successful": []}
        if rest:
            answer = await ask(service, operation, **params | {"Entries": rest})
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


async def test_message_of_somebody_else_is_removed_and_told_once(
    open_queue: OpenQueue, plain: Any, stream: StreamId, caplog: pytest.LogCaptureFixture
) -> None:
    """It would come again for ever, and polls would never find the queue empty."""
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
    (told,) = caplog.messages
    assert "none of streamq's" in told
    assert "secret" not in told


async def test_defect_in_one_renewal_does_not_end_all_of_them(
    settings: SqsSettings, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs in the background fails where nobody sees it: all readers would lose messages."""
    brief = settings.model_copy(update={"visibility_seconds": 2})
    calls, goes_on = 0, asyncio.Event()

    async def break_once(
        service: SqsRequests, url: str, receipts: list[str], seconds: int
    ) -> Hidden:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("Successful")
        goes_on.set()
        return Hidden()

    async with await SqsDriver.open(QueueOptions(ttl=timedelta(minutes=5)), brief) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        await queue.read(stream, START, max_records=9, max_bytes=999, max_wait=PATIENCE)
        monkeypatch.setattr(SqsRequests, "hide", break_once)
        async with asyncio.timeout(PATIENCE):
            await goes_on.wait()


async def test_receipts_that_sqs_could_not_renew_this_time_are_kept(
    settings: SqsSettings, answer_with: Replace
) -> None:
    """Only what is our fault is useless; what was throttled would be taken twice."""

    async def answer(service: SqsRequests, operation: str, **params: Any) -> Any:
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


async def test_time_out_runs_from_the_answer_of_a_long_poll(
    settings: SqsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from the question, a message that came late is given up while it is still ours."""
    arrives, clock = asyncio.Event(), asyncio.get_running_loop().time

    async def poll(service: SqsRequests, wait: float, params: Any) -> Any:
        await arrives.wait()
        sent = to_message("0", Entry(1, 0, b"a"), fifo=True)
        return {"Messages": [{"ReceiptHandle": "r", **sent}]}

    monkeypatch.setattr(SqsRequests, "_poll", poll)
    receiving = asyncio.ensure_future(SqsRequests(settings).receive("url", "id", PATIENCE))
    await asyncio.sleep(0)
    asked = clock()
    while clock() == asked:  # noqa: ASYNC110 - the clock's next tick
        await asyncio.sleep(0)
    arrived = clock()
    arrives.set()
    (taken,) = (await receiving).messages
    assert taken.data == b"a"
    assert taken.hidden_until >= arrived + settings.visibility_seconds
