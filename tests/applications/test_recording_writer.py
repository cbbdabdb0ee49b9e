"""Calls activities with a recording writer: it is a real writer, and tells what it has accepted."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    JSONPlainPayloadConverter,
)
from temporalio.testing import ActivityEnvironment
from tests.applications.activities import (
    WORDS,
    Poet,
    Token,
    count,
    fail,
    replay,
    resume,
    seal_early,
    write,
    write_and_log,
    write_in_thread,
    yields,
    yields_in_thread,
)

from streamq import (
    BlockingStreamWriter,
    ChunkTooLargeError,
    OnRetry,
    SealedError,
    SerializationError,
    StreamWriter,
    load_settings,
    open_reader,
)
from streamq.testing import Fail, FaultyQueue, outline, recording_writer

ALL = [f"Oslo {word}" for word in WORDS]


async def test_activity_is_called_with_a_writer_that_records() -> None:
    """The shortest test: three lines, and no worker."""
    async with recording_writer() as stream:
        await write("Oslo", stream=stream)
    assert stream.chunks == ALL
    assert outline(stream.events) == [*ALL, "END"]
    assert isinstance(stream, StreamWriter)


@pytest.mark.parametrize("function", [yields, Poet("").recite])
async def test_other_forms_take_the_same_writer(function: Any) -> None:
    """A generator without a parameter takes ``stream=``, too."""
    async with recording_writer() as stream:
        await function("Oslo", stream=stream)
    assert stream.text == "".join(ALL)


@pytest.mark.parametrize("function", [write_in_thread, yields_in_thread])
async def test_thread_takes_the_blocking_view_of_it(function: Any) -> None:
    """As on a worker, the thread's writer is that of the event loop."""
    async with recording_writer() as stream:
        blocking = BlockingStreamWriter(stream)
        await asyncio.to_thread(function, "Oslo", stream=blocking)
        assert stream.chunks == ALL
    assert outline(stream.events)[-1] == "END"


async def test_each_writer_of_an_activity_records() -> None:
    """And decodes its values as the type that it is given."""
    async with recording_writer(Token) as stream, recording_writer(str) as log:
        await write_and_log("Oslo", stream=stream, log=log)
    assert stream.chunks[0] == Token("Oslo the", 3)
    assert log.chunks == ["begins", "ends"]


async def test_activity_environment_takes_it() -> None:
    """Tests that exist already gain the stream, and keep heartbeats and info of their own."""
    environment = ActivityEnvironment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.append(details)
    environment.info = dataclasses.replace(environment.info, attempt=3, heartbeat_details=[1])
    async with recording_writer(int) as stream:
        assert await environment.run(count, 3, stream=stream) == 3
    assert stream.chunks == [1, 2]
    assert beats == [(2, "counted"), (3, "counted")]


async def test_activity_environment_runs_threads_with_it() -> None:
    """The environment runs a function where it is called, so that the test takes a thread."""

    def run(stream: BlockingStreamWriter[str]) -> Any:
        return ActivityEnvironment().run(write_in_thread, "Oslo", stream=stream)

    async with recording_writer() as stream:
        await asyncio.to_thread(run, BlockingStreamWriter(stream))
    assert stream.chunks == ALL


async def test_cancelled_activity_seals_its_stream_cancelled() -> None:
    """ActivityEnvironment.cancel() ends the block by an exception."""

    async def test() -> None:
        async with recording_writer() as stream:
            found.append(stream)
            await ActivityEnvironment().run(waits, stream)

    async def waits(stream: StreamWriter[str]) -> None:
        await stream.send_chunk("begins")
        activity.heartbeat()
        begun.set()
        await asyncio.Event().wait()

    begun, found = asyncio.Event(), list[Any]()
    task = asyncio.create_task(test())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outline(found[0].events) == ["begins", "CANCELLED"]


async def test_exception_seals_error() -> None:
    """As for any writer that is left so."""
    stream = await recording_writer(str)

    async def test() -> None:
        async with stream:
            await fail("at all", stream=stream)

    with pytest.raises(ValueError, match="no model"):
        await test()
    assert outline(stream.events) == ["begins", "ERROR ValueError: no model"]


async def test_it_refuses_what_the_real_one_refuses() -> None:
    """Too large, not encodable, sealed: no double would find these."""
    async with recording_writer(settings=load_settings(max_chunk_bytes=10)) as stream:
        with pytest.raises(ChunkTooLargeError):
            await stream.send_chunk("x" * 11)
        with pytest.raises(SerializationError):
            await stream.send_chunk(object())
        await stream.send_chunk("x")
    assert stream.chunks == ["x"]
    stream = await recording_writer()
    async with stream:
        with pytest.raises(SealedError):
            await seal_early(stream=stream)
    assert outline(stream.events) == ["all of it", "END"]


@pytest.mark.parametrize("on_retry", OnRetry)
async def test_recorded_events_are_those_that_readers_get(
    streamq_queue: FaultyQueue, on_retry: OnRetry
) -> None:
    """Offsets, attempts and kinds are the ones of the stored stream."""
    earlier = ALL[:2]
    stream = await recording_writer(str, queue=streamq_queue, earlier=earlier, on_retry=on_retry)
    async with stream:
        await (replay if stream.position == 0 else resume)("Oslo", stream=stream)
    async with open_reader(stream.stream, queue=streamq_queue) as reader:
        read = [event async for event in reader]
    kept = 0 if on_retry is OnRetry.RESTART else 2
    assert read[2:] == stream.events
    assert outline(read) == [*earlier, *(["RESET 2"] if not kept else []), *ALL[kept:], "END"]
    assert stream.sent == (ALL[2:] if on_retry is OnRetry.RESUME else ALL)


async def test_values_pass_through_the_given_converter() -> None:
    """What the converter makes of a value is what is recorded."""

    class Shouting(JSONPlainPayloadConverter):
        def to_payload(self, value: Any) -> Payload | None:
            return super().to_payload(str(value).upper())

    class Converter(CompositePayloadConverter):
        def __init__(self) -> None:
            super().__init__(Shouting())

    converter = DataConverter(payload_converter_class=Converter)
    async with recording_writer(str, data_converter=converter) as stream:
        await write("Oslo", stream=stream)
    assert stream.chunks == [each.upper() for each in ALL]


async def test_faults_of_a_queue_reach_the_writer(streamq_queue: FaultyQueue) -> None:
    """An outage that passes costs nothing."""
    streamq_queue.script("append", Fail())
    async with recording_writer(queue=streamq_queue) as stream:
        await write("Oslo", stream=stream)
    assert stream.chunks == ALL
    assert streamq_queue.unused == {}
