"""Tests what may stand between ``@streaming_activity`` and the function: it works, or says why not.

Decorators with ``functools.wraps`` (as those of tenacity, OpenTelemetry and ``contextlib``),
partials, callable objects and caches are looked through in ``producer/_wrapping.py``, whatever the
kind of the function. What cannot be seen is noticed by what the call returns, in
``producer/_running.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.fixture_types import Start
from tests.temporal.support.reading import failure_of, outline, read_all

from streamq import Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, streaming_activity

Function = Callable[..., Any]


def visible(function: Function) -> Function:
    """Stand for a decorator as most libraries have it."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def hidden(function: Function) -> Function:
    """Stand for a decorator that says nothing of what it wraps."""

    def wrapper(stream: Any, text: str) -> Any:
        return function(stream, text)

    return wrapper


def traced(function: Function) -> Function:
    return trace.get_tracer("test").start_as_current_span("work")(function)


class Blocks(contextlib.ContextDecorator):
    """A context manager that decorates, as ``contextlib`` makes them."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def sends(stream: Any, text: Any) -> Any:
    await stream.send_chunk(text)
    return "done"


def sends_in_a_thread(stream: Any, text: Any) -> Any:
    stream.send_chunk(text)
    return "done"


async def yields(stream: Any, text: Any) -> Any:
    yield text


def yields_in_a_thread(stream: Any, text: Any) -> Any:
    yield text
    return "done"


class Callable_:
    async def __call__(self, text: str, stream: StreamWriter[str]) -> str:
        await stream.send_chunk(text)
        return "done"

    async def method(self, text: str, stream: StreamWriter[str]) -> str:
        return await self(text, stream)


async def with_a_model(stream: StreamWriter[str], text: str, model: str) -> str:
    await stream.send_chunk(f"{text} {model}")
    return "done"


def awaiting(function: Function) -> Function:
    """Stand for a retry of a coroutine function, as tenacity makes it."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


FUNCTIONS = [sends, sends_in_a_thread, yields, yields_in_a_thread]
WORKING: dict[str, Function] = {
    **{f"visible {each.__name__}": visible(each) for each in FUNCTIONS},
    **{f"traced {each.__name__}": traced(each) for each in FUNCTIONS},
    **{f"blocks {each.__name__}": Blocks()(each) for each in FUNCTIONS},
    "twice": visible(awaiting(visible(sends))),
    "partial": functools.partial(with_a_model, model="small"),
    "partial of a wrapper": functools.partial(visible(with_a_model), model="small"),
    "object": Callable_(),
    "bound method": Callable_().method,
    "hidden in a thread": hidden(sends_in_a_thread),
}


def forgotten(stream: Any, text: str) -> Awaitable[str]:
    return sends(stream, text)


async def forgotten_await(stream: StreamWriter, text: str) -> Any:
    return sends(stream, text)


async def hides_async_generator(stream: StreamWriter, text: str) -> Any:
    return yields(stream, text)


def hides_generator(stream: Any, text: str) -> Iterator[str]:
    return (each for each in [text])


BROKEN: dict[str, Function] = {
    "hidden coroutine": hidden(sends),
    "hidden async generator": hidden(yields),
    "hidden generator": hidden(yields_in_a_thread),
    "forgotten": forgotten,
    "forgotten await": forgotten_await,
    "returned async generator": hides_async_generator,
    "returned generator": hides_generator,
}


@pytest.fixture
def run(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> Callable[[dict[str, Function]], Worker]:
    def run(functions: dict[str, Function]) -> Worker:
        return Worker(
            client,
            task_queue=task_queue,
            activities=[streaming_activity(name=name)(each) for name, each in functions.items()],
            activity_executor=ThreadPoolExecutor(8),
            plugins=[StreamqPlugin(queue, settings)],
        )

    return run


async def test_wrapped_function_streams_as_the_function_does(
    run: Callable[[dict[str, Function]], Worker],
    start: Start,
    queue: ChunkQueue,
    settings: Settings,
) -> None:
    """Tracing, retries and configured objects are everyday code around a producer."""
    found = {}

    async def stream(name: str) -> None:
        handle = await start(name, "word", max_attempts=1)
        found[name] = outline(await read_all(handle, queue, settings))

    async with run(WORKING):
        await asyncio.gather(*map(stream, WORKING))
    assert found == {
        name: ["word small" if "partial" in name else "word", "END"] for name in WORKING
    }


async def test_function_that_returns_what_has_not_run_is_named(
    run: Callable[[dict[str, Function]], Worker],
    start: Start,
    queue: ChunkQueue,
    settings: Settings,
) -> None:
    """Otherwise the stream ends without a chunk and the workflow succeeds: nobody looks further."""
    found: dict[str, object] = {}

    async def stream(name: str) -> None:
        handle = await start(name, "word")
        failure = await failure_of(handle)
        assert isinstance(failure, ApplicationError)
        place = BROKEN[name].__code__.co_qualname
        found[name] = (
            outline(await read_all(handle, queue, settings)),
            failure.type,
            failure.non_retryable,
            repr(place) in failure.message and __file__ in failure.message,
        )

    async with run(BROKEN):
        await asyncio.gather(*map(stream, BROKEN))
    assert found == {name: (["ERROR"], "ConfigurationError", True, True) for name in BROKEN}


def test_what_cannot_be_decorated_is_refused_with_the_remedy() -> None:
    """The order of two decorators is easily confused."""
    with pytest.raises(TypeError, match="put @staticmethod above"):
        streaming_activity(staticmethod(sends))
    with pytest.raises(TypeError, match="not Callable_"):
        streaming_activity(Callable_)


async def test_async_iterator_without_aclose_streams(
    run: Callable[[dict[str, Function]], Worker],
    start: Start,
    queue: ChunkQueue,
    settings: Settings,
) -> None:
    """A decorator may return an iterator of its own instead of the generator."""

    class Loud:
        def __init__(self, chunks: AsyncIterator[str]) -> None:
            self._chunks = chunks

        def __aiter__(self) -> Loud:
            return self

        async def __anext__(self) -> str:
            return (await anext(self._chunks)).upper()

    @functools.wraps(yields)
    def louder(stream: Any, text: str) -> Loud:
        return Loud(yields(stream, text))

    async with run({"louder": louder}):
        handle = await start("louder", "word", max_attempts=1)
        assert outline(await read_all(handle, queue, settings)) == ["WORD", "END"]
