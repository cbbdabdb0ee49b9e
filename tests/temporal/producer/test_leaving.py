"""Tests every way of leaving a producer: readers get one ending, and Temporal records the same.

Each way is tried in each shape of producer that passes through another place of the code: a
coroutine in the event loop, a function in a thread, both kinds of generator, a method, and a plain
activity that opens its own writer. The workflow outlives the activity, so that nothing but the
activity can end the stream. All of them pass ``producer/_leaving.py``. The generic workflow and
``stream_activity`` call the same activities and get their failures from Temporal, in which they can
be printed and encoded. The quick cases share the ways among the shapes; the others try all.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NoReturn

import pytest
from temporalio import activity
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError
from tests.temporal.support.bench import Bench
from tests.temporal.support.fixture_types import Start
from tests.temporal.support.following_workflows import Follows, Options
from tests.temporal.support.reading import failure_of, outline

from streamq import BlockingStreamWriter, Event, Seal, Settings, StreamWriter, open_writer
from streamq.driver import ChunkQueue
from streamq.temporal import stream_name, streaming_activity

Leave = Callable[[str], Any]
Shape = Callable[[Leave, ChunkQueue, Settings], Any]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Untamed(BaseException):
    """Neither an error nor a cancellation, as some libraries raise for control flow."""


def fail(error: BaseException) -> NoReturn:
    raise error


def fail_in_chain() -> NoReturn:
    try:
        raise Unprintable
    except Unprintable as exc:
        raise ValueError("outer") from exc


def be_killed() -> NoReturn:
    """Raise as code does that stops a thread from outside."""
    thread = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
    while True:
        time.sleep(0)


WAYS: dict[str, Callable[[], Any]] = {
    "error": lambda: fail(ValueError("bad")),
    "killed": be_killed,
    "exit": lambda: sys.exit(2),
    "interrupt": lambda: fail(KeyboardInterrupt()),
    "generator exit": lambda: fail(GeneratorExit()),
    "base": lambda: fail(Untamed("base")),
    "group": lambda: fail(ExceptionGroup("several", [ValueError("a"), TypeError("b")])),
    "base group": lambda: fail(BaseExceptionGroup("several", [SystemExit(2)])),
    "cancelled group": lambda: fail(BaseExceptionGroup("several", [asyncio.CancelledError()])),
    "cancelled": lambda: fail(asyncio.CancelledError()),
    "unprintable": lambda: fail(Unprintable()),
    "unprintable cause": fail_in_chain,
    "surrogate": lambda: fail(ValueError("caf\udce9")),
    "details": lambda: fail(ApplicationError("bad", object(), type="Bad")),
    "final details": lambda: fail(ApplicationError("bad", object(), non_retryable=True)),
    "large failure": lambda: fail(ValueError("x" * 2_200_000)),
    "large details": lambda: fail(ApplicationError("bad", "x" * 2_200_000, type="Bad")),
    "no more": lambda: next(iter(())),
    "result": object,
    "large result": lambda: "x" * 2_200_000,
    "elsewhere": activity.raise_complete_async,
}
"""Ways to leave, by name: each raises, or returns the activity's result."""

NEVER_RETRIED = {"final details", "elsewhere"}
WITHOUT_RESULT = {"result", "large result"}
"""Ways that an async generator does not have, and that a writer of one's own, which ends with its
block, does not see."""


def in_the_loop(leave: Leave, queue: ChunkQueue, settings: Settings) -> Any:
    @streaming_activity
    async def produce(way: str, stream: StreamWriter) -> Any:
        await stream.send_chunk("half")
        return leave(way)

    return produce


def in_a_thread(leave: Leave, queue: ChunkQueue, settings: Settings) -> Any:
    @streaming_activity
    def produce(way: str, stream: BlockingStreamWriter) -> Any:
        stream.send_chunk("half")
        return leave(way)

    return produce


def async_generator(leave: Leave, queue: ChunkQueue, settings: Settings) -> Any:
    @streaming_activity
    async def produce(way: str) -> AsyncIterator[str]:
        yield "half"
        leave(way)

    return produce


def generator(leave: Leave, queue: ChunkQueue, settings: Settings) -> Any:
    @streaming_activity
    def produce(way: str) -> Generator[str, None, Any]:
        yield "half"
        return leave(way)

    return produce


def method(leave: Leave, queue: ChunkQueue, settings: Settings) -> Any:
    class Producer:
        @streaming_activity
        def produce(self, way: str, stream: BlockingStreamWriter) -> Any:
            stream.send_chunk("half")
            return leave(way)

    return Producer().produce


def own_writer(leave: Leave, queue: ChunkQueue, settings: Settings) -> Any:
    @activity.defn
    async def produce(way: str) -> Any:
        info = activity.info()
        name = stream_name(str(info.workflow_id), str(info.workflow_run_id))
        async with open_writer(name, queue=queue, settings=settings) as stream:
            await stream.send_chunk("half")
            return leave(way)

    return produce


SHAPES: list[Shape] = [
    in_the_loop,
    in_a_thread,
    own_writer,
    async_generator,
    generator,
    method,
]


def shown(event: Event | None) -> str:
    return event.error_type if isinstance(event, Seal) else ""


def ways_of(shape: Shape) -> list[str]:
    has_result = shape not in (async_generator, own_writer)
    return [each for each in WAYS if has_result or each not in WITHOUT_RESULT]


def quick_ways_of(shape: Shape) -> list[str]:
    """Return a share of the ways, so that each of them is in that of one shape."""
    found = []
    for number, way in enumerate(WAYS):
        shapes = [each for each in SHAPES if way in ways_of(each)]
        if shapes[number % len(shapes)] is shape:
            found.append(way)
    return found


CASES = [
    *(pytest.param(each, quick_ways_of(each), id=each.__name__) for each in SHAPES),
    *(
        pytest.param(each, ways_of(each), id=f"{each.__name__}-all", marks=pytest.mark.full)
        for each in SHAPES
    ),
]


@pytest.mark.parametrize(("shape", "ways"), CASES)
async def test_whatever_leaves_the_last_attempt_ends_the_stream_as_temporal_records_it(
    bench: Bench, shape: Shape, ways: list[str]
) -> None:
    """Readers must not wait for a producer that has gone, nor see another ending than Temporal."""
    found: dict[str, object] = {}

    async def leave(way: str) -> None:
        try:
            events, outcome = await bench.ending(await bench.start(way, max_attempts=1))
        except Exception as exc:  # noqa: BLE001 - compared with the others below
            found[way] = repr(exc)
            return
        found[way] = (outline(events), outcome.state, shown(events[-1]) == outcome.type)

    async with bench.worker(shape(lambda way: WAYS[way](), bench.queue, bench.settings)):
        await asyncio.gather(*(leave(way) for way in ways))
    assert found == {way: (["half", "ERROR"], "FAILED", True) for way in ways}


@pytest.mark.parametrize(("shape", "ways"), CASES)
async def test_whatever_leaves_an_attempt_that_is_retried_leaves_the_stream_open(
    bench: Bench, shape: Shape, ways: list[str]
) -> None:
    """A stream that is sealed too early loses the next attempt, though Temporal has its result."""
    found: dict[str, object] = {}

    def fail_first(way: str) -> Any:
        return WAYS[way]() if activity.info().attempt == 1 else None

    async def leave(way: str) -> None:
        try:
            events, outcome = await bench.ending(await bench.start(way, max_attempts=3))
        except Exception as exc:  # noqa: BLE001 - compared with the others below
            found[way] = repr(exc)
            return
        found[way] = (outline(events), outcome.state)

    async with bench.worker(shape(fail_first, bench.queue, bench.settings)):
        await asyncio.gather(*(leave(way) for way in ways))
    retried = (["half", "RESET 2", "half", "END"], "COMPLETED")
    final = (["half", "ERROR"], "FAILED")
    assert found == {way: final if way in NEVER_RETRIED else retried for way in ways}


THROUGH_WORKFLOWS = ["exit", "unprintable", "final details", "result", "elsewhere"]


@pytest.mark.parametrize("delivery", ["none", pytest.param("poll", marks=pytest.mark.full)])
async def test_generic_workflow_fails_as_the_stream_ends(
    bench: Bench, start: Start, delivery: str
) -> None:
    """It has code of its own that ends streams, and must not add another ending."""
    found: dict[str, object] = {}

    async def leave(way: str) -> None:
        handle = await start("produce", way, max_attempts=1, delivery=delivery)
        events = await bench.story(handle)
        failure = await failure_of(handle)
        if isinstance(failure, ChildWorkflowError) and isinstance(failure.cause, ActivityError):
            failure = failure.cause.cause
        found[way] = (outline(events), shown(events[-1]) == getattr(failure, "type", None))

    produce = in_the_loop(lambda way: WAYS[way](), bench.queue, bench.settings)
    async with bench.worker(produce):
        await asyncio.gather(*map(leave, THROUGH_WORKFLOWS))
    assert found == dict.fromkeys(THROUGH_WORKFLOWS, (["half", "ERROR"], True))


async def test_workflow_that_reads_the_stream_gets_its_end_and_the_failure(bench: Bench) -> None:
    """``stream_activity`` waits for both, and must not end the stream itself."""
    found: dict[str, object] = {}

    async def leave(way: str) -> None:
        seen = await bench.client.execute_workflow(
            Follows.run,
            args=["produce", [way], Options(max_attempts=1)],
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=bench.task_queue,
        )
        found[way] = (seen[:2], seen[2][0])

    produce = in_the_loop(lambda way: WAYS[way](), bench.queue, bench.settings)
    async with bench.worker(produce):
        await asyncio.gather(*map(leave, THROUGH_WORKFLOWS))
    assert found == dict.fromkeys(THROUGH_WORKFLOWS, (["half", "ERROR"], "failure"))
