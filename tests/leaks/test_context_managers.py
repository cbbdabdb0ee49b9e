"""Whatever is entered leaves nothing, wherever and however it is left.

Each use of ``context_managers.py`` is cancelled at every await, of which the opening, the use and
the closing have many: early and late, and then again at every later await; once by a cancel scope
of anyio; it is closed from another task, and twice; it is left to the garbage collector inside a
generator that nobody closes. Afterwards tasks, threads and descriptors are as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import pkgutil
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import load_settings, open_writer
from streamq.temporal import StreamqPlugin, stream_name
from streamq.temporal.workflow_streams import WorkflowStreamClient
from streamq.testing._cancellation import cancel_at_every_await, step

from .context_managers import ELSEWHERE, STREAM, USES, Make, Use, World
from .test_leaks import held, until_none

Call = Callable[[], Coroutine[Any, Any, None]]

_PACKAGES = (
    *("streamq", "streamq_aws", "streamq_kafka", "streamq_postgres", "streamq_redis"),
    *("streamq_s3sns", "streamq_sqs", "streamq_workflow_streams"),
)


@pytest.fixture
async def world(
    tmp_path: Path, temporal_address: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """SQLite: its queues have threads and descriptors, and opening one takes milliseconds."""
    monkeypatch.setenv("STREAMQ_BACKEND", "sqlite")
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    settings = load_settings()
    client = await Client.connect(temporal_address)
    workflow = await client.start_workflow("Unserved", id=uuid.uuid4().hex, task_queue="none")
    run_id = workflow.first_execution_run_id
    assert run_id is not None
    for name in (STREAM, stream_name(workflow.id, run_id)):
        writer = await open_writer(name, settings=settings)
        await writer.send_chunk("hello")
        await writer.aclose()
    async with WorkflowStreamClient.create(client, workflow.id, settings=settings) as log:
        log.topic("topic").publish("hello")
    plugin = StreamqPlugin(settings=settings)
    # Never run: the plugin is called as the SDK calls it around the run.
    queue = uuid.uuid4().hex
    worker = Worker(client, task_queue=queue, activities=[idle], plugins=[plugin])
    yield World(settings, client, workflow, plugin, worker)
    await workflow.terminate()


@activity.defn
async def idle() -> None:
    """Do nothing."""


def _modules(package: str) -> Iterator[ModuleType]:
    root = pytest.importorskip(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def _is_generator(function: object) -> bool:
    return inspect.isasyncgenfunction(getattr(function, "__wrapped__", None))


def _entered(module: ModuleType) -> Iterator[str]:
    """Return what can be entered or closed, by name."""
    for name, found in vars(module).items():
        if getattr(found, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(found):
            returned = str(inspect.signature(found).return_annotation)
            if _is_generator(found) or returned.startswith("Opening["):
                yield f"{module.__name__}.{name}"
        elif inspect.isclass(found):
            closes = inspect.iscoroutinefunction(getattr(found, "close", None))
            if closes or hasattr(found, "__aenter__") or hasattr(found, "aclose"):
                yield f"{module.__name__}.{name}"
            for method, function in vars(found).items():
                if _is_generator(getattr(function, "__func__", function)):
                    yield f"{module.__name__}.{name}.{method}"


def test_nothing_that_can_be_entered_is_forgotten() -> None:
    """The next context manager must be left in every manner, too."""
    found = {name for package in _PACKAGES for each in _modules(package) for name in _entered(each)}
    assert sorted(found - USES.keys() - ELSEWHERE.keys()) == []
    assert sorted(ELSEWHERE.keys() - found) == []


def _is_shared(name: str) -> bool:
    """Whether several tasks may use it: not a generator, which Python lets only one task run."""
    return name.rpartition(".")[2] not in ("serve", "running", "subscribe", "queue_factory")


@pytest.mark.parametrize("name", USES)
async def test_left_by_a_cancel_scope_at_every_await_it_leaves_nothing(
    name: str, world: World
) -> None:
    """Starlette cancels a response wherever it is, and again at every later await."""
    async with leaving(*USES[name], world) as (run, nothing_is_left):
        at = 1
        while await _leave_by_scope(run, at):
            await nothing_is_left()
            at += 1


@pytest.mark.full
@pytest.mark.parametrize("name", USES)
async def test_cancelled_at_every_await_it_leaves_nothing(name: str, world: World) -> None:
    """The result and the cancellation may arrive together, and nobody may cancel again."""
    async with leaving(*USES[name], world) as (run, nothing_is_left):
        await cancel_at_every_await(run, nothing_is_left)
        await cancel_at_every_await(run, nothing_is_left, insists=True)


@contextlib.asynccontextmanager
async def leaving(make: Make, use: Use, world: World) -> AsyncIterator[tuple[Call, Call]]:
    """Give a call that enters, uses and leaves, and one that checks that it has left nothing."""

    async def run() -> None:
        async with make(world) as entered:
            await use(entered)

    await run()
    before = held()

    async def left() -> Collection[object]:
        return held() - before

    async def nothing_is_left() -> None:
        await until_none(left, 5)

    yield run, nothing_is_left


async def _leave_by_scope(run: Call, at: int) -> bool:
    """Cancel a scope of anyio at an await of what runs in it; return whether it was reached."""
    awaits = 0
    with anyio.CancelScope() as scope:

        def on_suspend(_: object) -> None:
            nonlocal awaits
            awaits += 1
            if awaits == at:
                asyncio.get_running_loop().call_soon(scope.cancel)

        await step(run(), on_suspend)
    return awaits >= at


@pytest.mark.parametrize("name", [name for name in USES if _is_shared(name)])
async def test_closed_from_another_task_and_twice_it_leaves_nothing(
    name: str, world: World
) -> None:
    """A shutdown closes what the tasks of requests are using, and so do those tasks."""
    make, use = USES[name]
    async with leaving(make, use, world) as (_, nothing_is_left):
        manager = make(world)
        entered = await asyncio.create_task(manager.__aenter__())

        async def use_on() -> None:
            while True:
                await use(entered)
                await asyncio.sleep(0)

        using = asyncio.create_task(use_on())
        await asyncio.sleep(0)
        await manager.__aexit__(None, None, None)
        await manager.__aexit__(None, None, None)
        if hasattr(entered, "aclose"):
            await asyncio.gather(entered.aclose(), entered.aclose())
        using.cancel()
        await asyncio.wait({using})
        await nothing_is_left()


@pytest.mark.parametrize("name", USES)
async def test_left_to_the_garbage_collector_it_leaves_nothing(name: str, world: World) -> None:
    """Starlette drops the generator of a response if the client goes while it is sent to."""
    make, use = USES[name]

    async def lines() -> AsyncIterator[None]:
        async with make(world) as entered:
            await use(entered)
            yield

    async with contextlib.aclosing(lines()) as first:  # type: ignore[type-var]
        await anext(first)
    before = held()

    async def left() -> Collection[object]:
        return held() - before

    generator = lines()
    await anext(generator)
    del generator
    gc.collect()
    await until_none(left, 5)
