"""Records activities whose backend fails: what their authors' code does then."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.applications.activities import WORDS, resume, write, write_in_thread

from streamq import (
    BackendUnavailableError,
    BufferFullError,
    OnFull,
    Settings,
    StorageFullError,
    StreamWriter,
    ThrottledError,
    load_settings,
    open_queue,
)
from streamq.temporal import streaming_activity
from streamq.testing import Block, Delay, Fail, FaultyQueue, LoseAcknowledgement, record
from streamq.testing import run_in_virtual_time as in_virtual_time

ALL = [f"Oslo {word}" for word in WORDS]


@pytest.mark.parametrize(
    "fault",
    [
        ThrottledError("slow down"),
        BackendUnavailableError("away"),
        StorageFullError("full"),
        LoseAcknowledgement(),
        Delay(300.0),
    ],
    ids=repr,
)
def test_passing_fault_costs_nothing_but_time(fault: Exception) -> None:
    """Retries and back-off are those of production; in virtual time they take none."""
    recorded = in_virtual_time(lambda: record(write, "Oslo", faults={2: fault}))
    assert recorded.outline == [*ALL, "END"]


async def test_threads_survive_a_fault_too() -> None:
    """The thread only waits longer."""
    recorded = await record(write_in_thread, "Oslo", faults={1: BackendUnavailableError("away")})
    assert recorded.outline == [*ALL, "END"]


def test_backend_that_stays_away_fails_the_attempt(streamq_memory: Settings) -> None:
    """The next attempt continues, once the backend is back."""

    async def test() -> None:
        settings = load_settings(retry_seconds=2)
        queue = FaultyQueue(await open_queue(streamq_memory))

        @streaming_activity
        async def slow(stream: StreamWriter[str]) -> None:
            await stream.send_chunk("stored")
            await stream.flush()
            queue.always("append", Fail(BackendUnavailableError("away")))
            await stream.send_chunk("not stored")
            await asyncio.sleep(3600)

        recorded = await record(slow, queue=queue, settings=settings)
        assert recorded.outline == ["stored"]
        assert recorded.is_retried
        assert recorded.failure is not None
        assert "BackendUnavailableError" in str(recorded.failure)
        assert queue.count("append") > 3

    in_virtual_time(test)


async def test_full_buffer_reaches_the_function() -> None:
    """With OnFull.ERROR the author decides what to leave out."""
    block = Block()

    @streaming_activity(on_full=OnFull.ERROR)
    async def hasty(stream: StreamWriter[str]) -> int:
        sent = 0
        try:
            for _ in range(100):
                await stream.send_chunk("x" * 100)
                await asyncio.sleep(0)
                sent += 1
        except BufferFullError:
            block.release()
        return sent

    recorded = await record(hasty, faults={1: block}, settings=load_settings(buffer_bytes=1_000))
    assert 0 < recorded.result < 20
    assert len(recorded.chunks) == recorded.result


def test_waiting_for_room_can_be_cancelled() -> None:
    """A workflow that gives up does not wait for a backend that hangs."""

    @streaming_activity
    async def fast(stream: StreamWriter[str]) -> None:
        while True:
            await stream.send_chunk("x" * 100)

    async def test() -> None:
        block = Block()
        settings = load_settings(buffer_bytes=1_000, operation_seconds=30)
        task = asyncio.create_task(
            record(
                fast,
                faults={1: block},
                settings=settings,
                start_to_close_timeout=timedelta(seconds=20),
            )
        )
        recorded = await task
        assert type(recorded.failure).__name__ == "TimeoutError"

    in_virtual_time(test)


async def test_own_queue_keeps_its_faults_and_its_calls(streamq_queue: FaultyQueue) -> None:
    """Whoever needs more than a fault for each chunk scripts the queue, and counts its calls."""
    recorded = await record(resume, "Oslo", queue=streamq_queue, fail_after=[1, None])
    assert recorded.outline == [*ALL, "END"]
    assert streamq_queue.count("append") >= 3


async def test_a_fault_that_does_not_happen_fails_the_test() -> None:
    """The activity sends fewer chunks than the author thinks."""
    with pytest.raises(AssertionError, match=r"sent 4 chunks, so that the faults of \[7\] did not"):
        await record(write, "Oslo", faults={7: Fail()})
