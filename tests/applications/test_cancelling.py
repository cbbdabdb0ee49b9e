"""Records activities that Temporal, a worker or a newer attempt stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.exceptions import CancelledError
from tests.applications.activities import (
    WORDS,
    resume,
    tidy_up,
    wait,
    write,
    write_in_thread,
    yields,
    yields_in_thread,
)

from streamq import BlockingStreamWriter, SealState, StreamWriter
from streamq.temporal import streaming_activity
from streamq.testing import CancelReason, record, run_in_virtual_time

ALL = [f"Oslo {word}" for word in WORDS]
FUNCTIONS = (write, write_in_thread, yields, yields_in_thread)
ENDINGS = {
    CancelReason.REQUESTED: ("CANCELLED", "CancelledError", False),
    CancelReason.WORKFLOW_ENDED: ("CANCELLED", None, False),
    CancelReason.TIMED_OUT: (None, "TimeoutError", True),
    CancelReason.WORKER_SHUTDOWN: (None, "WorkerShutdown", True),
    CancelReason.PAUSED: (None, "ActivityPause", True),
    CancelReason.RESET: (None, "ActivityReset", True),
    CancelReason.SUPERSEDED: (None, "FencedError", False),
}


@pytest.mark.parametrize("reason", CancelReason, ids=lambda each: each.name)
@pytest.mark.parametrize("function", FUNCTIONS)
async def test_every_reason_stops_every_form_after_so_many_chunks(
    function: Callable[..., Any], reason: CancelReason
) -> None:
    """What readers get depends on why the attempt was stopped, and on nothing else."""
    ending, failure, is_retried = ENDINGS[reason]
    recorded = await record(function, "Oslo", cancel_after=2, cancel_reason=reason)
    assert recorded.outline == [*ALL[:2], *([ending] if ending else [])]
    assert recorded.is_retried is is_retried
    assert recorded.failure is not None
    kind = getattr(recorded.failure, "type", None)
    if failure is not None:
        assert failure in (kind, type(recorded.failure).__name__)


@pytest.mark.parametrize(
    ("reason", "ending", "is_retried"),
    [
        (CancelReason.REQUESTED, "CANCELLED", False),
        (CancelReason.WORKFLOW_ENDED, "CANCELLED", False),
        (CancelReason.TIMED_OUT, None, False),
        (CancelReason.WORKER_SHUTDOWN, "ERROR WorkerShutdown: ", False),
        (CancelReason.PAUSED, None, True),
        (CancelReason.RESET, "ERROR ActivityReset: ", False),
        (CancelReason.SUPERSEDED, None, False),
    ],
)
async def test_last_attempt_ends_the_stream_where_it_can(
    reason: CancelReason, ending: str | None, is_retried: bool
) -> None:
    """What follows no attempt has to tell readers, unless the server alone knows of it."""
    recorded = await record(
        write,
        "Oslo",
        cancel_after=2,
        cancel_reason=reason,
        retry_policy=RetryPolicy(maximum_attempts=1),
    )
    assert recorded.is_retried is is_retried
    last = recorded.outline[-1]
    assert last == ALL[1] if ending is None else last.startswith(ending)


@pytest.mark.parametrize("function", [wait])
@pytest.mark.parametrize("chunks", [0, 2])
async def test_a_function_that_waits_is_stopped_there(
    function: Callable[..., Any], chunks: int
) -> None:
    """The usual place: the model has not answered yet."""
    recorded = await record(function, cancel_after=chunks)
    assert recorded.outline == [*["begins", "waits"][:chunks], "CANCELLED"]
    assert isinstance(recorded.error, asyncio.CancelledError)


async def test_chunks_of_the_handler_come_before_the_ending() -> None:
    """An activity may say that it was cut short."""
    recorded = await record(tidy_up, cancel_after=3)
    assert recorded.chunks == ["line 0", "line 1", "line 2", "cut short"]
    assert recorded.ending is SealState.CANCELLED


async def test_cancelling_after_the_last_chunk_comes_before_the_result() -> None:
    """A workflow may cancel an activity that is nearly done."""
    recorded = await record(write, "Oslo", cancel_after=4)
    assert recorded.outline == [*ALL, "CANCELLED"]


async def test_thread_that_waits_in_the_writer_is_woken() -> None:
    """Temporal raises in a thread only between two of its instructions."""

    @streaming_activity
    def waits(stream: BlockingStreamWriter[str]) -> None:
        stream.send_chunk("begins")
        while True:
            time.sleep(0.01)

    recorded = await record(waits, cancel_after=1)
    assert recorded.outline == ["begins", "CANCELLED"]
    assert isinstance(recorded.error, CancelledError)


async def test_attempt_after_a_shutdown_goes_on() -> None:
    """A deployment restarts workers in the middle of a stream."""
    recorded = await record(
        resume, "Oslo", cancel_after=[2, None], cancel_reason=CancelReason.WORKER_SHUTDOWN
    )
    assert recorded.outline == [*ALL, "END"]
    assert [each.resumed_from for each in recorded.attempts] == [0, 2]


async def test_worker_announces_its_shutdown_to_the_function() -> None:
    """Code that asks activity.is_worker_shutdown() can be tested."""
    seen: list[bool] = []

    @streaming_activity
    async def asks(stream: StreamWriter[str]) -> None:
        try:
            await stream.send_chunk("begins")
            await asyncio.Event().wait()
        finally:
            seen.append(activity.is_worker_shutdown())

    await record(asks, cancel_after=1, cancel_reason=CancelReason.WORKER_SHUTDOWN)
    await record(asks, cancel_after=1)
    assert seen == [True, False]


async def test_reason_is_the_one_that_the_function_sees() -> None:
    """Code may tell a pause from a request."""

    @streaming_activity
    async def asks(stream: StreamWriter[str]) -> None:
        try:
            await stream.send_chunk("begins")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            assert details is not None
            await stream.send_chunk("paused" if details.paused else "cancelled")
            raise

    paused = await record(asks, cancel_after=1, cancel_reason=CancelReason.PAUSED)
    assert paused.outline == ["begins", "paused"]
    assert (await record(asks, cancel_after=1)).outline == ["begins", "cancelled", "CANCELLED"]


def test_an_attempt_that_takes_too_long_times_out() -> None:
    """A test of an activity that hangs ends, in virtual time at once."""
    recorded = run_in_virtual_time(lambda: record(wait, start_to_close_timeout=timedelta(hours=1)))
    assert recorded.outline == ["begins", "waits"]
    assert type(recorded.failure).__name__ == "TimeoutError"
    assert recorded.is_retried


async def test_cancelling_the_recording_stops_the_activity() -> None:
    """A test that is given up leaves nothing running."""
    ended = asyncio.Event()

    @streaming_activity
    async def waits(stream: StreamWriter[str]) -> None:
        try:
            await stream.send_chunk("begins")
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    begun = asyncio.Event()
    task = asyncio.create_task(record(waits))
    await begun.wait()
    before = asyncio.all_tasks()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert not [each for each in before if not each.done() and each is not asyncio.current_task()]


async def test_a_cancellation_that_does_not_happen_fails_the_test() -> None:
    """The activity sends fewer chunks than the author thinks."""
    with pytest.raises(AssertionError, match="sent 4 chunks and completed: cancel_after=9"):
        await record(write, "Oslo", cancel_after=9)
