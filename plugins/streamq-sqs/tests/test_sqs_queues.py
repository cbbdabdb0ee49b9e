"""Queues of streams: made, labelled, found, kept, deleted, swept; and what readers do with them."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from streamq import (
    Chunk,
    CursorError,
    Event,
    FencedError,
    Gap,
    Seal,
    StreamNotFoundError,
    TrimmedError,
    open_reader,
    open_writer,
)
from streamq.driver import START, Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue, new_stream
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._naming import QueueNames
from streamq_sqs._requests import SqsRequests
from streamq_sqs._tags import QueueTags, life_tags

NAMES = QueueNames("streamq-", fifo=True)
PATIENCE = 20.0


def urls(plain: Any, stream: StreamId) -> list[str]:
    """Return where the queues of a stream are, past the driver."""
    found = plain.list_queues(QueueNamePrefix=NAMES.queue(stream)).get("QueueUrls", [])
    return [str(each) for each in found]


def tags(plain: Any, stream: StreamId) -> dict[str, str]:
    """Return the tags of a stream's queue, past the driver."""
    found = plain.list_queue_tags(QueueUrl=urls(plain, stream)[0])["Tags"]
    return {str(name): str(value) for name, value in found.items()}


async def test_queue_is_made_labelled_found_again_and_deleted(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """An operator must be able to tell what a queue with such a name is, and so must we."""
    odd = StreamId(stream.tenant, "wörkflow/1 *?" + "x" * 400)
    queue, other = await open_queue(), await open_queue()
    await queue.append(odd, [Entry(7, 0, b"a")])
    assert len(urls(plain, odd)) == 1
    label = QueueTags.read(tags(plain, odd))
    assert (label.stream, label.newest_epoch, label.attempts) == (odd, 7, 1)
    assert [info.stream async for info in other.streams(odd.tenant)] == [odd]
    assert (await other.describe(odd)).records == 1
    await other.delete(odd)
    assert urls(plain, odd) == []
    assert [info.stream async for info in queue.streams(odd.tenant)] == []


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


async def read(queue: Any, stream: StreamId, after: str) -> Any:
    """Acknowledge what was read, and read on."""
    if after:
        await queue.commit(stream, after)
    return await queue.read(stream, after, max_records=10, max_bytes=10**6, max_wait=PATIENCE)


async def test_queue_with_other_attributes_is_used(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """An operator who adds a dead-letter queue, or encryption, must not lock writers out."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    plain.set_queue_attributes(
        QueueUrl=urls(plain, stream)[0], Attributes={"VisibilityTimeout": "77"}
    )
    await (await open_queue()).append(stream, [Entry(2, 0, b"b")])
    assert await queue.newest_epoch(stream) == 2
    assert (await queue.describe(stream)).attempts == 2


@pytest.mark.parametrize("gaps_as_events", [False, True])
async def test_what_went_to_a_dead_letter_queue_is_told_as_missing(
    open_queue: OpenQueue, plain: Any, stream: StreamId, gaps_as_events: bool
) -> None:
    """An operator may have added one: the reader must not take the rest for the whole."""
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
    # A reader that takes the opening and the first chunk, and gives them back.
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


async def test_of_two_openers_of_one_epoch_at_most_one_goes_on(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Both would write the same attempt, and its reader would be told a blend of the two."""
    first, second = await open_queue(), await open_queue()
    await first.append(stream, [Entry(1, 0, b"earlier")])
    for epoch in range(2, 12):
        outcomes = await asyncio.gather(
            first.append(stream, [Entry(epoch, 0, b"a")]),
            second.append(stream, [Entry(epoch, 0, b"b")]),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, FencedError)]
        assert refused, "both were let in"
        assert len(refused) + outcomes.count(None) == 2
        assert await first.newest_epoch(stream) == epoch


async def test_append_to_a_queue_that_was_deleted_makes_no_other_one(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """The rest of a text under its name would be taken for all of it."""
    queue, other = await open_queue(), await open_queue()
    await queue.append(stream, [Entry(1, 0, b"a")])
    await other.delete(stream)
    assert await queue.newest_epoch(stream) == 0
    for _ in range(2):
        with pytest.raises(StreamNotFoundError):
            await queue.append(stream, [Entry(1, 1, b"b")])
    assert urls(plain, stream) == []


async def test_many_attempts_fit_into_the_tags(
    open_queue: OpenQueue, plain: Any, stream: StreamId
) -> None:
    """A queue takes 50 tags, and an activity may be tried more often."""
    queue = await open_queue()
    for epoch in range(1, 31):
        await queue.append(stream, [Entry(epoch, 0, b"%d" % epoch)])
    assert len(tags(plain, stream)) < 40
    assert (await queue.describe(stream)).attempts == 30
    assert await queue.newest_epoch(stream) == 30


async def test_slow_reader_keeps_what_it_has_taken(
    settings: SqsSettings, plain: Any, stream: StreamId
) -> None:
    """A reader that takes its time must not have its messages handed to somebody else."""
    brief = settings.model_copy(update={"visibility_seconds": 2})
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await SqsDriver.open(options, brief) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        async with open_reader(stream, queue=queue) as reader:
            assert isinstance(await anext(reader), Chunk)
            # Longer than the visibility time-out: it would be given to whoever asks.
            stolen = await asyncio.to_thread(
                plain.receive_message, QueueUrl=urls(plain, stream)[0], WaitTimeSeconds=5
            )
            assert "Messages" not in stolen
            assert reader.statistics().duplicate_records == 0
            assert [event async for event in reader]
            assert reader.statistics().duplicate_records == 0


async def test_reader_that_never_goes_on_loses_what_it_has_taken(
    settings: SqsSettings, stream: StreamId
) -> None:
    """One that hangs for ever must not keep the stream from everybody else."""
    brief = settings.model_copy(update={"visibility_seconds": 2, "hold_seconds": 2})
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with (
        await SqsDriver.open(options, brief) as queue,
        await SqsDriver.open(options, brief) as other,
    ):
        await queue.append(stream, [Entry(1, 0, b"a")])
        assert await read(queue, stream, START)
        assert [each.data for each in await read(other, stream, START)] == [b"a"]


async def test_request_of_a_reader_that_has_gone_gives_back_what_it_brings(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A poll ends while its request waits: what comes then belongs to the next poll, at once."""
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
async def test_standard_queue_that_turns_everything_round_tells_the_same_story(
    settings: SqsSettings, commits: bool
) -> None:
    """Standard queues promise no order, and the emulators keep it: here nothing is left of it."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    standard = settings.model_copy(update={"fifo": False})
    source, turned = new_stream(), new_stream()
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
        await queue.append(turned, entries)
        story: list[Event] = []
        cursor = "beginning"
        async with asyncio.timeout(PATIENCE):
            while not (story and isinstance(story[-1], Seal)):
                async with open_reader(
                    turned, from_=cursor, queue=queue, commits=commits
                ) as reader:
                    story += await reader.read_batch(max_wait=PATIENCE)
                    cursor = reader.cursor
    assert [each.value for each in story[:-1] if isinstance(each, Chunk)] == [
        str(i) for i in range(25)
    ]
    assert [each.offset for each in story] == list(range(1, 27))


@pytest.mark.parametrize("position", ["sqs", "sqs ", "sqs a  b", "7-1", "sqs a\n"])
async def test_foreign_positions_are_refused(
    open_queue: OpenQueue, stream: StreamId, position: str
) -> None:
    """The cursor of another backend must not read as "the beginning"."""
    queue = await open_queue()
    for call in (queue.commit(stream, position), queue.release(stream, position)):
        with pytest.raises(CursorError):
            await call


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
