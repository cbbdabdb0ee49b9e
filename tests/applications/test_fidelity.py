"""Compares what is recorded without a server with what a real one and a real worker do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.applications.activities import (
    Summary,
    count,
    count_in_thread,
    fail,
    seal_early,
    wait,
    write,
    write_and_log,
    write_in_thread,
    yields,
    yields_in_thread,
)

from streamq import Settings, StreamWriter, open_reader
from streamq.devserver import FAST, TemporalDevServer
from streamq.temporal import StreamqPlugin, find_stream_name, streaming_activity, subscribe
from streamq.testing import CancelReason, outline, record

POLICY = RetryPolicy(initial_interval=timedelta(milliseconds=1), maximum_attempts=2)


@streaming_activity
async def stumble(stream: StreamWriter[str]) -> int:
    await stream.send_chunk("x")
    if stream.attempt == 1:
        raise ValueError("again")
    return stream.attempt


@workflow.defn(sandboxed=False)
class Caller:
    """Calls an activity by name, as the tests' only workflow."""

    @workflow.run
    async def run(self, name: str, args: list[Any]) -> Any:
        return await workflow.execute_activity(
            name,
            args=args,
            start_to_close_timeout=timedelta(seconds=10),
            heartbeat_timeout=timedelta(seconds=3),
            retry_policy=POLICY,
            # Otherwise the workflow ends at once, and the activity is stopped for that reason.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


ACTIVITIES = (
    *(write, write_in_thread, write_and_log, yields, yields_in_thread),
    *(count, count_in_thread, fail, seal_early, stumble, wait),
)


@pytest.fixture(scope="module")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer(dynamic_config=FAST) as server:
        yield server.address


@pytest.fixture
async def worker(
    temporal_address: str, streamq_memory: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Worker]:
    monkeypatch.setenv("STREAMQ_CANCEL_SECONDS", "0.2")
    client = await Client.connect(temporal_address)
    with ThreadPoolExecutor(4) as executor:
        async with Worker(
            client,
            task_queue=uuid.uuid4().hex,
            workflows=[Caller],
            activities=ACTIVITIES,
            activity_executor=executor,
            plugins=[StreamqPlugin()],
        ) as running:
            yield running


async def on_a_server(worker: Worker, name: str, *args: object) -> tuple[list[Any], object]:
    """Return the story of the stream, and the result or what Temporal recorded as failure."""
    handle = await worker.client.start_workflow(
        Caller.run, args=[name, list(args)], id=uuid.uuid4().hex, task_queue=worker.task_queue
    )
    async with subscribe(handle) as events:
        story = outline([event async for event in events])
    try:
        return story, await asyncio.wait_for(handle.result(), 20)
    except WorkflowFailureError as exc:
        return story, _told(getattr(exc.cause, "cause", None))


def _told(failure: BaseException | None) -> tuple[Any, ...]:
    assert isinstance(failure, ApplicationError)
    return failure.type, failure.message.partition("stream ")[0], failure.non_retryable


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (write, ["Oslo"]),
        (write_in_thread, ["Oslo"]),
        (write_and_log, ["Oslo"]),
        (yields, ["Oslo"]),
        (yields_in_thread, ["Oslo"]),
        (count, [3]),
        (count_in_thread, [3]),
        (seal_early, []),
        (fail, ["for good"]),
    ],
)
async def test_one_attempt_is_what_it_is_on_a_server(
    worker: Worker, function: Callable[..., Any], args: list[Any]
) -> None:
    """The same story for readers, and the same result or failure for the workflow."""
    story, outcome = await on_a_server(worker, function.__name__, *args)
    recorded = await record(function, args=args, retry_policy=POLICY)
    shown = recorded.outline
    if function is write_and_log:  # the subscriber has no type for its values
        story = story[-1:]
        shown = shown[-1:]
    assert shown == story
    if recorded.failure is not None:
        assert _told(recorded.failure) == outcome
    else:
        result = recorded.result
        assert outcome == (vars(result) if isinstance(result, Summary) else result)


@pytest.mark.parametrize(
    ("function", "args"), [(stumble, []), (fail, ["at all"]), (fail, ["result"])]
)
async def test_two_attempts_are_what_they_are_on_a_server(
    worker: Worker, function: Callable[..., Any], args: list[Any]
) -> None:
    """The policy ends both after two attempts, and readers see the same of them."""
    story, outcome = await on_a_server(worker, function.__name__, *args)
    recorded = await record(
        function,
        args=args,
        retry_policy=POLICY,
        fail_after=[None, None],
    )
    assert recorded.outline == story
    told = recorded.result if recorded.failure is None else _told(recorded.failure)
    assert told == outcome


@pytest.mark.parametrize(
    ("stop", "reason"),
    [("cancel", CancelReason.REQUESTED), ("terminate", CancelReason.WORKFLOW_ENDED)],
)
async def test_stopped_activity_ends_its_stream_as_on_a_server(
    worker: Worker, stop: str, reason: CancelReason
) -> None:
    """The ending that readers get, and its message."""
    handle = await worker.client.start_workflow(
        Caller.run, args=["wait", []], id=uuid.uuid4().hex, task_queue=worker.task_queue
    )
    found = []
    # Not by a subscription, which may notice the workflow's end before the seal is stored.
    async with open_reader(await find_stream_name(handle)) as events:
        async for event in events:
            found.append(event)
            if event.offset == 2:
                await getattr(handle, stop)()
    recorded = await record(wait, cancel_after=2, cancel_reason=reason)
    assert recorded.outline == outline(found) == ["begins", "waits", "CANCELLED"]
    assert recorded.seal == found[-1]
