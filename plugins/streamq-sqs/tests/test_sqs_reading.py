"""Reading: messages are held, given back, put into order, or reported as missing."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from sqs_queues import PATIENCE, read, urls
from streamq import (
    Chunk,
    CursorError,
    Event,
    Gap,
    Seal,
    StreamEvent,
    TrimmedError,
    open_reader,
    open_readers,
    open_writer,
)
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue, new_stream
from streamq_sqs import SqsDriver, SqsSettings


@pytest.mark.parametrize("gaps_as_events", [False, True])
async def test_messages_in_a_dead_letter_queue_are_reported_as_missing(
    open_queue: OpenQueue, plain: Any, stream: StreamId, gaps_as_events: bool
) -> None:
    """A reader must not take the remaining messages for the whole stream."""
    queue = await open_queue()
    async with open_writer(stream, queue=queue) as writer:
        for word in ("a", "b", "c"):
            await writer.send_chunk(word)
            await writer.flush()
    url = urls(plain, stream)[0]
    dead = plain.create_queue(
        QueueName=f"dead-{uuid.uuid4().hex}.fifo", Attributes={"FifoQueue": "true"}
    )["QueueUrl"]
    arn = plain.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = {"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 1}
    plain.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    # A reader receives the opening and the first chunk, and gives them back.
    for each in plain.receive_message(QueueUrl=url, MaxNumberOfMessages=2)["Messages"]:
        plain.change_message_visibility(
            QueueUrl=url, ReceiptHandle=each["ReceiptHandle"], VisibilityTimeout=0
        )
    async with open_reader(stream, queue=queue, gaps_as_events=gaps_as_events) as reader:
        if not gaps_as_events:
            with pytest.raises(TrimmedError, match=r"events 1 to 1 .* put them aside"):
                await anext(reader)
        else:
            events = [event async for event in reader]
            assert [type(event) for event in events] == [Gap, Chunk, Chunk, Seal]
    count = plain.get_queue_attributes(
        QueueUrl=dead, AttributeNames=["ApproximateNumberOfMessages"]
    )
    assert count["Attributes"]["ApproximateNumberOfMessages"] == "2"


async def test_slow_reader_keeps_its_messages(
    settings: SqsSettings, plain: Any, stream: StreamId
) -> None:
    """The messages of a slow reader must not be delivered to another one."""
    brief = settings.model_copy(update={"visibility_seconds": 2})
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await SqsDriver.open(options, brief) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        async with open_reader(stream, queue=queue) as reader:
            assert isinstance(await anext(reader), Chunk)
            # Waits longer than the visibility time-out, so any message would be delivered.
            stolen = await asyncio.to_thread(
                plain.receive_message, QueueUrl=urls(plain, stream)[0], WaitTimeSeconds=5
            )
            assert "Messages" not in stolen
            assert reader.statistics().duplicate_records == 0
            assert [event async for event in reader]
            assert reader.statistics().duplicate_records == 0


async def test_reader_that_hangs_loses_its_messages(
    settings: SqsSettings, stream: StreamId
) -> None:
    """A reader that hangs must not block the stream for ever."""
    brief = settings.model_copy(update={"visibility_seconds": 2, "hold_seconds": 2})
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with (
        await SqsDriver.open(options, brief) as queue,
        await SqsDriver.open(options, brief) as other,
    ):
        await queue.append(stream, [Entry(1, 0, b"a")])
        assert await read(queue, stream, START)
        assert [each.data for each in await read(other, stream, START)] == [b"a"]


async def test_request_of_a_reader_that_left_gives_its_messages_back(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """If a poll ends while its request waits, the next poll must get the messages at once."""
    queue, other = await open_queue(), await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    position = (await read(queue, stream, START))[-1].position
    await queue.commit(stream, position)
    waiting = asyncio.ensure_future(
        queue.read(stream, position, max_records=9, max_bytes=999, max_wait=PATIENCE)
    )
    await asyncio.wait({waiting}, timeout=0.1)
    waiting.cancel()
    await queue.release(stream, position)
    await other.append(stream, [Entry(1, 1, b"b")])
    async with asyncio.timeout(PATIENCE):  # the visibility time-out is longer
        assert [each.data for each in await read(other, stream, position)] == [b"b"]


@pytest.mark.parametrize("commits", [True, False], ids=["reader", "polls"])
async def test_standard_queue_in_reverse_order_is_read_in_order(
    settings: SqsSettings, commits: bool
) -> None:
    """Standard queues guarantee no order, but emulators keep it; here it is reversed on purpose."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    standard = settings.model_copy(update={"fifo": False})
    source, reversed_ = new_stream(), new_stream()
    async with await SqsDriver.open(options, standard) as queue:
        async with open_writer(source, queue=queue) as writer:
            for i in range(25):
                await writer.send_chunk(str(i))
                await writer.flush()
        records: list[bytes] = []
        position = START
        while len(records) < 26:
            found = await read(queue, source, position)
            records += [each.data for each in found]
            position = found[-1].position
        entries = [Entry(1, i, data) for i, data in enumerate(reversed(records))]
        await queue.append(reversed_, entries)
        events: list[Event] = []
        cursor = "beginning"
        async with asyncio.timeout(PATIENCE):
            while not (events and isinstance(events[-1], Seal)):
                async with open_reader(
                    reversed_, from_=cursor, queue=queue, commits=commits
                ) as reader:
                    events += await reader.read_batch(max_wait=PATIENCE)
                    cursor = reader.cursor
    assert [each.value for each in events[:-1] if isinstance(each, Chunk)] == [
        str(i) for i in range(25)
    ]
    assert [each.offset for each in events] == list(range(1, 27))


@pytest.mark.parametrize("position", ["sqs", "sqs ", "sqs a  b", "7-1", "sqs a\n"])
async def test_foreign_positions_are_refused(
    open_queue: OpenQueue, stream: StreamId, position: str
) -> None:
    """The cursor of another backend must not be taken for the beginning."""
    queue = await open_queue()
    for call in (queue.commit(stream, position), queue.release(stream, position)):
        with pytest.raises(CursorError):
            await call


async def test_many_streams_are_acknowledged_each_by_itself(open_queue: OpenQueue) -> None:
    """A program that stops over one of them gets its rest later, and nothing of any twice."""
    queue, streams = await open_queue(), [new_stream("one"), new_stream("other")]
    for stream in streams:
        async with open_writer(stream, queue=queue) as writer:
            for number in range(5):
                await writer.send_chunk(number)
                await writer.flush()
    seen: dict[StreamId, list[object]] = {stream: [] for stream in streams}

    def note(item: StreamEvent[Any]) -> None:
        assert isinstance(item.event, Chunk | Seal), item
        shown = item.event.value if isinstance(item.event, Chunk) else "END"
        seen[item.stream].append(shown)

    async with open_readers(streams, queue=queue) as readers:
        for _ in range(4):
            note(await anext(readers))
        cursors = readers.cursors
    async with open_readers(streams, from_=cursors, queue=await open_queue()) as readers:
        async for item in readers:
            note(item)
    assert seen == {stream: [0, 1, 2, 3, 4, "END"] for stream in streams}
