"""Hundreds of streams, crashes of every kind, and then nothing: not in the backend, not in us."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import random
import sys
import threading
import types
import uuid
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from streamq import (
    Seal,
    Settings,
    StreamWriter,
    load_settings,
    open_queue,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    SweepRequest,
    stream_name,
    streaming_activity,
)
from streamq.temporal.sweeping._activity import sweep_queue

from .backends import Backend

SEED = 20_261_124
TTL_SECONDS = 1.5
SEALED_TTL_SECONDS = 0.5
LONG_SECONDS = 300.0
SLACK_SECONDS = 1.0  # Redis lets a stream live an eighth longer

CRASH = Path(__file__).with_name("crash.py")
CHILDREN = 12
ABANDONED = CANCELLED = 50
CLOSED = OWN_QUEUES = 30
WORKFLOWS = 12
OPEN_FILES = Path("/proc/self/fd")


async def until_none(look: Callable[[], Awaitable[Collection[object]]], seconds: float) -> None:
    """Wait until nothing is left of what takes its time to go; nothing tells when it has."""
    left: Collection[object] = ()
    try:
        async with asyncio.timeout(seconds):
            while left := await look():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{len(left)} left: {sorted(map(str, left))[:20]}") from None


def held() -> set[str]:
    """Return the tasks, threads and open files of this process."""
    found = {f"task {task.get_name()}" for task in asyncio.all_tasks() if not task.done()}
    found |= {
        f"thread {thread.name} {thread.ident}"
        for thread in threading.enumerate()
        if not thread.name.startswith("asyncio_")  # the event loop's own pool, which has a bound
    }
    if OPEN_FILES.exists():
        for place in OPEN_FILES.iterdir():
            with contextlib.suppress(OSError):  # the one that lists the directory
                found.add(f"file {place.name} {place.readlink()}")
    return found


async def crash_processes(prefix: str, seed: int) -> None:
    """Have writers and readers in other processes, and kill -9 them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CRASH), prefix, str(seed), str(CHILDREN), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"children ended before they were killed: {errors.decode()}"


@types.coroutine
def cancelled_at(awaits: int, work: Awaitable[None]) -> Generator[object, None, None]:
    """Do the work in the current task, and cancel that when it waits for the n-th time."""
    inner = work.__await__()
    go_on: Callable[[], object] = functools.partial(inner.send, None)
    while True:
        try:
            waits_for = go_on()
        except StopIteration:
            return
        if awaits == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        awaits -= 1
        try:
            yield waits_for
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is the work's
            go_on = functools.partial(inner.throw, exc)
        else:
            go_on = functools.partial(inner.send, None)


async def abandon_writers(queue: ChunkQueue, settings: Settings, rng: random.Random) -> None:
    """Open writers and use them; close some without a seal, forget the others."""

    async def abandon(i: int) -> None:
        writer = await open_writer(f"abandoned/{i}", queue=queue, settings=settings)
        for _ in range(rng.randrange(4)):
            await writer.send_chunk("x" * rng.randrange(10_000))
        if rng.random() < 0.5:
            await writer.flush()
        if i >= ABANDONED:
            await writer.aclose()

    await asyncio.gather(*(abandon(i) for i in range(ABANDONED + CLOSED)))


async def cancel_openings(queue: ChunkQueue, settings: Settings) -> None:
    """Cancel producers and readers at any moment, many of them while they open."""

    async def produce(name: str) -> None:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            for i in range(20):
                await writer.send_chunk(i)
                await writer.flush()

    async def follow(name: str) -> None:
        async with open_reader(name, queue=queue, settings=settings) as reader:
            async for _ in reader:
                pass

    async def produce_alone(name: str) -> None:
        async with open_writer(name, settings=settings) as writer:  # opens and closes a queue
            await writer.send_chunk("x")

    # At every await in turn; those that have fewer come to their end.
    producers = [cancelled_at(i % 40, produce(f"cancelled/{i}")) for i in range(CANCELLED)]
    producers += [cancelled_at(i, produce_alone(f"alone/{i}")) for i in range(OWN_QUEUES)]
    followers = [
        asyncio.ensure_future(cancelled_at(i % 40, follow(f"cancelled/{i}")))
        for i in range(CANCELLED)
    ]
    ends = await asyncio.gather(*producers, return_exceptions=True)
    for follower in followers:
        follower.cancel()
    ends += await asyncio.gather(*followers, return_exceptions=True)
    unexpected = [end for end in ends if end and not isinstance(end, asyncio.CancelledError)]
    assert not unexpected


async def terminate_workflows(queue: ChunkQueue, settings: Settings, client: Client) -> None:
    """Terminate workflows with their worker and without, and sweep what they leave."""
    began = asyncio.Semaphore(0)

    @streaming_activity
    async def hang(stream: StreamWriter) -> None:
        await stream.send_chunk("x")
        await stream.flush()
        began.release()
        await asyncio.Event().wait()

    task_queue = uuid.uuid4().hex
    plugin = StreamqPlugin(queue, settings)
    handles: list[WorkflowHandle[Any, Any]] = []
    async with Worker(client, task_queue=task_queue, activities=[hang], plugins=[plugin]):
        for _ in range(WORKFLOWS):
            request = StreamRequest("hang", heartbeat_seconds=30)
            name = uuid.uuid4().hex
            handles.append(
                await client.start_workflow(
                    "streamq.Stream", request, id=name, task_queue=task_queue
                )
            )
        for _ in handles:
            await began.acquire()
        await asyncio.gather(*(handle.terminate() for handle in handles[::2]))
    await asyncio.gather(*(handle.terminate() for handle in handles[1::2]))

    async def ending(handle: WorkflowHandle[Any, Any]) -> Seal | None:
        assert handle.first_execution_run_id is not None
        name = stream_name(handle.id, handle.first_execution_run_id)
        async with open_reader(name, queue=queue, settings=settings) as reader:
            async for _ in reader:
                pass
            return reader.seal

    readers = [asyncio.create_task(ending(handle)) for handle in handles]
    # Only these: the other streams have no workflow, or are about to expire.
    summary = await sweep_queue(queue, settings, client, SweepRequest(grace_seconds=0))
    assert summary.failed == 0
    assert summary.running == 0
    assert all(await asyncio.wait_for(asyncio.gather(*readers), 10))


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Let nothing be put away that its owner has forgotten."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
async def test_crashes_of_every_kind_leave_nothing(
    backend: Backend,
    temporal_address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever runs this for a year must not find a full disk, or a worker out of descriptors."""
    caplog.set_level("CRITICAL", "asyncio")  # abandoned tasks are mentioned when they go
    rng = random.Random(SEED)
    monkeypatch.setenv("STREAMQ_TTL_SECONDS", str(TTL_SECONDS))
    monkeypatch.setenv("STREAMQ_SEALED_TTL_SECONDS", str(SEALED_TTL_SECONDS))
    settings = load_settings(idle_seconds=20)
    lasting = settings.model_copy(update={"ttl_seconds": LONG_SECONDS})
    client = await Client.connect(temporal_address)
    await backend.litter()  # makes the test's own connection
    before = held()
    async with open_queue(settings) as queue, open_queue(lasting) as long_queue:
        async with backend.watched(TTL_SECONDS + SLACK_SECONDS):
            crashes = [abandon_writers(queue, settings, rng)]
            crashes += [cancel_openings(queue, settings)]
            if backend.is_shared:
                crashes += [crash_processes("crash", SEED)]
            await asyncio.gather(*crashes)
        assert await backend.remains()
        # Whoever was not abandoned has put everything away, without any help of the collector.
        writers = [task for task in held() - before if "streamq-writer" in task]
        assert all("/abandoned/" in task for task in writers)
        assert len(writers) == ABANDONED
        gc.collect()
        # These would live long: it is the sweep that ends them, and then they expire.
        await terminate_workflows(long_queue, lasting, client)

        async def remains() -> Collection[object]:
            await queue.sweep()
            return await backend.remains()

        await until_none(remains, TTL_SECONDS + 10)

    async def kept_by_us() -> Collection[object]:
        return held() - before

    await until_none(backend.litter, 5)
    await until_none(kept_by_us, 5)
    assert not backend.immortal
    assert backend.samples > 1


WAIT = """
import asyncio, streamq
async def main():
    async with streamq.open_reader("nobody-writes-this") as reader:
        await anext(reader)
asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_sweep_takes_the_doorbells_of_killed_readers_away(backend: Backend) -> None:
    """They are sockets in a directory; where nothing is appended, nobody rings and notices."""

    async def bells() -> list[str]:
        return [name for name in await backend.litter() if name.endswith(".bell")]

    async def none_yet() -> Collection[object]:
        return [] if await bells() else ["no doorbell"]

    async with open_queue() as queue:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", WAIT)
        await until_none(none_yet, 30)
        process.kill()
        await process.wait()
        assert await bells()
        await queue.sweep()
        assert not await bells()
