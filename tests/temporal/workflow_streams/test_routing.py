"""Tests the option that routes Workflow Streams of the SDK, on programs that do not know streamq.

Everything that publishes with the SDK's client sends one signal. These places share that kind of
loss, and each has a test here or below ``tests/temporal/integrations``: an activity on a worker
with the option (client made in each of three ways, one call or several, one after the other or at
once, each attempt, a stale one too); an activity on a worker without it; a publisher that belongs
to another workflow; workflow code, through continue-as-new and retries; workflows that host
streamq's ``WorkflowStream`` without the option.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import RetryPolicy
from temporalio.contrib import workflow_streams as original
from temporalio.service import RPCError
from temporalio.worker import Worker
from tests.temporal.support.publishing_workflows import HostsWithoutOption
from tests.temporal.support.routed_workflows import (
    Continues,
    Receives,
    Speaks,
    Speech,
    poll_original,
    speak,
)
from tests.temporal.support.waiting import wait_until

from streamq import CapabilityError, Chunk, ConfigurationError, Reset, Seal, Settings, load_settings
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, subscribe
from streamq.temporal.workflow_streams import WorkflowStreamClient
from streamq.testing import FaultyQueue

Started = Callable[..., Any]


@pytest.fixture
def plugin(queue: ChunkQueue, settings: Settings) -> StreamqPlugin:
    return StreamqPlugin(queue, settings, route_workflow_streams=True)


@pytest.fixture
async def worker(client: Client, plugin: StreamqPlugin, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Speaks, Continues, Receives, HostsWithoutOption],
        activities=[speak],
        plugins=[plugin],
        max_cached_workflows=0,  # so that every workflow task replays the history
    )


@pytest.fixture
def begin(client: Client, task_queue: str) -> Started:
    async def started(run: Any, *args: Any, **options: Any) -> WorkflowHandle[Any, Any]:
        identity = f"routed/{uuid.uuid4().hex}"
        return await client.start_workflow(
            run,
            args=args,
            id=identity,
            task_queue=task_queue,
            execution_timeout=timedelta(seconds=30),
            **options,
        )

    return started


@pytest.fixture
def read(queue: ChunkQueue, settings: Settings) -> Started:
    """Return a function that reads a topic to its seal."""

    async def events_of(handle: WorkflowHandle[Any, Any], topic: str = "words") -> list[Any]:
        async with asyncio.timeout(90):
            async with subscribe(handle, topic, queue=queue, settings=settings) as events:
                return [event async for event in events]

    return events_of


def outline(events: list[Any]) -> list[str]:
    """Return values, ``-`` for a reset, and the state of the seal."""
    text: list[str] = []
    for event in events:
        if isinstance(event, Chunk):
            text.append(event.value)
        else:
            text.append("-" if isinstance(event, Reset) else str(event.state))
    return text


def final(events: list[Any]) -> list[str]:
    """Return the values after the last reset."""
    text = outline(events)
    return text[len(text) - text[::-1].index("-") : -1] if "-" in text else text[:-1]


@pytest.mark.parametrize("way", ["from_within_activity", "create", "handle of the run"])
async def test_nothing_passes_through_temporal(
    worker: Worker, begin: Started, read: Started, way: str
) -> None:
    """The three ways in which integrations make their client."""
    async with worker:
        handle = await begin(Speaks.run, [Speech(["a", "b", "c"], way)], False, "")
        assert outline(await read(handle)) == ["a1", "b1", "c1", "END"]
        assert outline(await read(handle, "notes")) == ["begins", "ends", "END"]
        await handle.result()
        history = await handle.fetch_history()
        assert not [
            event
            for event in history.events
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]


async def test_calls_continue_a_topic_and_a_retry_resets_it(
    worker: Worker, begin: Started, read: Started
) -> None:
    """A retried call voids its own words; those of the calls before it are in the new story."""
    speeches = [Speech(["a", "b"]), Speech(["c", "d", "e"], fail_at=[2]), Speech(["f"])]
    async with worker:
        handle = await begin(Speaks.run, speeches, False, "")
        events = await read(handle)
        assert outline(events) == [
            *("a1", "b1", "c1", "d1", "-", "a1", "b1", "c2", "d2", "e2", "f1", "END")
        ]
        offsets = [event.offset for event in events]
        assert offsets == [*range(1, len(events) + 1)]


async def test_calls_at_once_lose_and_repeat_nothing(
    worker: Worker, begin: Started, read: Started
) -> None:
    """Agents as tools run side by side, and one of them is retried."""
    words = [f"{number} " for number in range(20)]
    speeches = [Speech([f"{name}{word}" for word in words]) for name in "abc"]
    speeches[1].fail_at = [7]
    async with worker:
        handle = await begin(Speaks.run, speeches, True, "")
        events = await read(handle)
        assert outline(events).count("-") == 1
        for speech, attempt in zip(speeches, (1, 2, 1), strict=True):
            told = [each for each in final(events) if each[0] == speech.words[0][0]]
            assert told == [f"{word}{attempt}" for word in speech.words]


@pytest.mark.parametrize(
    ("ending", "state"), [("wait", "CANCELLED"), ("as the test wants", "ERROR")]
)
async def test_topics_end_as_the_workflow_does(
    worker: Worker,
    queue: ChunkQueue,
    settings: Settings,
    begin: Started,
    read: Started,
    ending: str,
    state: str,
) -> None:
    """Every topic has an ending that agrees with what Temporal records."""
    async with worker:
        handle = await begin(Speaks.run, [Speech(["a"])], False, ending)
        async with subscribe(handle, "notes", queue=queue, settings=settings) as reading:
            events = []
            async for event in reading:
                events.append(event)
                if ending == "wait" and isinstance(event, Chunk) and event.value == "ends":
                    await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert outline(events) == ["begins", "ends", state]
        seal = (await read(handle))[-1]
        assert isinstance(seal, Seal)
        assert str(seal.state) == state
        if state == "ERROR":
            assert "as the test wants" in str(seal.message)


async def test_retried_workflow_resets_its_topics(
    worker: Worker, begin: Started, read: Started
) -> None:
    """The attempt that fails ends no stream, and its words are void."""
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=10))
    async with worker:
        handle = await begin(Speaks.run, [Speech(["a"])], False, "once", retry_policy=policy)
        assert outline(await read(handle)) == ["a1", "-", "a1", "END"]
        notes = outline(await read(handle, "notes"))
        assert notes.count("-") == 1
        assert notes[notes.index("-") + 1 :] == ["begins", "ends", "END"]


async def test_continue_as_new_repeats_nothing(
    worker: Worker, begin: Started, read: Started, queue: ChunkQueue, monkeypatch: Any
) -> None:
    """What a run was sending when it continued as new may have arrived."""
    append = queue.append

    async def slow(*args: Any, **options: Any) -> None:
        await asyncio.sleep(0.02)
        await append(*args, **options)

    monkeypatch.setattr(queue, "append", slow)
    async with worker:
        handle = await begin(Continues.run, 1, None)
        expected = [f"{run}.{number}" for run in range(1, 5) for number in range(3)]
        assert outline(await read(handle, "notes")) == [*expected, "END"]


async def test_worker_without_the_option_loses_nothing(
    client: Client, worker: Worker, task_queue: str, begin: Started, read: Started
) -> None:
    """Its activities send signals, and the workflow passes on what it takes."""
    other = f"{task_queue}-other"
    async with Worker(client, task_queue=other, activities=[speak]), worker:
        handle = await begin(Speaks.run, [Speech(["a", "b", "c"], task_queue=other)], False, "")
        assert outline(await read(handle)) == ["a1", "b1", "c1", "END"]


async def test_import_line_alone_loses_nothing(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, begin: Started
) -> None:
    """The row of the field list: an integration's activity, and a workflow with streamq's class."""
    plugin = StreamqPlugin(queue, settings)
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[HostsWithoutOption],
        activities=[speak],
        plugins=[plugin],
    ):
        handle = await begin(HostsWithoutOption.run, ["a", "b"])
        await handle.result()
        reader = WorkflowStreamClient.create(client, handle.id, queue=queue, settings=settings)
        items = [item async for item in reader.subscribe(result_type=str)]
        assert [item.data for item in items if item.topic == "words"] == ["a1", "b1"]
        assert [item.data for item in items if item.topic == "notes"] == ["over"]


async def test_log_has_all_topics_in_one_order(
    client: Client,
    worker: Worker,
    queue: ChunkQueue,
    settings: Settings,
    begin: Started,
    read: Started,
) -> None:
    """Readers written for Workflow Streams get what they are used to, failed attempts too."""
    async with worker:
        handle = await begin(Speaks.run, [Speech(["a", "b"], fail_at=[1])], False, "")
        reader = WorkflowStreamClient.create(client, handle.id, queue=queue, settings=settings)
        found = [item.data async for item in reader.subscribe(result_type=str)]
        assert found[-4:] == ["a1", "a2", "b2", "ends"] or found[-1] == "ends"
        assert sorted(found) == ["a1", "a2", "b2", "begins", "ends"]


async def test_publisher_of_another_workflow_is_passed_on(
    worker: Worker, begin: Started, read: Started
) -> None:
    """It sends a signal to that workflow, which takes it."""
    async with worker:
        host = await begin(Receives.run)
        await (
            await begin(Speaks.run, [Speech(["a"], "create", target=host.id)], False, "")
        ).result()
        await host.signal(Receives.end)
        assert outline(await read(host)) == ["a1", "END"]


async def test_reader_of_the_sdk_is_refused(client: Client, worker: Worker, begin: Started) -> None:
    """Nothing waits in the workflow: a reader that polls it would wait in vain."""
    async with worker:
        handle = await begin(Receives.run)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await poll_original(client, handle.id)
        assert "streamq.temporal.subscribe" in str(caught.value.cause)
        await handle.signal(Receives.end)


async def test_backend_that_does_not_fence_is_refused(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Calls take a stream over from each other, which needs a fence."""
    without = FaultyQueue(queue, capabilities=dataclasses.replace(queue.capabilities, fenced=False))
    worker = Worker(
        client,
        task_queue=task_queue,
        activities=[speak],
        plugins=[StreamqPlugin(without, settings, route_workflow_streams=True)],
    )
    with pytest.raises(CapabilityError, match=r"route_workflow_streams: backend .* offer fenced"):
        await worker.run()


async def test_outage_ends_no_publisher(
    client: Client, queue: ChunkQueue, task_queue: str, begin: Started, read: Started
) -> None:
    """As one of Temporal; two publishers of an activity, and only the batch of one has failed."""
    faulty = FaultyQueue(queue)
    settings = load_settings(backend="memory", retry_seconds=0.1, idle_seconds=20)

    @activity.defn(name="speak")
    async def speak_through_outage(speech: Speech) -> str:
        options: Any = {"batch_interval": timedelta(milliseconds=5)}
        first = original.WorkflowStreamClient.from_within_activity(**options)
        second = original.WorkflowStreamClient.from_within_activity(**options)
        words, failures = first.topic("words", type=str), 0
        words.publish("a")
        await first.flush()
        faulty.take_down()
        words.publish("b")
        while failures < 2:
            try:
                await first.flush()
            except RPCError:
                failures += 1
        faulty.bring_up()
        second.topic("words", type=str).publish("other")
        await second.flush()
        async with first:  # its background task sends
            await wait_until(lambda: not (first._pending or first._buffer))
            faulty.take_down()
            words.publish("c", force_flush=True)
            calls = len(faulty.calls)
            await wait_until(lambda: len(faulty.calls) > calls + 20)
            faulty.bring_up()
            await wait_until(lambda: not (first._pending or first._buffer))
        return ""

    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Speaks],
        activities=[speak_through_outage],
        plugins=[StreamqPlugin(faulty, settings, route_workflow_streams=True)],
    ):
        handle = await begin(Speaks.run, [Speech([])], False, "")
        assert outline(await read(handle)) == ["a", "other", "b", "c", "END"]


@pytest.mark.parametrize("change", ["signal", "item", "state"])
async def test_sdk_that_publishes_otherwise_is_refused(
    client: Client, plugin: StreamqPlugin, task_queue: str, monkeypatch: Any, change: str
) -> None:
    """A worker that would lose what its activities publish does not start."""
    if change == "state":
        monkeypatch.delattr(original.WorkflowStream, "truncate")
    else:
        flush = original.WorkflowStreamClient.flush

        async def changed(self: Any) -> None:
            send = self._handle.signal

            async def sent(name: str, given: Any) -> None:
                given.items[0].topic += "!" if change == "item" else ""
                await send(name + "!" if change == "signal" else name, given)

            self._handle.signal = sent
            await flush(self)

        monkeypatch.setattr(original.WorkflowStreamClient, "flush", changed)
    worker = Worker(client, task_queue=task_queue, activities=[speak], plugins=[plugin])
    with pytest.raises(ConfigurationError, match="publishes in a way that is not known here"):
        await worker.run()
