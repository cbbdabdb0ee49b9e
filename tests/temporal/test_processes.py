"""Workers in other processes, killed without warning, on backends that are shared."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from streamq import Chunk, Event, Settings, StreamWriter, load_settings
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe

from .conftest import Run, Start
from .receivers import Gateway
from .test_streaming import told

_SCRIPT = Path(__file__).with_name("worker_process.py")
R = TypeVar("R")

_OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


@dataclass
class Shared:
    """A backend that several processes see."""

    queue: ChunkQueue
    settings: Settings
    environment: dict[str, str]


@pytest.fixture(params=["sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    settings = load_settings(backend=request.param, idle_seconds=30)
    environment = {"STREAMQ_BACKEND": request.param}
    if request.param == "sqlite":
        path = tmp_path / "streams.db"
        async with await SqliteDriver.open(_OPTIONS, SqliteSettings(path=path)) as queue:
            yield Shared(queue, settings, environment | {"STREAMQ_SQLITE_PATH": str(path)})
        return
    pytest.importorskip("streamq_redis")
    from streamq_redis import RedisDriver, RedisSettings
    from streamq_redis.embedded import EmbeddedRedis

    with EmbeddedRedis() as server:
        async with await RedisDriver.open(
            _OPTIONS, RedisSettings(url=SecretStr(server.url))
        ) as queue:
            yield Shared(queue, settings, environment | {"STREAMQ_REDIS_URL": server.url})


@contextmanager
def worker(
    shared: Shared, address: str, task_queue: str, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | shared.environment
    command = [sys.executable, str(_SCRIPT), address, task_queue, *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


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
    assert told(events) == [*first_story, "RESET 2", *(f"2.{i}" for i in range(40)), "END"]


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
    assert told(story) == [*(f"2.{i}" for i in range(10)), "END"]


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
