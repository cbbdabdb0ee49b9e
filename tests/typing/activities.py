"""Declares streaming activities in every shape, and checks what type checkers make of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from temporalio import workflow
from temporalio.client import ActivityHandle, Client
from temporalio.worker import Worker

from streamq import BlockingStreamWriter, Chunk, OnRetry, StreamWriter
from streamq.temporal import (
    ActivityStream,
    StreamOptions,
    StreamqPlugin,
    stream_activity,
    streaming_activity,
)

MINUTE = timedelta(minutes=1)


@dataclass
class Token:
    text: str


@dataclass
class Question:
    text: str
    details: dict[str, Any]


@streaming_activity
async def writer_last(prompt: str, stream: StreamWriter[Token]) -> int:
    await stream.send_chunk(Token(prompt))
    return 1


@streaming_activity
async def writer_first(stream: StreamWriter[Token], prompt: str) -> int:
    await stream.send_chunk(Token(prompt))
    return 1


@streaming_activity
async def two_last(prompt: str, stream: StreamWriter[Token], log: StreamWriter[str]) -> int:
    await log.send_chunk(prompt)
    return 1


@streaming_activity
async def two_first(stream: StreamWriter[Token], log: StreamWriter[str], prompt: str) -> int:
    await log.send_chunk(prompt)
    return 1


@streaming_activity
async def around(stream: StreamWriter[Token], prompt: str, log: StreamWriter[str]) -> int:
    await log.send_chunk(prompt)
    return 1


@streaming_activity
async def three(
    prompt: str, stream: StreamWriter[Token], log: StreamWriter[str], raw: StreamWriter[bytes]
) -> int:
    await raw.send_chunk(b"")
    return 1


@streaming_activity
async def only_writers(stream: StreamWriter[Token], log: StreamWriter[str]) -> None:
    await log.send_chunk("")


@streaming_activity
async def keyword_only(prompt: str, *, stream: StreamWriter[Token]) -> int:
    return 1


@streaming_activity(topic="answer", on_retry=OnRetry.RESUME)
async def with_options(prompt: str, stream: StreamWriter[Token], log: StreamWriter[str]) -> int:
    return 1


@streaming_activity
async def with_default(
    question: Question, stream: StreamWriter[Token], temperature: float = 0.7
) -> int:
    return 1


@streaming_activity
async def untyped_writer(prompt: str, stream: StreamWriter) -> int:
    return 1


@streaming_activity
def in_thread(prompt: str, stream: BlockingStreamWriter[Token]) -> int:
    return 1


@streaming_activity
def two_in_thread(
    prompt: str, stream: BlockingStreamWriter[Token], log: BlockingStreamWriter[str]
) -> int:
    return 1


@streaming_activity
def text_in_thread(prompt: str, stream: BlockingStreamWriter[Token]) -> str:
    return prompt


@streaming_activity
async def yields(prompt: str) -> AsyncIterator[Token]:
    yield Token(prompt)


@streaming_activity
async def generates(prompt: str) -> AsyncGenerator[Token, None]:
    yield Token(prompt)


@streaming_activity
async def yields_and_logs(prompt: str, log: StreamWriter[str]) -> AsyncIterator[Token]:
    yield Token(prompt)


@streaming_activity
async def yields_and_writes(
    prompt: str, stream: StreamWriter[Token], log: StreamWriter[str]
) -> AsyncIterator[Token]:
    yield Token(prompt)


@streaming_activity
def yields_in_thread(prompt: str) -> Iterator[Token]:
    yield Token(prompt)


@streaming_activity
def returns_in_thread(prompt: str) -> Generator[Token, None, int]:
    yield Token(prompt)
    return 1


@streaming_activity
def logs_in_thread(prompt: str, log: BlockingStreamWriter[str]) -> Generator[Token, None, int]:
    yield Token(prompt)
    return 1


@streaming_activity
async def any_argument(prompt: Any, stream: StreamWriter[Token]) -> int:
    return 1


@streaming_activity
async def object_argument(prompt: object, stream: StreamWriter[Token], log: Any) -> int:
    return 1


@streaming_activity
async def yields_for_anything(prompt: str, details: Any) -> AsyncIterator[Token]:
    yield Token(prompt)


class Model:
    @streaming_activity
    async def answer(self, prompt: str, stream: StreamWriter[Token]) -> int:
        return 1

    @streaming_activity
    async def answer_and_log(
        self, prompt: str, stream: StreamWriter[Token], log: StreamWriter[str]
    ) -> int:
        return 1

    @streaming_activity
    async def writer_first(self, stream: StreamWriter[Token], prompt: str) -> int:
        return 1

    @streaming_activity
    async def yields(self, prompt: str) -> AsyncIterator[Token]:
        yield Token(prompt)


@workflow.defn
class Calls:
    @workflow.run
    async def run(self) -> None:
        execute = workflow.execute_activity
        assert_type(await execute(writer_last, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(writer_first, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(two_last, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(two_first, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(around, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(three, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(only_writers, start_to_close_timeout=MINUTE), None)
        assert_type(await execute(keyword_only, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(with_options, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(untyped_writer, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(in_thread, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(two_in_thread, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(text_in_thread, "x", start_to_close_timeout=MINUTE), str)
        assert_type(await execute(yields, "x", start_to_close_timeout=MINUTE), None)
        assert_type(await execute(generates, "x", start_to_close_timeout=MINUTE), None)
        assert_type(await execute(yields_and_logs, "x", start_to_close_timeout=MINUTE), None)
        assert_type(await execute(yields_and_writes, "x", start_to_close_timeout=MINUTE), None)
        assert_type(await execute(yields_in_thread, "x", start_to_close_timeout=MINUTE), None)
        assert_type(await execute(returns_in_thread, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await execute(logs_in_thread, "x", start_to_close_timeout=MINUTE), int)
        # A parameter for any object takes a writer, too, and yet is none.
        await execute(any_argument, "x", start_to_close_timeout=MINUTE)
        await execute(object_argument, args=["x", 1], start_to_close_timeout=MINUTE)
        await execute(yields_for_anything, args=["x", 1], start_to_close_timeout=MINUTE)
        question = Question("x", {})
        assert_type(
            await execute(with_default, args=[question, 0.1], start_to_close_timeout=MINUTE), int
        )
        method = workflow.execute_activity_method
        assert_type(await method(Model.answer, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await method(Model.answer_and_log, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await method(Model.writer_first, "x", start_to_close_timeout=MINUTE), int)
        assert_type(await method(Model.yields, "x", start_to_close_timeout=MINUTE), None)


async def texts(stream: ActivityStream[Token, Any]) -> list[str]:
    async with stream:
        return [event.value.text async for event in stream if isinstance(event, Chunk)]


@workflow.defn
class Reads:
    @workflow.run
    async def run(self) -> None:
        read = stream_activity
        to: StreamOptions = {"start_to_close_timeout": MINUTE}
        assert_type(read(writer_last, "x", **to), ActivityStream[Token, int])
        assert_type(read(writer_first, "x", **to), ActivityStream[Token, int])
        assert_type(read(two_last, "x", **to), ActivityStream[Token, int])
        assert_type(read(two_first, "x", **to), ActivityStream[Token, int])
        assert_type(read(around, "x", **to), ActivityStream[Token, int])
        assert_type(read(three, "x", **to), ActivityStream[Token, int])
        assert_type(read(only_writers, **to), ActivityStream[Token, None])
        assert_type(read(keyword_only, "x", **to), ActivityStream[Token, int])
        assert_type(read(with_options, "x", **to), ActivityStream[Token, int])
        assert_type(read(with_default, "x", **to), ActivityStream[Token, int])
        assert_type(read(untyped_writer, "x", **to), ActivityStream[Any, int])
        assert_type(read(in_thread, "x", **to), ActivityStream[Token, int])
        assert_type(read(two_in_thread, "x", **to), ActivityStream[Token, int])
        assert_type(read(text_in_thread, "x", **to), ActivityStream[Token, str])
        assert_type(read(yields, "x", **to), ActivityStream[Token, None])
        assert_type(read(generates, "x", **to), ActivityStream[Token, None])
        assert_type(read(yields_and_logs, "x", **to), ActivityStream[Token, None])
        assert_type(read(yields_and_writes, "x", **to), ActivityStream[Token, None])
        assert_type(read(yields_in_thread, "x", **to), ActivityStream[Token, None])
        assert_type(read(returns_in_thread, "x", **to), ActivityStream[Token, int])
        assert_type(read(logs_in_thread, "x", **to), ActivityStream[Token, int])
        assert_type(read(Model.answer, "x", **to), ActivityStream[Token, int])
        assert_type(read(Model.answer_and_log, "x", **to), ActivityStream[Token, int])
        assert_type(read(Model.writer_first, "x", **to), ActivityStream[Token, int])
        assert_type(read(Model.yields, "x", **to), ActivityStream[Token, None])
        assert_type(
            read(writer_last, "x", value_type=Question, **to), ActivityStream[Question, int]
        )
        assert_type(read("by name", "x", **to), ActivityStream[Any, Any])
        assert_type(
            read("by name", "x", value_type=Token, result_type=int, **to),
            ActivityStream[Token, int],
        )
        assert_type(read(Model().answer, "x", **to), ActivityStream[Token, int])
        for event in await texts(read(writer_last, "x", **to)):
            assert_type(event, str)


async def runs(client: Client) -> None:
    model = Model()
    Worker(
        client,
        task_queue="work",
        workflows=[Calls, Reads],
        activities=[writer_last, two_last, in_thread, yields, model.answer, model.yields],
        plugins=[StreamqPlugin()],
    )
    assert_type(writer_last.__name__, str)
    # mypy joins the items of a list without a type to object; those of a tuple keep their types.
    many = (writer_last, two_last, yields, model.answer)
    Worker(client, task_queue="work", activities=many)


async def starts_without_a_workflow(client: Client) -> None:
    work: str = "work"
    handle = await client.start_activity(
        writer_last, "x", id="a", task_queue=work, start_to_close_timeout=MINUTE
    )
    assert_type(handle, ActivityHandle[int])
    assert_type(
        await client.execute_activity(
            two_last, "x", id="b", task_queue=work, start_to_close_timeout=MINUTE
        ),
        int,
    )
    in_a_thread = await client.start_activity(
        in_thread, "x", id="c", task_queue=work, start_to_close_timeout=MINUTE
    )
    assert_type(in_a_thread, ActivityHandle[int])
