"""Takes a stream over for a new attempt: announces the attempt, then determines where it begins.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from streamq._errors import (
    BackendError,
    CapabilityError,
    FencedError,
    SealedError,
    StreamNotFoundError,
)
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq.calling import _calls as calling
from streamq.calling._breach import breach
from streamq.driver import ChunkQueue, Entry
from streamq.reading._cursor import Progress
from streamq.reading._sequencer import Sequencer
from streamq.reading._tail import Fold, read_tail
from streamq.records._wire import MAX_EPOCH, Record

from ._epochs import clock_epoch, clock_hint

Store: TypeAlias = Callable[[int], Awaitable[Entry]]
"""Stores the record that opens the attempt, given the newest epoch; returns it."""
_CLOCK_TRIES = 5


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
    queue: ChunkQueue,
    stream: StreamId,
    opening: Record,
    retry: RetryPolicy,
    *,
    is_by_clock: bool = False,
    ttl: timedelta | None = None,
) -> Beginning:
    """Store the record that opens an attempt, with a time to live; return where it begins.

    With ``is_by_clock`` nothing but the clock has made the epoch of ``opening``. It is then raised
    above every epoch of the stream, since another host's clock may be ahead: the attempt that opens
    the stream last wins. The result has the epoch.

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
    for _ in range(_CLOCK_TRIES if is_by_clock else 1):
        beginning = await _try(queue, stream, opening, retry, is_by_clock=is_by_clock, ttl=ttl)
        if beginning is not None:
            return beginning
    raise FencedError(
        f"other writers opened stream {stream} at the same moments, {_CLOCK_TRIES} times; one "
        "writer at a time can write to it",
        backend=queue.backend,
        stream=str(stream),
    )


async def _try(
    queue: ChunkQueue,
    stream: StreamId,
    opening: Record,
    retry: RetryPolicy,
    *,
    is_by_clock: bool,
    ttl: timedelta | None,
) -> Beginning | None:
    """Try once; return ``None`` if another writer has stored the same epoch, and a next may do."""
    capabilities = queue.capabilities

    async def store(newest: int) -> Entry:
        """Store the record, given the newest epoch of the stream; return it."""
        opened = opening
        if is_by_clock and newest < MAX_EPOCH:
            opened = replace(opening, epoch=clock_epoch(newest))
        is_taken = newest == opened.epoch and not capabilities.replay
        if newest > opened.epoch or is_taken:
            raise _superseded(opened.epoch, newest, queue, stream, clock_hint(newest))
        mine = Entry(opened.epoch, 0, opened.encode())
        await retry.run(lambda: calling.append(queue, stream, [mine], ttl=ttl))
        return mine

    if not capabilities.replay:
        return await _without_replay(queue, stream, store, opening.restarts, retry)
    take = _with_fence if capabilities.fenced else _with_order
    try:
        state, won, mine = await take(queue, stream, store, retry)
    except FencedError:
        if is_by_clock:
            return None
        raise
    if state.epoch < mine.epoch:
        raise breach(
            f"the record that opens epoch {mine.epoch} of stream {stream} was acknowledged, and "
            f"then only epoch {state.epoch} found",
            "ChunkQueue.append and ChunkQueue.describe",
            backend=queue.backend,
            stream=stream,
        )
    if won != mine.data:
        if is_by_clock and state.epoch == mine.epoch:
            return None
        raise _superseded(mine.epoch, state.epoch, queue, stream)
    return Beginning(state.progress, needs_reset=state.offset > 0)


async def _without_replay(
    queue: ChunkQueue, stream: StreamId, store: Store, restarts: bool, retry: RetryPolicy
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
        return await retry.run(lambda: calling.known_epoch(queue, stream))

    earlier, attempts = await newest_epoch(), 0
    with contextlib.suppress(StreamNotFoundError):
        attempts = (await retry.run(lambda: calling.describe(queue, stream))).attempts or 0
    mine = await store(earlier)
    newest = await newest_epoch()
    if newest < mine.epoch:
        raise breach(
            f"newest_epoch() returned {newest} although epoch {mine.epoch} has been opened (unless "
            "the stream was deleted at that moment)",
            "ChunkQueue.newest_epoch",
            backend=queue.backend,
            stream=stream,
        )
    if newest != mine.epoch:
        raise _superseded(mine.epoch, newest, queue, stream)
    return Beginning(Progress(mine.epoch, attempts + 1), needs_reset=earlier > 0)


def _superseded(
    epoch: int, newest: int, queue: ChunkQueue, stream: StreamId, hint: str = ""
) -> FencedError:
    return FencedError(
        f"epoch {epoch} of stream {stream} is superseded or in use by another writer "
        f"(newest is {newest}{hint}); stop this attempt",
        backend=queue.backend,
        stream=str(stream),
    )


async def _with_fence(
    queue: ChunkQueue, stream: StreamId, store: Store, retry: RetryPolicy
) -> tuple[Sequencer, bytes | None, Entry]:
    # Nothing is appended to a sealed stream: another OPEN would renew its time to live.
    newest, is_new = 0, True
    with contextlib.suppress(StreamNotFoundError):
        state = (await read_tail(queue, stream, retry)).state
        _refuse_sealed(state, queue, stream)
        newest, is_new = state.epoch, False
    mine = await store(newest)
    tail = await read_tail(queue, stream, retry, is_new=is_new)
    _refuse_sealed(tail.state, queue, stream)
    return tail.state, tail.opening, mine


async def _with_order(
    queue: ChunkQueue, stream: StreamId, store: Store, retry: RetryPolicy
) -> tuple[Sequencer, bytes | None, Entry]:
    fold = Fold(queue, stream, retry)
    await fold.advance()
    _refuse_sealed(fold.state, queue, stream)
    mine = await store(fold.state.epoch)
    if not await fold.advance(until=mine.data):
        raise BackendError(
            f"backend {queue.backend!r} has acknowledged the record that opens epoch "
            f"{mine.epoch} of stream {stream}, and does not return it; it may be trimming "
            "the newest records, or its driver reads fewer than are stored",
            backend=queue.backend,
            stream=str(stream),
        )
    _refuse_sealed(fold.state, queue, stream)
    return fold.state, fold.opening, mine


def _refuse_sealed(state: Sequencer, queue: ChunkQueue, stream: StreamId) -> None:
    if state.seal is not None:
        raise SealedError(
            f"stream {stream} is already sealed {state.seal.state.name}; write to another stream "
            "(or topic), or delete this one first",
            producer=state.sealed_by,
            backend=queue.backend,
            stream=str(stream),
        )
