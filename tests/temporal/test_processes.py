"""Workers in other processes, killed without warning, on backends that are shared."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from streamq import Chunk, Event, Settings, load_settings
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import subscribe

from .conftest import Run, Start
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
