"""Checks of appends that travel together: one that fails leaves the others alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streamq import FencedError, StreamqError
from streamq.calling._calls import has_append_many
from streamq.driver import ChunkQueue, ClosedError, StreamAppend, StreamId
from streamq.testing._cancellation import cancel_at_every_await
from streamq.testing._harness import BackendHarness

from ._conditions import needs, requires
from ._promises import promises
from ._records import entries, new_stream, numbered
from ._streams import StreamChecks
from ._verdicts import holds, refuses, same

_STREAMS = 20
_EACH = (
    "ChunkQueue.append_many",
    "Each is an :meth:`append` of its own, and one that fails leaves the others as they are.",
)
_OUTCOMES = (
    "ChunkQueue.append_many",
    "For each append, in order, ``None`` if :meth:`append` would have returned, or else the error "
    "that it would have raised.",
)
_TOGETHER = "the error of one append, or of its request, is taken for that of all"


def _implemented(queue: ChunkQueue) -> None:
    if not has_append_many(queue):
        pytest.skip(f"{queue.backend} has no append_many of its own: the default calls append")


class ManyAppendChecks(StreamChecks):
    """Appends to several streams that travel together are appends of their own."""

    group = "appends together"

    @promises(
        "ChunkQueue.append_many",
        "Make appends to several streams at the same time; return how each of them ended.",
    )
    @promises(*_OUTCOMES)
    @requires("fenced")
    async def test_appends_to_many_streams_are_stored_each_in_order(
        self, queue: ChunkQueue
    ) -> None:
        """A server of chats has a thousand streams, and their texts must not be mixed."""
        _implemented(queue)
        streams = [new_stream() for _ in range(_STREAMS)]
        data = [numbered(6, f"s{at}-") for at in range(_STREAMS)]
        for first, last in ((0, 1), (1, 2), (2, 3), (3, 6)):  # also several entries at once
            await self._append(
                queue,
                [
                    StreamAppend(stream, entries(*data[at][first:last], first=first))
                    for at, stream in enumerate(streams)
                ],
            )
        for stream, expected in zip(streams, data, strict=True):
            await self.expect(queue, stream, expected)

    @promises(*_EACH)
    @promises(*_OUTCOMES)
    @requires("fenced")
    async def test_fenced_append_leaves_those_beside_it_alone(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """One stale attempt among a thousand writers must stop itself only."""
        _implemented(queue)
        beside = [new_stream(), new_stream()]
        await self._append(
            queue, [StreamAppend(each, entries(b"a")) for each in (beside[0], stream, beside[1])]
        )
        await queue.append(stream, entries(b"new", epoch=2))
        outcomes = await queue.append_many(
            [StreamAppend(each, entries(b"b", first=1)) for each in (beside[0], stream, beside[1])]
        )
        same(
            [type(each) for each in outcomes],
            [type(None), FencedError, type(None)],
            "the outcomes of three appends, of which the second is of an older epoch",
            cause=_TOGETHER,
        )
        error = outcomes[1]
        same(
            (getattr(error, "backend", None), getattr(error, "stream", None)),
            (queue.backend, str(stream)),
            "backend and stream of the error",
            cause="the error is made without the stream of its append",
        )
        for each in beside:
            await self.expect(queue, each, [b"a", b"b"], cause=_TOGETHER)
        await self.expect(queue, stream, [b"a", b"new"])

    @promises(
        "ChunkQueue.append_many",
        "every append is left as a cancelled :meth:`append` leaves it",
    )
    @requires("fenced")
    async def test_many_appends_can_be_cancelled_at_any_await(self, queue: ChunkQueue) -> None:
        """Wherever a worker is stopped, repeating stores only what is missing."""
        _implemented(queue)
        streams = [new_stream() for _ in range(3)]
        data: list[bytes] = []

        async def append() -> None:
            at = len(data)
            outcomes = await queue.append_many(
                [StreamAppend(stream, entries(b"%d" % at, first=at)) for stream in streams]
            )
            same(list(outcomes), [None] * len(streams), "the outcomes of three appends")

        async def repeat() -> None:
            await append()
            data.append(b"%d" % len(data))

        await cancel_at_every_await(append, repeat)
        for stream in streams:
            await self.expect(queue, stream, data)

    @promises(*_EACH)
    @needs("break_connections")
    @requires("fenced", "cross_host")
    async def test_many_appends_whose_connection_breaks_can_be_repeated(
        self, queue: ChunkQueue, backend: BackendHarness
    ) -> None:
        """An outage in the middle of a request leaves some streams with the record, and some
        without."""
        _implemented(queue)
        streams = [new_stream() for _ in range(_STREAMS)]
        data = numbered(30)
        for first, item in enumerate(data):
            left = [StreamAppend(stream, entries(item, first=first)) for stream in streams]
            attempt = self.begin(queue.append_many(left))
            if first % 3 == 1:
                await asyncio.sleep(0)
                await backend.break_connections()
            (found,) = await asyncio.gather(attempt, return_exceptions=True)
            outcomes = [found] * len(left) if isinstance(found, BaseException) else found
            for each, outcome in zip(left, outcomes, strict=True):
                holds(
                    outcome is None or (isinstance(outcome, StreamqError) and outcome.retryable),
                    "the outcome of an append whose connection was cut",
                    expected="None, or a retryable error of streamq",
                    seen=outcome,
                )
                if outcome is not None:
                    await self._until_stored(queue, each)
        for stream in streams:
            await self.expect(queue, stream, data)

    @promises(
        "ChunkQueue.append_many",
        "The error of every append, such as ``ClosedError``.",
    )
    async def test_many_appends_of_a_closed_queue_are_refused(self, queue: ChunkQueue) -> None:
        """A writer that outlives its queue has to learn that."""
        _implemented(queue)
        await queue.aclose()
        cause = "append_many does not begin with the check that append begins with"
        with refuses(ClosedError, "append_many of a closed queue", cause=cause):
            await queue.append_many([StreamAppend(new_stream(), entries(b"a"))])

    async def _append(self, queue: ChunkQueue, appends: Sequence[StreamAppend]) -> None:
        __tracebackhide__ = True
        outcomes = await queue.append_many(appends)
        same(list(outcomes), [None] * len(appends), f"the outcomes of {len(appends)} appends")

    async def _until_stored(self, queue: ChunkQueue, append: StreamAppend) -> None:
        await self.until_answered(lambda: queue.append(append.stream, append.entries))
