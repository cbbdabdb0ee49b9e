"""Scripts what happens to an attempt at which of its chunks: failures, cancellations, faults.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._queue_faults import Fail, Fault

_TURNS = 20
"""Turns of the event loop in which a cancellation reaches tasks that the activity awaits."""


class ScriptedError(Exception):
    """Raised by the call of ``send_chunk`` at which ``fail_after`` lets an attempt fail."""


def scripted_error(chunks: int | None) -> ScriptedError:
    """Return the failure of an attempt for which the test gives none."""
    return ScriptedError(f"fail_after={chunks}: this attempt fails by the test's script")


class CancelReason(enum.Enum):
    """Why Temporal, or a newer attempt, stops an attempt."""

    REQUESTED = "the workflow cancelled the activity"
    WORKFLOW_ENDED = "the workflow was terminated, or ended in another way"
    TIMED_OUT = "a timeout of the activity has passed"
    WORKER_SHUTDOWN = "the worker shuts down"
    PAUSED = "an operator paused the activity"
    RESET = "an operator reset the activity"
    SUPERSEDED = "a newer attempt has opened the stream"


@dataclass
class Faults:
    """The backend's faults, by the number of the chunk, counted over all attempts from 1.

    Attributes:
        queue: The queue that fails.
        by_chunk: The fault of the append that stores a chunk. An exception is one that fails once.
        count: How many chunks were sent so far.
    """

    queue: FaultyQueue
    by_chunk: Mapping[int, Fault | Exception]
    count: int = 0

    def next_chunk(self) -> None:
        """Count a chunk that is about to be accepted, and prepare its fault."""
        self.count += 1
        fault = self.by_chunk.get(self.count)
        if fault is not None:
            self.queue.script("append", fault if isinstance(fault, Fault) else Fail(fault))


@dataclass
class Script:
    """What happens to one attempt. Its methods are called where chunks are accepted: any thread.

    Attributes:
        loop: The event loop of the attempt.
        faults: The backend's.
        fail_after: Number of chunks after which it fails.
        fail_with: The failure.
        cancel_after: Number of chunks after which it is cancelled.
        cancel: Cancels it, in the event loop. It returns what has to be awaited, if anything.
        interrupts: Whether that interrupts a thread which waits in a writer.
        has_failed: Whether the failure was raised.
        has_cancelled: Whether it was cancelled.
    """

    loop: asyncio.AbstractEventLoop
    faults: Faults
    fail_after: int | None
    fail_with: BaseException
    cancel_after: int | None
    cancel: Callable[[], Coroutine[Any, Any, None] | None]
    interrupts: bool = True
    has_failed: bool = False
    has_cancelled: bool = False
    _cancelling: asyncio.Task[None] | None = None
    _delays: bool = False
    _thread: int = field(default_factory=threading.get_ident)

    def begins(self) -> None:
        """Cancel an attempt that is to be cancelled before it sends anything."""
        self._cancel_at(0)

    def accepts(self, chunks: int) -> None:
        """Let the attempt fail before its next chunk is accepted.

        Args:
            chunks: How many it has sent before.
        """
        if chunks == self.fail_after and not self.has_failed:
            self.has_failed = True
            raise self.fail_with
        self.faults.next_chunk()

    def accepted(self, chunks: int) -> None:
        """Cancel the attempt once it has sent so many chunks."""
        self._cancel_at(chunks)

    def delay(self) -> Coroutine[Any, Any, None] | None:
        """Return what a call of ``send_chunk`` awaits first, so that it meets the cancellation.

        In a thread that never ends: the call is interrupted.
        """
        if not self._delays:
            return None
        if self.interrupts and threading.get_ident() != self._thread:
            return _forever()
        return self._settled()

    async def returned(self, chunks: int) -> None:
        """Let an attempt fail that has returned after exactly as many chunks as it should send.

        One that is to be cancelled after its last chunk meets the cancellation here. A function in
        a thread has completed then, as it would have before a heartbeat's answer arrives.
        """
        if self._delays:
            await self._settled()
        if chunks == self.fail_after and not self.has_failed:
            self.has_failed = True
            raise self.fail_with

    def _cancel_at(self, chunks: int) -> None:
        if chunks != self.cancel_after or self.has_cancelled:
            return
        self.has_cancelled = self._delays = True
        if threading.get_ident() == self._thread:
            self._begin_to_cancel()
        else:
            self.loop.call_soon_threadsafe(self._begin_to_cancel)

    def _begin_to_cancel(self) -> None:
        rest = self.cancel()
        if rest is not None:
            self._cancelling = self.loop.create_task(rest)

    async def _settled(self) -> None:
        self._delays = False
        if self._cancelling is not None:
            await asyncio.wait([self._cancelling])
        for _ in range(_TURNS):
            await asyncio.sleep(0)


async def _forever() -> None:
    await asyncio.Event().wait()
