"""Tests ``streamq.poll``, called as an activity but without a server."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from tests.kit.mailbox_driver import MailboxQueue, Post

from streamq import Chunk, Settings, open_writer
from streamq.driver import START, ChunkQueue, StreamId, StreamInfo
from streamq.temporal import PollRequest, PollResult, poll
from streamq.temporal._event_json import unpack
from streamq.temporal.activities._context import ActivityContext, current
from streamq.testing import FaultyQueue, run_in_virtual_time

Poll = Callable[..., Awaitable[PollResult]]
STREAM = "wf/run/default"


@pytest.fixture
def polled(client: Client, queue: ChunkQueue, settings: Settings) -> Poll:
    async def run(**options: Any) -> PollResult:
        current.set(ActivityContext(queue, settings, client, None))
        return await ActivityEnvironment().run(poll, PollRequest(STREAM, **options))

    return run


async def test_same_cursor_returns_the_same_events(
    polled: Poll, queue: ChunkQueue, settings: Settings
) -> None:
    """A poll whose result was lost is repeated and must lose nothing."""
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        for i in range(10):
            await writer.send_chunk(i)
    first = await polled(max_events=4)
    second = await polled(cursor=first.cursor, max_events=4)
    assert second == await polled(cursor=first.cursor, max_events=4)
    third = await polled(cursor=second.cursor)
    events = list(unpack(first.events + second.events + third.events))
    assert [event.value for event in events if isinstance(event, Chunk)] == [*range(10)]
    assert [event.offset for event in events] == [*range(1, 12)]
    assert [first.sealed, second.sealed, third.sealed] == [False, False, True]


async def test_batch_stays_below_the_byte_limit(
    polled: Poll, queue: ChunkQueue, settings: Settings
) -> None:
    """The result is limited as JSON, where control characters take six bytes each."""
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        for _ in range(4):
            await writer.send_chunk("\x01" * 1_000)
    first = await polled(max_bytes=13_000)
    assert first.count == 2
    rest = await polled(cursor=first.cursor)
    assert (rest.count, rest.sealed) == (3, True)


async def test_chunk_too_large_for_temporal_is_a_clear_failure(
    polled: Poll, queue: ChunkQueue, settings: Settings
) -> None:
    """Temporal's own refusal would be retried for ever without a reason."""
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        await writer.send_chunk("\x01" * 1_000_000)
    with pytest.raises(ApplicationError, match="delivery 'none'") as caught:
        await polled()
    assert caught.value.non_retryable
    assert (await polled(values=False)).bytes == 1_000_000


async def test_the_window_collects_but_never_delays_the_first_chunk(
    polled: Poll, queue: ChunkQueue, settings: Settings
) -> None:
    """The window trades latency for history, but never for the first chunk of a stream."""
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        await writer.send_chunk("first")
        async with asyncio.timeout(60):
            first = await polled(window_seconds=600)
        await writer.send_chunk("second")
        poll_task = asyncio.ensure_future(
            polled(cursor=first.cursor, window_seconds=60, max_events=2)
        )
        await asyncio.sleep(0.05)
        assert not poll_task.done()
        await writer.send_chunk("third")
        [chunks] = (await poll_task).events
        assert chunks["values"] == ["second", "third"]


async def test_polls_come_at_an_even_pace(
    polled: Poll, queue: ChunkQueue, settings: Settings
) -> None:
    """The time that the server takes between two polls must not add to the window."""
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        await writer.send_chunk("first")
        first = await polled()

        async def waited_ms(window_seconds: float, polled_ago_ms: int) -> float:
            """Return how long after the previous poll the next one ends."""
            await writer.send_chunk("next")
            now_ms = round(time.monotonic() * 1_000)
            await polled(
                cursor=first.cursor,
                window_seconds=window_seconds,
                polled_ms=now_ms - polled_ago_ms,
            )
            return time.monotonic() * 1_000 - now_ms + max(0, polled_ago_ms)

        assert 60_020 <= await waited_ms(60, 58_000) < 90_000
        # Clocks that have nothing to do with ours: of a host that started before, and after.
        assert 200 <= await waited_ms(0.2, -10_000_000) < 30_000
        assert 10_000_200 <= await waited_ms(0.2, 10_000_000) < 10_030_000


async def test_empty_poll_returns_in_time_with_a_usable_cursor(polled: Poll) -> None:
    """A poll waits for a stream that does not exist yet, within its bound."""
    empty = await polled(max_wait_seconds=0.05)
    assert (empty.count, empty.sealed) == (0, False)
    assert await polled(cursor=empty.cursor, max_wait_seconds=0.05) == empty


async def test_cursor_of_another_stream_is_not_retried(
    queue: ChunkQueue, settings: Settings, polled: Poll
) -> None:
    """Errors that no retry can repair end the poll, with the error's name as type."""
    with pytest.raises(ApplicationError) as caught:
        await polled(cursor="nonsense")
    assert (caught.value.type, caught.value.non_retryable) == ("CursorError", True)


async def test_invalid_tenant_is_not_retried(polled: Poll) -> None:
    """A mistake in the request stays one, however often it is polled."""
    with pytest.raises(ApplicationError) as caught:
        await polled(tenant="../others")
    assert (caught.value.type, caught.value.non_retryable) == ("ConfigurationError", True)


async def test_short_poll_sends_no_heartbeat(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Each heartbeat that reaches the server is billed, and there is a poll for each window."""
    beats: list[object] = []
    current.set(ActivityContext(queue, settings, client, None))
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    await environment.run(poll, PollRequest(STREAM, max_wait_seconds=0.02))
    assert beats == []


async def test_poll_that_waits_sends_heartbeats_and_makes_few_requests(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Some backends bill requests: a wait is not split into pieces for heartbeats."""
    beats = 0
    has_beaten = asyncio.Event()
    faulty = FaultyQueue(queue)
    current.set(ActivityContext(faulty, settings, client, None))
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        environment.info, heartbeat_timeout=timedelta(seconds=0.03)
    )

    def count(*details: object) -> None:
        nonlocal beats
        beats += 1
        if beats > 5:
            has_beaten.set()

    environment.on_heartbeat = count
    polling = asyncio.ensure_future(environment.run(poll, PollRequest(STREAM)))
    await has_beaten.wait()
    assert len([call for call in faulty.calls if call.method == "read"]) == 1
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        await writer.send_chunk("a")
        assert (await polling).count == 1


async def test_poll_that_watches_its_producer_makes_no_further_requests(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal is queried every two seconds, which costs nothing; a backend may bill a request."""
    looks = 0

    async def is_over(client: Client, workflow_id: str) -> bool:
        nonlocal looks
        assert workflow_id == "producer"
        looks += 1
        return looks == 9

    monkeypatch.setattr("streamq.temporal.activities._poll.has_workflow_ended", is_over)
    environment = ActivityEnvironment(client=client)

    async def wait_in_vain() -> tuple[PollResult, list[str]]:
        queue = FaultyQueue(MailboxQueue(Post(), hidden_seconds=30.0))
        current.set(ActivityContext(queue, settings, client, None))
        result = await environment.run(poll, PollRequest(STREAM, producer="producer"))
        return result, [call.method for call in queue.calls]

    result, asked = await asyncio.to_thread(run_in_virtual_time, wait_in_vain)
    assert (result.count, result.producer_over, looks) == (0, True, 9)
    assert asked == ["read"]


async def test_poll_that_found_events_does_not_query_its_producer(
    client: Client, queue: ChunkQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Temporal that does not answer must not delay events that have been read."""
    queried: list[str] = []

    async def has_ended(client: Client, workflow_id: str) -> bool:
        queried.append(workflow_id)
        return True

    monkeypatch.setattr("streamq.temporal.activities._poll.has_workflow_ended", has_ended)
    async with open_writer(STREAM, queue=queue, settings=settings) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        current.set(ActivityContext(queue, settings, client, None))
        result = await ActivityEnvironment(client=client).run(
            poll, PollRequest(STREAM, producer="producer")
        )
    assert (result.count, result.producer_over, queried) == (1, False, [])


async def test_poll_for_the_rest_waits_until_no_event_can_be_hidden(
    client: Client, settings: Settings
) -> None:
    """A crashed worker hides its messages for a while; the end of a stream must not get lost."""

    async def read_late(hidden_seconds: float) -> int:
        queue = CountsNothing(Post(), hidden_seconds=hidden_seconds)
        stream = StreamId(settings.tenant, STREAM)
        async with open_writer(stream, queue=queue, settings=settings) as writer:
            await writer.send_chunk("a")
        await queue.read(stream, START, max_records=9, max_bytes=10**6, max_wait=0)
        current.set(ActivityContext(queue, settings, client, None))
        result = await ActivityEnvironment().run(poll, PollRequest(STREAM, max_wait_seconds=0))
        assert not result.hidden
        return result.count

    assert await asyncio.to_thread(run_in_virtual_time, lambda: read_late(30.0)) == 2


class CountsNothing(MailboxQueue):
    """Returns no count of records, as SQS does for up to a minute."""

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return dataclasses.replace(await super().describe(stream), records=0)
