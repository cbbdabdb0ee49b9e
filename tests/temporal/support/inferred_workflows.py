"""Defines activities whose annotations promise more, or less, than their chunks keep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from temporalio import workflow

from streamq import Chunk, StreamWriter
from streamq.temporal import stream_activity, streaming_activity

T = TypeVar("T")
TIMEOUTS: Any = {
    "start_to_close_timeout": timedelta(minutes=1),
    "heartbeat_timeout": timedelta(seconds=5),
}


@dataclass
class Word:
    text: str


class Spoken(Protocol):
    text: str


class Opaque:
    """A class that no converter knows."""


@streaming_activity
async def objects() -> AsyncIterator[object]:
    yield "text"
    yield {"text": "x"}
    yield b"\xff"


@streaming_activity
async def anything() -> AsyncIterator[Any]:
    yield {"text": "x"}


@streaming_activity
async def unions() -> AsyncIterator[int | Word]:
    yield {"other": "x"}  # type: ignore[misc]
    yield 7


@streaming_activity
async def lists() -> AsyncIterator[list]:  # type: ignore[type-arg]
    yield ["x"]
    yield 5  # type: ignore[misc]


@streaming_activity
async def variables() -> AsyncIterator[list[T]]:
    yield ["x"]  # type: ignore[list-item]
    yield 5  # type: ignore[misc]


@streaming_activity
async def protocols() -> AsyncIterator[Spoken]:
    yield Word("x")


@streaming_activity
async def opaque() -> AsyncIterator[Opaque]:
    yield {"text": "x"}  # type: ignore[misc]


@streaming_activity
async def unfulfilled(stream: StreamWriter[int]) -> None:
    await stream.send_chunk("no number")  # type: ignore[arg-type]
    await stream.send_chunk(b"x")  # type: ignore[arg-type]
    await stream.send_chunk(3)


@streaming_activity
async def written(stream: StreamWriter[object]) -> None:
    await stream.send_chunk([1])


@streaming_activity
def in_thread() -> Iterator[object]:
    yield {"text": "x"}


@streaming_activity
async def kept(stream: StreamWriter[Word]) -> None:
    await stream.send_chunk(Word("x"))


@streaming_activity
async def returning(stream: StreamWriter) -> object:
    return {"text": "x"}


@streaming_activity
async def returning_variable(stream: StreamWriter) -> T:
    return {"text": "x"}  # type: ignore[return-value]


@streaming_activity
async def returning_protocol(stream: StreamWriter) -> Spoken:
    return Word("x")


ACTIVITIES: list[Callable[..., Any]] = [
    objects,
    anything,
    unions,
    lists,
    variables,
    protocols,
    opaque,
    unfulfilled,
    written,
    in_thread,
    kept,
    returning,
    returning_variable,
    returning_protocol,
]


@workflow.defn
class ReadsInferredTypes:
    """Returns the chunks of every activity as their ``repr``."""

    @workflow.run
    async def run(self) -> dict[str, list[str]]:
        found = {}
        for function in ACTIVITIES:
            name = function.__name__
            async with stream_activity(function, topic=name, **TIMEOUTS) as stream:
                found[name] = [repr(e.value) async for e in stream if isinstance(e, Chunk)]
                if name.startswith("returning"):
                    found[name].append(repr(await stream.result()))
        return found


@workflow.defn
class ReadsAnExplicitType:
    """Reads text as numbers, because it says so."""

    @workflow.run
    async def run(self) -> None:
        async with stream_activity(objects, value_type=int, **TIMEOUTS) as stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    repr(event.value)
