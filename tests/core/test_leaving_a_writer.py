"""Tests what a writer's block is left by, beside a plain return, and END that is taken back."""

from __future__ import annotations

import asyncio

import pytest

from streamq import Encoding, Seal, SealState, Settings, StreamId, open_reader, open_writer
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


def outbox(*, holds_back: bool = False) -> Outbox:
    return Outbox(
        Progress(1, 1),
        stream=StreamId("t", "s"),
        restarts=False,
        needs_reset=False,
        max_record_bytes=1_000_000,
        holds_back=holds_back,
    )


@pytest.mark.parametrize("holds_back", [False, True])
def test_end_is_taken_back_until_it_is_sent(holds_back: bool) -> None:
    """Another ending can take its place, and the bytes of the buffer stay counted."""
    box = outbox(holds_back=holds_back)
    box.accept(Encoding.BYTES, b"a")
    box.request_seal(SealState.END)
    assert box.withdraw_seal()
    box.request_seal(SealState.CANCELLED)
    while not box.is_sealed:
        batch = box.pack()
        assert batch is not None
        box.acknowledge()
    assert box.seal is not None
    assert (box.seal.state, box.buffered_bytes) == (SealState.CANCELLED, 0)


def test_end_on_its_way_is_not_taken_back() -> None:
    """A reader may have it."""
    box = outbox()
    box.request_seal(SealState.END)
    assert box.pack() is not None
    assert not box.withdraw_seal()
    box.acknowledge()
    assert not box.withdraw_seal()
