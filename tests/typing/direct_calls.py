"""Tests streaming activities as their authors do, and checks what type checkers make of it."""

from __future__ import annotations

from typing import Any, assert_type

from activities import (
    Model,
    Question,
    Token,
    generates,
    in_thread,
    keyword_only,
    logs_in_thread,
    object_argument,
    only_writers,
    returns_in_thread,
    text_in_thread,
    three,
    two_first,
    two_in_thread,
    two_last,
    untyped_writer,
    with_default,
    with_options,
    writer_first,
    writer_last,
    yields,
    yields_and_logs,
    yields_and_writes,
    yields_in_thread,
)
from temporalio.testing import ActivityEnvironment

from streamq import BlockingStreamWriter, Event, SealState, StreamWriter
from streamq.testing import (
    CancelReason,
    Recorded,
    RecordedAttempt,
    RecordedStream,
    RecordingWriter,
    record,
    recording_writer,
)


class Double:
    """Takes the place of a writer in a test that needs nothing else of it."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []

    async def send_chunk(self, value: Token) -> None:
        self.tokens.append(value)


async def direct(
    stream: StreamWriter[Token],
    log: StreamWriter[str],
    raw: StreamWriter[bytes],
    anything: StreamWriter,
) -> None:
    assert_type(await writer_last("x", stream=stream), int)
    assert_type(await writer_first("x", stream=stream), int)
    assert_type(await two_last("x", stream=stream, log=log), int)
    assert_type(await two_first("x", stream=stream, log=log), int)
    assert_type(await three("x", stream=stream, log=log, raw=raw), int)
    assert_type(await only_writers(stream=stream, log=log), None)
    assert_type(await keyword_only("x", stream=stream), int)
    assert_type(await with_options("x", stream=stream, log=log), int)
    assert_type(await with_default(Question("x", {}), temperature=0.1, stream=stream), int)
    assert_type(await with_default(Question("x", {}), 0.1, stream=stream), int)
    assert_type(await untyped_writer("x", stream=anything), int)
    assert_type(await yields("x", stream=stream), None)
    assert_type(await generates("x", stream=stream), None)
    assert_type(await yields_and_logs("x", stream=stream, log=log), None)
    assert_type(await yields_and_writes("x", stream=stream, log=log), None)
    await object_argument("x", 1, stream=stream)
    model = Model()
    assert_type(await model.answer("x", stream=stream), int)
    assert_type(await model.answer_and_log("x", stream=stream, log=log), int)
    assert_type(await model.writer_first("x", stream=stream), int)
    assert_type(await model.yields("x", stream=stream), None)
    assert_type(await writer_last("x", stream=Double()), int)
    assert_type(await writer_last("x"), int)


def in_threads(stream: BlockingStreamWriter[Token], log: BlockingStreamWriter[str]) -> None:
    assert_type(in_thread("x", stream=stream), int)
    assert_type(two_in_thread("x", stream=stream, log=log), int)
    assert_type(text_in_thread("x", stream=stream), str)
    assert_type(yields_in_thread("x", stream=stream), None)
    assert_type(returns_in_thread("x", stream=stream), int)
    assert_type(logs_in_thread("x", stream=stream, log=log), int)


async def environment(stream: StreamWriter[Token], log: StreamWriter[str]) -> None:
    run = ActivityEnvironment().run
    assert_type(await run(writer_last, "x", stream=stream), int)
    assert_type(await run(two_last, "x", stream=stream, log=log), int)
    assert_type(await run(yields, "x", stream=stream), None)
    assert_type(await run(Model().answer, "x", stream=stream), int)
    blocking = BlockingStreamWriter(stream)
    assert_type(run(in_thread, "x", stream=blocking), int)


async def recorded() -> None:
    assert_type(await record(writer_last, "x"), Recorded[Token, int])
    assert_type(await record(writer_first, args=["x"]), Recorded[Token, int])
    assert_type(await record(two_last, "x", attempt=2, position=1), Recorded[Token, int])
    assert_type(await record(untyped_writer, "x"), Recorded[Any, int])
    assert_type(await record(in_thread, "x", cancel_after=1), Recorded[Token, int])
    assert_type(await record(text_in_thread, "x", fail_after=[1, None]), Recorded[Token, str])
    assert_type(await record(yields, "x"), Recorded[Token, None])
    assert_type(await record(returns_in_thread, "x"), Recorded[Token, int])
    assert_type(await record(Model().answer, "x"), Recorded[Token, int])
    assert_type(
        await record(writer_last, "x", cancel_after=0, cancel_reason=CancelReason.PAUSED),
        Recorded[Token, int],
    )
    found = await record(writer_last, "x")
    assert_type(found.chunks, list[Token])
    assert_type(found.events, list[Event[Token]])
    assert_type(found.result, int)
    assert_type(found.ending, SealState | None)
    assert_type(found.attempts, list[RecordedAttempt[Token, int]])
    assert_type(found.streams["log"], RecordedStream[Any])


async def recording() -> None:
    async with recording_writer(Token) as stream, recording_writer() as log:
        assert_type(stream, RecordingWriter[Token])
        assert_type(log, RecordingWriter[Any])
        await two_last("x", stream=stream, log=log)
        await untyped_writer("x", stream=log)
        assert_type(stream.chunks, list[Token])
        assert_type(stream.events, list[Event[Token]])
