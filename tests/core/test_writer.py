"""The writer: natural batching, the bounded buffer, endings, faults."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streamq import (
    BackendUnavailableError,
    Chunk,
    ChunkTooLargeError,
    ClosedError,
    ConfigurationError,
    Event,
    Seal,
    SealState,
    SerializationError,
    Settings,
    StreamCancelledError,
    StreamFailedError,
    describe,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.records._wire import Record
from streamq.testing import Block, Fail, FaultyQueue, LoseAcknowledgement

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


async def events_of(name: str, queue: ChunkQueue, settings: Settings) -> list[Event]:
    async with open_reader(name, queue=queue, settings=settings) as reader:
        return [event async for event in reader]


def chunks_in(entry: Entry) -> int:
    return len(Record.decode(entry.data).chunks)


async def test_chunks_and_end_reach_a_reader(queue: ChunkQueue, settings: Settings) -> None:
    """The plain case, with every kind of value."""
    values = ["text", b"bytes", {"a": [1]}, 7, None, ""]
    async with open_writer("s", queue=queue, settings=settings) as stream:
        for value in values:
            await stream.send_chunk(value)
    async with open_reader("s", queue=queue, settings=settings) as reader:
        assert await reader.collect() == values
        assert reader.seal == Seal(7, 1, SealState.END)


async def test_first_chunk_is_sent_at_once_and_the_next_are_packed(
    faulty: FaultyQueue, settings: Settings, eventually: Eventually
) -> None:
    """Natural batching: lowest latency when idle, one round trip for all that came meanwhile."""
    async with open_writer("s", queue=faulty, settings=settings) as stream:
        faulty.calls.clear()
        faulty.always("append", gate := Block())
        await stream.send_chunk("0")
        await eventually(lambda: len(faulty.appends) == 1)
        for i in range(1, 100):
            await stream.send_chunk(str(i))
        assert stream.position == 100
        assert stream.durable_position == 0
        gate.release()
        await stream.flush()
        assert stream.durable_position == 100
    sizes = [[chunks_in(entry) for entry in entries] for entries in faulty.appends]
    assert sizes == [[1], [99], [0]]


async def test_seal_travels_with_the_last_chunks(faulty: FaultyQueue, settings: Settings) -> None:
    """The ending is atomic with the last record: no reader sees all chunks and no end."""
    stream = await open_writer("s", queue=faulty, settings=settings)
    faulty.calls.clear()
    await stream.send_chunk("a")
    await stream.send_chunk("b")
    await stream.finish()
    await stream.aclose()
    assert len(faulty.appends) == 1
    record = Record.decode(faulty.appends[0][0].data)
    assert len(record.chunks) == 2
    assert record.seal is not None


async def test_full_buffer_makes_the_producer_wait_and_loses_nothing(
    faulty: FaultyQueue, settings: Settings, eventually: Eventually
) -> None:
    """A slow backend slows the producer down instead of filling its memory."""
    small = settings.model_copy(update={"buffer_bytes": 1_000})
    stream = await open_writer("s", queue=faulty, settings=small)
    faulty.always("append", gate := Block())

    async def produce() -> None:
        for i in range(50):
            await stream.send_chunk(f"{i:090}")

    producing = asyncio.create_task(produce())
    await eventually(lambda: stream.statistics().waits > 0)
    assert not producing.done()
    assert stream.statistics().buffered_bytes <= 1_000
    gate.release()
    await producing
    await stream.finish()
    await stream.aclose()
    events = await events_of("s", faulty, settings)
    assert [int(str(e.value)) for e in events if isinstance(e, Chunk)] == list(range(50))


async def test_cancelled_wait_for_room_sends_nothing_of_the_chunk(
    faulty: FaultyQueue, settings: Settings, eventually: Eventually
) -> None:
    """After a cancelled send_chunk the producer knows that the chunk was not accepted."""
    small = settings.model_copy(update={"buffer_bytes": 10})
    stream = await open_writer("s", queue=faulty, settings=small)
    faulty.always("append", gate := Block())
    await stream.send_chunk("first")
    second = asyncio.create_task(stream.send_chunk("second"))
    await eventually(lambda: stream.statistics().waits == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.release()
    await stream.finish()
    await stream.aclose()
    events = await events_of("s", faulty, settings)
    assert [e.value for e in events if isinstance(e, Chunk)] == ["first"]


async def test_many_chunks_become_records_of_bounded_size(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A reader with a byte limit must be able to take a little of a large stream."""
    async with open_writer("s", queue=faulty, settings=settings) as stream:
        for _ in range(3_000):
            await stream.send_chunk("x" * 100)
    data = [entry.data for entries in faulty.appends for entry in entries]
    assert max(len(d) for d in data) <= 65_536 + 64
    assert sum(len(d) for d in data) > 300_000


async def test_unserialisable_chunk_leaves_the_stream_usable(
    queue: ChunkQueue, settings: Settings
) -> None:
    """One bad value is the caller's error, not the stream's end; nothing of it is stored."""
    async with open_writer("s", queue=queue, settings=settings) as stream:
        await stream.send_chunk("a")
        with pytest.raises(SerializationError):
            await stream.send_chunk(object())
        await stream.send_chunk("b")
    events = await events_of("s", queue, settings)
    assert [e.value for e in events if isinstance(e, Chunk)] == ["a", "b"]


async def test_chunk_limit_holds_at_the_limit_and_one_past_it(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An oversized chunk is refused before anything of it is stored."""
    small = settings.model_copy(update={"max_chunk_bytes": 100})
    async with open_writer("s", queue=queue, settings=small) as stream:
        await stream.send_chunk("x" * 100)
        with pytest.raises(ChunkTooLargeError, match="101 bytes exceeds the limit of 100"):
            await stream.send_chunk("y" * 101)
    events = await events_of("s", queue, settings)
    assert [e.value for e in events if isinstance(e, Chunk)] == ["x" * 100]


async def test_backend_outage_is_retried_within_the_deadline(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A short outage must not be visible to users."""
    async with open_writer("s", queue=faulty, settings=settings) as stream:
        faulty.script("append", Fail(), Fail())
        await stream.send_chunk("a")
    events = await events_of("s", faulty, settings)
    assert len(events) == 2


async def test_lost_acknowledgement_delivers_nothing_twice(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """The append was stored, the answer was lost, the writer repeats it: readers get it once."""
    async with open_writer("s", queue=faulty, settings=settings) as stream:
        faulty.script("append", LoseAcknowledgement())
        await stream.send_chunk("a")
        await stream.flush()
        await stream.send_chunk("b")
    events = await events_of("s", faulty, settings)
    assert [e.value for e in events if isinstance(e, Chunk)] == ["a", "b"]


async def test_outage_beyond_the_deadline_is_raised_by_every_later_call(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """A dead background task must never go unnoticed."""
    impatient = settings.model_copy(update={"retry_seconds": 0.0})
    stream = await open_writer("s", queue=faulty, settings=impatient)
    faulty.script("append", Fail(BackendUnavailableError("down")))
    await stream.send_chunk("a")
    for call in (stream.flush, stream.finish, lambda: stream.send_chunk("b")):
        with pytest.raises(BackendUnavailableError, match="down"):
            await call()
    await stream.aclose()


async def test_unexpected_driver_error_is_raised_too(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """Even a driver's defect ends in a typed error, not in a writer that waits for ever."""
    stream = await open_writer("s", queue=faulty, settings=settings)
    faulty.script("append", Fail(RuntimeError("defect")))
    await stream.send_chunk("a")
    with pytest.raises(Exception, match=r"append\(\) raised RuntimeError: defect"):
        await stream.flush()
    await stream.aclose()


async def test_exception_seals_error_and_cancellation_seals_cancelled(
    queue: ChunkQueue, settings: Settings
) -> None:
    """However the producer ends, its readers get an ending, after all of its chunks."""

    async def fail() -> None:
        async with open_writer("e", queue=queue, settings=settings) as stream:
            await stream.send_chunk("a")
            raise ValueError("bad row")

    with pytest.raises(ValueError, match="bad row"):
        await fail()
    events = await events_of("e", queue, settings)
    assert events[-1] == Seal(2, 1, SealState.ERROR, "ValueError", "bad row")
    async with open_reader("e", queue=queue, settings=settings) as reader:
        with pytest.raises(StreamFailedError, match="ValueError: bad row"):
            await reader.collect()

    started = asyncio.Event()

    async def produce() -> None:
        async with open_writer("c", queue=queue, settings=settings) as stream:
            await stream.send_chunk("a")
            started.set()
            await asyncio.Event().wait()

    producing = asyncio.create_task(produce())
    await started.wait()
    producing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await producing
    events = await events_of("c", queue, settings)
    assert events[-1] == Seal(2, 1, SealState.CANCELLED)
    async with open_reader("c", queue=queue, settings=settings) as reader:
        with pytest.raises(StreamCancelledError):
            await reader.collect()


async def test_closing_without_a_seal_sends_what_was_accepted(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An attempt that will be retried leaves the stream open and loses nothing it accepted."""
    stream = await open_writer("s", queue=queue, settings=settings)
    await stream.send_chunk("a")
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(ClosedError):
        await stream.send_chunk("b")
    status = await describe("s", queue=queue, settings=settings)
    assert (status.offset, status.seal) == (1, None)


async def test_closing_an_unreachable_writer_is_bounded(
    faulty: FaultyQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shutdown must not hang on a dead backend, and a waiting call gets an error."""
    stream = await open_writer("s", queue=faulty, settings=settings)
    monkeypatch.setattr(stream, "_seal_timeout", 0.05)
    faulty.always("append", Block())
    await stream.send_chunk("a")
    finishing = asyncio.create_task(stream.finish())
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await stream.aclose()
        with pytest.raises(ClosedError):
            await finishing


async def test_writers_of_many_tasks_keep_the_order_of_calls(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Several tasks of one activity may share its stream."""
    sent: list[str] = []
    async with open_writer("s", queue=queue, settings=settings) as stream:

        async def produce(who: str) -> None:
            for i in range(50):
                sent.append(f"{who}{i}")
                await stream.send_chunk(sent[-1])
                await asyncio.sleep(0)

        await asyncio.gather(*(produce(who) for who in "abc"))
    events = await events_of("s", queue, settings)
    assert [e.value for e in events if isinstance(e, Chunk)] == sent


async def test_callers_that_wait_for_room_keep_their_order(
    faulty: FaultyQueue, settings: Settings, eventually: Eventually
) -> None:
    """A small chunk must not overtake a large one that was sent before it."""
    small = settings.model_copy(update={"buffer_bytes": 100})
    stream = await open_writer("s", queue=faulty, settings=small)
    faulty.always("append", gate := Block())
    await stream.send_chunk("first")
    sending = []
    for i, chunk in enumerate(["B" * 95, "small", "C" * 95, "tiny"]):
        sending.append(asyncio.create_task(stream.send_chunk(chunk)))
        await eventually(lambda i=i: stream.statistics().waits == i + 1)  # type: ignore[misc]
    gate.release()
    await asyncio.gather(*sending)
    await stream.finish()
    await stream.aclose()
    events = await events_of("s", faulty, settings)
    values = [str(e.value) for e in events if isinstance(e, Chunk)]
    assert [value[:5] for value in values] == ["first", "BBBBB", "small", "CCCCC", "tiny"]


async def test_cancelled_sender_is_raised_by_every_later_call(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A shutdown that cancels all tasks must not leave a flush waiting for ever."""
    stream = await open_writer("s", queue=queue, settings=settings)
    for task in asyncio.all_tasks():
        if task.get_name().startswith("streamq-writer"):
            task.cancel()
    await stream.wait_stopped()

    async def send() -> None:
        await stream.send_chunk("a")

    for call in (stream.finish, send):
        with pytest.raises(ClosedError, match="was cancelled"):
            await call()
    await stream.aclose()


async def test_writer_owns_only_the_queue_it_opened(settings: Settings) -> None:
    """One call is enough for a script: it opens, seals and closes everything."""
    async with open_reader("s", settings=settings) as reader:
        async with open_writer("s", settings=settings) as stream:
            await stream.send_chunk("a")
        assert await reader.collect() == ["a"]


async def test_bad_stream_name_is_a_configuration_error(settings: Settings) -> None:
    """Nothing is opened for a name that could not be stored."""
    with pytest.raises(ConfigurationError, match="surrogate"):
        await open_writer("a\ud800", settings=settings)
    with pytest.raises(ConfigurationError, match="tenant"):
        await open_writer("a", settings=load_settings(backend="memory", tenant="a b"))


async def test_full_identity_wins_over_the_configured_tenant(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A gateway for several tenants names the tenant itself."""
    identity = StreamId("other", "s")
    async with open_writer(identity, queue=queue, settings=settings) as stream:
        await stream.send_chunk("a")
    assert (await describe(identity, queue=queue, settings=settings)).offset == 2


async def test_waiting_for_the_writer_to_stop_returns_the_reason(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """An activity stops its work, now useless, as soon as its writer has failed."""
    impatient = settings.model_copy(update={"retry_seconds": 0.0})
    stream = await open_writer("s", queue=faulty, settings=impatient)
    faulty.script("append", Fail(BackendUnavailableError("down")))
    await stream.send_chunk("a")
    async with asyncio.timeout(5):
        assert isinstance(await stream.wait_stopped(), BackendUnavailableError)
    await stream.aclose()

    async with open_writer("t", queue=faulty, settings=settings) as stream:
        await stream.finish()
        async with asyncio.timeout(5):
            assert await stream.wait_stopped() is None


async def test_closing_a_writer_that_is_closing_waits_for_it(
    faulty: FaultyQueue, settings: Settings
) -> None:
    """Otherwise the queue is closed while the writer still sends, and accepted chunks are lost."""
    writer = await open_writer("s", queue=faulty, settings=settings)
    gate = Block()
    faulty.script("append", gate)
    await writer.send_chunk("a")
    first, second = (asyncio.create_task(writer.aclose()) for _ in range(2))
    await gate.reached()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    gate.release()
    await asyncio.gather(first, second)
    assert writer.durable_position == 1


async def test_an_ending_releases_the_writers_own_queue(settings: Settings) -> None:
    """If failures are handled elsewhere, a success must not leak a connection either."""
    async with open_writer("s", settings=settings, seals_failures=False) as writer:
        await writer.send_chunk("a")
    with pytest.raises(ClosedError):
        await writer._queue.describe(writer.stream)
