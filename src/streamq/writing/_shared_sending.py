"""Hands the batches of all writers of a queue that have one to the driver, in one call.

Design: docs/design/streams-in-one-process.md.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from streamq._errors import BackendUnavailableError, ClosedError, StreamqError, error_text
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, StreamAppend, for_stream

_MOST_APPENDS = 1_000
_MOST_BYTES = 4_194_304
_PLACE = "_streamq_sending"


class Lane(Protocol):
    """A writer's side of the sending."""

    def take(self) -> StreamAppend | None:
        """Return what is to be stored now; ``None`` if there is nothing any more."""

    def begun(self, call: SharedCall) -> None:
        """Note the call that carries what was taken."""

    def ended(self, error: StreamqError | None) -> None:
        """Note how the append has ended."""


class SharedSending:
    """Gathers the writers of one queue that have something to store.

    A writer is on the list from the moment it has something; all that are there when the event
    loop comes round are one call. Several calls may be under way, with other writers each: none
    waits for the answer of another.

    Args:
        call_seconds: Longest time for a call.
    """

    def __init__(self, call_seconds: float) -> None:
        self._call_seconds = call_seconds
        self._ready: list[tuple[ChunkQueue, Lane]] = []
        self._loop = asyncio.get_running_loop()

    def enlist(self, queue: ChunkQueue, lane: Lane) -> None:
        """Take from a writer soon; not again before its append has ended."""
        if not self._ready:
            self._loop.call_soon(self._begin_calls)
        self._ready.append((queue, lane))

    def _begin_calls(self) -> None:
        ready, self._ready = self._ready, []
        lanes: list[Lane] = []
        appends: list[StreamAppend] = []
        size = 0
        queue = ready[0][0]
        for _, lane in ready:
            append = lane.take()
            if append is None:
                continue
            lanes.append(lane)
            appends.append(append)
            size += sum([len(entry.data) for entry in append.entries])
            if size >= _MOST_BYTES or len(lanes) == _MOST_APPENDS:
                SharedCall(queue, lanes, appends, self._call_seconds)
                lanes, appends, size = [], [], 0
        if lanes:
            SharedCall(queue, lanes, appends, self._call_seconds)


class SharedCall:
    """One call of the driver, and the task that makes it.

    Args:
        queue: The queue.
        lanes: The writers.
        appends: What was taken from each.
        seconds: Longest time for the call.
    """

    def __init__(
        self, queue: ChunkQueue, lanes: list[Lane], appends: list[StreamAppend], seconds: float
    ) -> None:
        self._queue = queue
        self._lanes = lanes
        self._appends = appends
        self._seconds = seconds
        self._left = len(lanes)
        for lane in lanes:
            lane.begun(self)  # and so each writer holds the task
        self._task = asyncio.create_task(self._run(), name="streamq-append-many")

    def leave(self) -> asyncio.Task[None] | None:
        """Wait for the call no more; return its task, cancelled, if nobody else waits for it."""
        self._left -= 1
        if self._left or self._task.done():
            return None
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        queue = self._queue
        try:
            async with asyncio.timeout(self._seconds) as patience:
                outcomes = await calling.append_many(queue, self._appends)
        except StreamqError as exc:
            self._fail(exc)
        except TimeoutError as exc:
            self._fail(self._late() if patience.expired() else self._defect(exc))
        except asyncio.CancelledError:
            self._fail(ClosedError("the task that sends the chunks was cancelled"))
            raise
        except Exception as exc:  # noqa: BLE001 - a defect of the driver: raised to every caller
            self._fail(self._defect(exc))
        else:
            for lane, outcome in zip(self._lanes, outcomes, strict=True):
                lane.ended(outcome)

    def _fail(self, error: StreamqError) -> None:
        for lane, append in zip(self._lanes, self._appends, strict=True):
            lane.ended(for_stream(error, str(append.stream), backend=self._queue.backend))

    def _late(self) -> StreamqError:
        return BackendUnavailableError(
            f"backend {self._queue.backend!r} has not answered a call for {self._seconds:g} s "
            "(STREAMQ_OPERATION_SECONDS is the limit)",
            backend=self._queue.backend,
        )

    def _defect(self, exc: Exception) -> StreamqError:
        error = StreamqError(
            f"backend {self._queue.backend!r} failed unexpectedly: {type(exc).__name__}: "
            f"{error_text(exc)}",
            backend=self._queue.backend,
        )
        error.__cause__ = exc
        return error


def shared_sending(queue: ChunkQueue, call_seconds: float) -> SharedSending | None:
    """Return what the writers of a queue share; ``None`` if its driver takes one append at a time.

    Args:
        queue: The queue.
        call_seconds: Longest time for a call.
    """
    if not calling.has_append_many(queue):
        return None
    found: dict[float, SharedSending] = vars(queue).setdefault(_PLACE, {})
    if call_seconds not in found:
        found[call_seconds] = SharedSending(call_seconds)
    return found[call_seconds]
