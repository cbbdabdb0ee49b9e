"""Takes a stream over for a new attempt: announces the attempt, then determines where it begins.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from streamq._errors import (
    BackendError,
    CapabilityError,
    FencedError,
    SealedError,
    StreamNotFoundError,
)
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq.driver import ChunkQueue, Entry
from streamq.reading._cursor import Progress
from streamq.reading._sequencer import Sequencer
from streamq.reading._tail import Fold, read_tail
from streamq.records._wire import Record


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an attempt begins.

    Attributes:
        progress: The state that its records are numbered from.
        needs_reset: Whether there are events to void, if the attempt starts over.
    """

    progress: Progress
    needs_reset: bool


async def take_over(
    queue: ChunkQueue, stream: StreamId, opening: Record, retry: RetryPolicy
) -> Beginning:
    """Store the record that opens an attempt; return where the attempt begins.

    The order matters: records that an older attempt added in between would be counted twice.
    A backend that fences stores nothing older after the opening. On one that does not, readers
    ignore older records after the opening, and the records before it are read here up to it.
    Without replay nothing can be read: the attempt starts over, and its only reader counts.

    Raises:
        FencedError: A newer attempt has opened the stream, or another one with the same epoch.
        SealedError: The stream has ended.
        CapabilityError: Attempts cannot be told apart on this backend; or the attempt does not
            start over, and the backend has no replay to continue from.
        StreamqError: The backend failed.
    """
    capabilities = queue.capabilities
    if not capabilities.writable:
        raise CapabilityError(
            f"backend {queue.backend!r} does not fence stale attempts, nor does it keep order, so "
            "that readers could tell them apart; streams cannot be written to it",
            backend=queue.backend,
        )
    entry = Entry(opening.epoch, 0, opening.encode())
    if not capabilities.replay:
        return await _without_replay(queue, stream, entry, opening.restarts, retry)
    take = _with_fence if capabilities.fenced else _with_order
    state, won = await take(queue, stream, entry, retry)
    if won != entry.data:
        raise _superseded(entry, state.epoch, queue, stream)
    return Beginning(state.progress, needs_reset=state.offset > 0)


async def _without_replay(
    queue: ChunkQueue, stream: StreamId, entry: Entry, restarts: bool, retry: RetryPolicy
) -> Beginning:
    """Start over without knowing what was delivered before; only the stream's reader knows."""
    if not restarts:
        raise CapabilityError(
            f"backend {queue.backend!r} does not offer replay: nothing shows where an earlier "
            "attempt stopped; take OnRetry.RESTART, or another backend",
            backend=queue.backend,
            stream=str(stream),
        )

    async def newest_epoch() -> int:
        return await retry.run(lambda: queue.newest_epoch(stream))

    earlier, attempts = await newest_epoch(), 0
    with contextlib.suppress(StreamNotFoundError):
        attempts = (await retry.run(lambda: queue.describe(stream))).attempts or 0
    if earlier >= entry.epoch:
        raise _superseded(entry, earlier, queue, stream)
    await retry.run(lambda: queue.append(stream, [entry]))
    if (newest := await newest_epoch()) != entry.epoch:
        raise _superseded(entry, newest, queue, stream)
    return Beginning(Progress(entry.epoch, attempts + 1), needs_reset=earlier > 0)


def _superseded(entry: Entry, newest: int, queue: ChunkQueue, stream: StreamId) -> FencedError:
    return FencedError(
        f"epoch {entry.epoch} of stream {stream} is superseded or in use by another writer "
        f"(newest is {newest}); stop this attempt",
        backend=queue.backend,
        stream=str(stream),
    )


async def _with_fence(
    queue: ChunkQueue, stream: StreamId, entry: Entry, retry: RetryPolicy
) -> tuple[Sequencer, bytes | None]:
    # Nothing is appended to a sealed stream: another OPEN would renew its time to live.
    with contextlib.suppress(StreamNotFoundError):
        _refuse_sealed((await read_tail(queue, stream, retry)).state, queue, stream)
    await retry.run(lambda: queue.append(stream, [entry]))
    tail = await read_tail(queue, stream, retry)
    _refuse_sealed(tail.state, queue, stream)
    return tail.state, tail.opening


async def _with_order(
    queue: ChunkQueue, stream: StreamId, entry: Entry, retry: RetryPolicy
) -> tuple[Sequencer, bytes | None]:
    fold = Fold(queue, stream, retry)
    await fold.advance()
    _refuse_sealed(fold.state, queue, stream)
    await retry.run(lambda: queue.append(stream, [entry]))
    if not await fold.advance(until=entry.data):
        raise BackendError(
            f"backend {queue.backend!r} has acknowledged the record that opens epoch "
            f"{entry.epoch} of stream {stream}, and does not return it; it may be trimming "
            "the newest records, or its driver reads fewer than are stored",
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
