"""Tests what a writer's block is left by, beside a plain return, and END that is taken back."""

from __future__ import annotations

import asyncio

import pytest

from streamq import (
    Chunk,
    Encoding,
    Seal,
    SealedError,
    SealState,
    Settings,
    StreamId,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.reading._cursor import Progress
from streamq.testing import Block, FaultyQueue
from streamq.writing._outbox import Outbox


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def seal_of(queue: ChunkQueue, settings: Settings) -> Seal | None:
    async with open_reader("s", queue=queue, settings=settings) as reader:
        [_ async for _ in reader]
        return reader.seal


@pytest.mark.parametrize(
    ("error", "state", "kind", "message"),
    [
        (SystemExit(2), SealState.ERROR, "SystemExit", "2"),
        (BaseExceptionGroup("g", [asyncio.CancelledError()]), SealState.CANCELLED, "", ""),
        (
            BaseExceptionGroup("g", [asyncio.CancelledError(), SystemExit(2)]),
            SealState.ERROR,
            "BaseExceptionGroup",
            "g (2 sub-exceptions)",
        ),
        (Unprintable(), SealState.ERROR, "Unprintable", None),
        (ValueError("caf\udce9"), SealState.ERROR, "ValueError", "caf\\udce9"),
    ],
    ids=["exit", "cancellations", "mixed", "unprintable", "surrogate"],
)
async def test_any_exception_seals(
    queue: ChunkQueue,
    settings: Settings,
    error: BaseException,
    state: SealState,
    kind: str,
    message: str | None,
) -> None:
    """Readers must not wait because an exception is of an unusual class, or has no text."""
    with pytest.raises(type(error)):
        async with open_writer("s", queue=queue, settings=settings):
            raise error
    seal = await seal_of(queue, settings)
    assert seal is not None
    assert (seal.state, seal.error_type) == (state, kind)
    assert "Unprintable" in seal.message if message is None else seal.message == message


async def test_cancelled_while_the_last_chunks_are_stored(
    queue: ChunkQueue, faulty: FaultyQueue, settings: Settings
) -> None:
    """The caller reports a cancellation, so that END, which was not sent, would be wrong."""
    gate = Block()

    async def produce() -> None:
        async with open_writer("s", queue=faulty, settings=settings) as stream:
            faulty.always("append", gate)
            await stream.send_chunk("half")
            await gate.reached()

    producing = asyncio.create_task(produce())
    await gate.reached()
    await asyncio.sleep(0)  # the block is left in this iteration
    producing.cancel()
    await asyncio.sleep(0)
    gate.release()
    with pytest.raises(asyncio.CancelledError):
        await producing
    seal = await seal_of(queue, settings)
    assert seal is not None
    assert seal.state is SealState.CANCELLED


async def test_cancelled_while_batch_mode_stores_its_chunks(
    queue: ChunkQueue, faulty: FaultyQueue
) -> None:
    """Chunks that cannot be called back are followed by END: batch mode has no half story."""
    settings = load_settings(backend="memory", mode="batch")
    gate = Block()

    async def produce() -> None:
        async with open_writer("s", queue=faulty, settings=settings) as stream:
            faulty.always("append", gate)
            for _ in range(24):  # more than one append
                await stream.send_chunk("x" * 100_000)

    producing = asyncio.create_task(produce())
    await gate.reached()
    producing.cancel()
    await asyncio.sleep(0)
    gate.release()
    with pytest.raises(asyncio.CancelledError):
        await producing
    async with open_reader("s", queue=queue, settings=settings) as reader:
        chunks = [event async for event in reader if isinstance(event, Chunk)]
    assert reader.seal is not None
    assert (len(chunks), reader.seal.state) == (24, SealState.END)


async def test_finish_fails_if_its_seal_is_withdrawn(
    queue: ChunkQueue, faulty: FaultyQueue, settings: Settings
) -> None:
    """Whoever waits in another task must not take the stream for complete."""
    gate, left = Block(), asyncio.Event()

    async def produce() -> None:
        async with open_writer("s", queue=faulty, settings=settings) as stream:
            faulty.always("append", gate)
            await stream.send_chunk("half")
            await gate.reached()
            waiting.append(asyncio.create_task(stream.finish()))
            left.set()

    waiting: list[asyncio.Task[None]] = []
    producing = asyncio.create_task(produce())
    await left.wait()
    for _ in range(3):  # both wait for the backend then
        await asyncio.sleep(0)
    producing.cancel()
    await asyncio.sleep(0)
    gate.release()
    with pytest.raises(asyncio.CancelledError):
        await producing
    with pytest.raises(SealedError, match="not sealed END"):
        await waiting[0]


def outbox(*, holds_back: bool = False) -> Outbox:
    return Outbox(
        Progress(1, 1),
        stream=StreamId("t", "s"),
        restarts=False,
        needs_reset=False,
        max_record_bytes=1_000_000,
        holds_back=holds_back,
    )


@pytest.mark.parametrize("chunk", [b"a", b"a" * 2_500_000], ids=["small", "in-parts"])
@pytest.mark.parametrize("holds_back", [False, True])
def test_end_is_taken_back_until_it_is_sent(holds_back: bool, chunk: bytes) -> None:
    """Another ending can take its place, which discards in batch mode what END has released."""
    box = outbox(holds_back=holds_back)
    box.accept(Encoding.BYTES, chunk)
    buffered = box.buffered_bytes
    box.request_seal(SealState.END)
    assert box.withdraw_seal()
    assert box.buffered_bytes == buffered
    box.request_seal(SealState.CANCELLED)
    stored = []
    while not box.is_sealed:
        batch = box.pack()
        assert batch is not None
        stored += [data for each in batch.records for _, data in each.chunks]
        box.acknowledge()
    assert box.seal is not None
    assert (box.seal.state, box.buffered_bytes) == (SealState.CANCELLED, 0)
    assert b"".join(stored) == (b"" if holds_back else chunk)
    assert box.durable_seq == (0 if holds_back else 1)


def test_end_that_was_taken_back_may_be_requested_again() -> None:
    """The chunks that batch mode holds back are stored then, also those that came later."""
    box = outbox(holds_back=True)
    for chunk in (b"a", b"b"):
        box.accept(Encoding.BYTES, chunk)
        box.request_seal(SealState.END)
        assert chunk == b"b" or box.withdraw_seal()
    batch = box.pack()
    assert batch is not None
    assert [data for each in batch.records for _, data in each.chunks] == [b"a", b"b"]
    box.acknowledge()
    assert (box.is_sealed, box.buffered_bytes) == (True, 0)


def test_end_stays_once_a_chunk_that_it_has_released_is_sent() -> None:
    """In batch mode readers get all chunks with END, or none."""
    box = outbox(holds_back=True)
    for _ in range(24):
        box.accept(Encoding.BYTES, b"a" * 100_000)
    box.request_seal(SealState.END)
    while not box.is_sealed:
        batch = box.pack()
        assert batch is not None
        assert not box.withdraw_seal()
        box.acknowledge()
        assert not box.withdraw_seal()
    assert box.seal is not None
    assert (box.seal.state, box.durable_seq, box.buffered_bytes) == (SealState.END, 24, 0)


def test_end_on_its_way_is_not_taken_back() -> None:
    """A reader may have it."""
    box = outbox()
    box.request_seal(SealState.END)
    assert box.pack() is not None
    assert not box.withdraw_seal()
    box.acknowledge()
    assert not box.withdraw_seal()
