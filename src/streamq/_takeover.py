"""Taking a stream over: announce the attempt first, then learn where it has to go on."""

from __future__ import annotations

import contextlib

from ._cursor import Progress
from ._errors import BackendError, FencedError, SealedError, StreamNotFoundError
from ._events import StreamId
from ._retry import RetryPolicy
from ._sequencer import Sequencer
from ._tail import Fold, check_writable, read_tail
from ._wire import Record
from .driver import ChunkQueue, Entry


async def take_over(
    queue: ChunkQueue, stream: StreamId, opening: Record, retry: RetryPolicy
) -> Progress:
    """Store the record that opens an attempt; return where the attempt begins.

    Never the other way round: what an older attempt added in between would be counted twice.
    A backend that fences lets nothing older in after the record. Elsewhere, nothing older counts
    after it, and what came before it is read up to it.

    Raises:
        FencedError: A newer attempt has opened the stream, or another one with the same epoch.
        SealedError: The stream has ended.
        CapabilityError: Nobody could tell attempts apart on this backend.
        StreamqError: The backend failed.
    """
    check_writable(queue)
    entry = Entry(opening.epoch, 0, opening.encode())
    take = _by_the_backend if queue.capabilities.fenced else _by_the_order
    state, won = await take(queue, stream, entry, retry)
    if won != entry.data:
        raise FencedError(
            f"epoch {entry.epoch} of stream {stream} is superseded or in use by another writer "
            f"(newest is {state.epoch}); stop this attempt",
            backend=queue.backend,
            stream=str(stream),
        )
    return state.progress


async def _by_the_backend(
    queue: ChunkQueue, stream: StreamId, entry: Entry, retry: RetryPolicy
) -> tuple[Sequencer, bytes | None]:
    # A stream that has ended is left alone: another OPEN would renew its time to live.
    with contextlib.suppress(StreamNotFoundError):
        _refuse_sealed((await read_tail(queue, stream, retry)).state, queue, stream)
    await retry.run(lambda: queue.append(stream, [entry]))
    tail = await read_tail(queue, stream, retry)
    _refuse_sealed(tail.state, queue, stream)
    return tail.state, tail.opening


async def _by_the_order(
    queue: ChunkQueue, stream: StreamId, entry: Entry, retry: RetryPolicy
) -> tuple[Sequencer, bytes | None]:
    fold = Fold(queue, stream, retry)
    await fold.advance()
    _refuse_sealed(fold.state, queue, stream)
    await retry.run(lambda: queue.append(stream, [entry]))
    if not await fold.advance(until=entry.data):
        raise BackendError(
            f"backend {queue.backend!r} has acknowledged the record that opens epoch "
            f"{entry.epoch} of stream {stream}, and does not give it back; it may be trimming "
            "what is newest, or its driver reads less than is stored",
            backend=queue.backend,
            stream=str(stream),
        )
    _refuse_sealed(fold.state, queue, stream)
    return fold.state, fold.opening


def _refuse_sealed(state: Sequencer, queue: ChunkQueue, stream: StreamId) -> None:
    if state.seal is not None:
        raise SealedError(
            f"stream {stream} is already sealed {state.seal.state.name}; write to another stream "
            "(or topic), or delete this one first",
            producer=state.sealed_by,
            backend=queue.backend,
            stream=str(stream),
        )
