"""Workers in other processes, killed without warning, on backends that are shared."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.processes import Shared, worker
from tests.temporal.support.reading import outline
from tests.temporal.support.receiving_workflows import Gateway

from streamq import Chunk, Event, StreamWriter
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe

R = TypeVar("R")


async def in_thread(function: Callable[..., R], *args: Any) -> R:
    """Wait in a thread, but not for ever; what it waits for ends with the worker."""
    return await asyncio.wait_for(asyncio.to_thread(function, *args), 30)


async def test_a_killed_worker_is_followed_by_a_reset_and_the_whole_second_attempt(
    shared: Shared, temporal_address: str, task_queue: str, start: Start
) -> None:
    """kill -9 in the middle: readers see Reset, then everything exactly once, then the end."""
    handle = await start("count", 40, 25, heartbeat_seconds=1)
    events: list[Event] = []
    async with subscribe(handle, queue=shared.queue, settings=shared.settings) as subscription:
        with worker(shared, temporal_address, task_queue) as first:
            async for event in subscription:
                events.append(event)
                if len(events) == 25:
                    first.kill()
                    first.wait()
                    break
        with worker(shared, temporal_address, task_queue):
            events += [event async for event in subscription]
            assert (await handle.result())["result"] == 2
    first_story = [f"1.{i}" for i in range(25)]
    assert outline(events) == [*first_story, "RESET 2", *(f"2.{i}" for i in range(40)), "END"]


async def test_a_process_that_stands_still_before_opening_is_refused_when_it_wakes(
    shared: Shared,
    temporal_address: str,
    task_queue: str,
    run_worker: Run,
    start: Start,
    tmp_path: Path,
) -> None:
    """SIGSTOP, a suspended VM, a long garbage collection: the newer attempt keeps the stream."""
    gate, activities = tmp_path / "gate", f"{task_queue}-activities"
    with worker(shared, temporal_address, activities, "stops") as stale:
        handle = await start("count", 10, 5, str(gate), heartbeat_seconds=1, task_queue=activities)
        async with (
            run_worker(),
            subscribe(handle, queue=shared.queue, settings=shared.settings) as events,
        ):
            _, status = await in_thread(os.waitpid, stale.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            with worker(shared, temporal_address, activities):
                story = [await anext(events) for _ in range(5)]
                stale.send_signal(signal.SIGCONT)
                assert stale.stdout is not None
                assert await in_thread(stale.stdout.readline) == b"refused\n"
                gate.touch()
                story += [event async for event in events]
                assert (await handle.result())["result"] == 2
    assert outline(story) == [*(f"2.{i}" for i in range(10)), "END"]


async def test_worker_and_reader_need_no_common_process(
    shared: Shared, temporal_address: str, task_queue: str, start: Start
) -> None:
    """The usual deployment: a worker here, readers there, a backend between them."""
    handle = await start("count", 100, 0)
    with worker(shared, temporal_address, task_queue):
        async with subscribe(handle, queue=shared.queue, settings=shared.settings) as events:
            chunks = [event.value async for event in events if isinstance(event, Chunk)]
        await handle.result()
    assert chunks == [f"1.{i}" for i in range(100)]


async def forwarded(agent: WorkflowHandle[Any, Any]) -> int:
    """Return how many chunks the next attempt to forward knows to have been sent."""
    pending = (await agent.describe()).raw_description.pending_activities
    for each in pending:
        if each.activity_type.name == "streamq.forward" and each.heartbeat_details.payloads:
            details = await agent._client.data_converter.decode(each.heartbeat_details.payloads)
            return int(details[0]["summary"]["chunks"]) if details else 0
    return 0


async def kill_while_forwarding(
    process: subprocess.Popen[bytes],
    agent: WorkflowHandle[Any, Any],
    target: WorkflowHandle[Any, Any],
    *,
    beyond: int,
) -> int:
    """Kill -9 when more has been sent than Temporal knows of; return how much was received."""

    async def is_behind() -> bool:
        received = len(await target.query(Gateway.told))
        return received > max(beyond, await forwarded(agent))

    async with asyncio.timeout(60):
        while True:
            if await is_behind():
                process.send_signal(signal.SIGSTOP)  # so that it stays so until the kill
                if await is_behind():
                    break
                process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.01)  # a query cannot be waited for
    process.kill()
    process.wait()
    return len(await target.query(Gateway.told))


async def test_a_worker_killed_while_it_forwards_is_seen_by_nobody(
    shared: Shared, temporal_address: str, task_queue: str, client: Client, start: Start
) -> None:
    """kill -9 twice between a signal and its heartbeat: the gateway has each chunk once."""
    may_end = asyncio.Event()

    @streaming_activity
    async def talk(stream: StreamWriter) -> int:
        chunks = 0
        while not may_end.is_set():
            await stream.send_chunk(chunks)
            chunks += 1
            await asyncio.sleep(0.01)
        return chunks

    here = f"{task_queue}-here"
    async with Worker(
        client,
        task_queue=here,
        activities=[talk],
        workflows=[Gateway],
        plugins=[StreamqPlugin(shared.queue, shared.settings)],
    ):
        target = await client.start_workflow(
            Gateway.run, id=f"gw-{uuid.uuid4().hex}", task_queue=here
        )
        agent = await start(
            "talk",
            delivery="signal",
            target_workflow_id=target.id,
            window_seconds=0.05,
            task_queue=here,
        )
        received = 0
        for _ in range(2):
            with worker(shared, temporal_address, task_queue, "forwards") as process:
                received = await kill_while_forwarding(process, agent, target, beyond=received + 10)
        with worker(shared, temporal_address, task_queue, "forwards"):
            may_end.set()
            result = await asyncio.wait_for(agent.result(), 60)
            found = await asyncio.wait_for(target.result(), 60)
        history = await agent.fetch_history()
    chunks = result["result"]
    assert chunks > received
    assert found.told == [*range(chunks), "END"]
    assert found.offsets == [*range(1, chunks + 2)]
    assert (result["chunks"], result["resets"], result["error"]) == (chunks, 0, None)
    digest = hashlib.sha256()
    for i in range(chunks):
        digest.update(len(str(i)).to_bytes(8, "big") + str(i).encode())
    assert result["digest"] == digest.hexdigest()
    attempts = [
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert max(attempts) == 3, "the forwarding activity was not tried again after each kill"
