"""Waits for events of an execution until it has ended, through outages of Temporal.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamq._errors import ProducerGoneError
from streamq._events import StreamId
from streamq._executions import Execution

from ._targets import Target

START_SECONDS = 10.0
"""How long a subscriber waits for a workflow or activity that does not exist yet."""

GRACE_SECONDS = 1.5
"""How long events may take that were in transit when the execution ended."""

R = TypeVar("R")


class UntilClosed:
    """Watches for the end of an execution in a task of its own.

    For one task at a time, which calls :meth:`next`.

    Args:
        target: What is followed.
        execution: The same, found.
        idle_seconds: How long neither an event nor an answer of Temporal may come.
    """

    def __init__(self, target: Target, execution: Execution, idle_seconds: float) -> None:
        self._execution = execution
        self._idle_seconds = idle_seconds
        self._quiet_since = 0.0
        self._waiting: asyncio.Timeout | None = None
        self._patience, closing = target.watch(execution.run_id, self._reschedule)
        self._task = asyncio.create_task(closing, name=f"streamq-watch {execution.id}")
        self._task.add_done_callback(self._on_closed)

    @property
    def is_cancelled(self) -> bool:
        """Whether the watch was ended before the execution."""
        return self._task.cancelled()

    async def next(self, event: Callable[[], Awaitable[R]], subject: str) -> R | None:
        """Return what ``event()`` returns; ``None`` if the execution has ended before.

        Args:
            event: Waits for the next event. It is cancelled when the execution ends.
            subject: What is waited for, for messages.

        Raises:
            StreamqError: Neither an event nor an answer of Temporal has come for ``idle_seconds``.
            BaseException: What ``event()`` raises.
        """
        self._quiet_since = time.monotonic()
        while not self._task.done():
            try:
                # The end of the execution, and an outage of Temporal, reschedule this deadline.
                async with asyncio.timeout(None) as self._waiting:
                    self._reschedule()
                    return await event()
            except TimeoutError:
                if not self._waiting or not self._waiting.expired():
                    raise
            finally:
                self._waiting = None
            patience, seconds = self._patience, self._idle_seconds
            if time.monotonic() >= patience.silence_ends(self._quiet_since, seconds):
                raise patience.silence(subject, seconds) from patience.failure
        return None

    def gone(self, stream: StreamId, *, exists: bool) -> ProducerGoneError:
        """Return the error for a stream that was not sealed when the execution ended.

        Args:
            stream: Which stream.
            exists: Whether there is any such stream.

        Raises:
            StreamqError: The watch has failed.
        """
        status = self._task.result()
        detail = f"without sealing stream {stream}; what was delivered is all there is"
        if not exists:
            detail = (
                f"and there is no stream {stream} here: nothing was streamed under this "
                "topic (did its activity have @streaming_activity?), or the worker writes "
                "elsewhere (compare STREAMQ_BACKEND, its location and "
                "STREAMQ_TENANT on both sides; a relative STREAMQ_SQLITE_PATH counts from each "
                "one's working directory)"
            )
        return ProducerGoneError(
            f"{self._execution} ended ({status}) {detail}", status=status, stream=str(stream)
        )

    async def aclose(self) -> None:
        """End the watch. Idempotent."""
        self._task.cancel()
        await asyncio.wait({self._task})

    def _on_closed(self, watch: asyncio.Task[str]) -> None:
        if not watch.cancelled():
            watch.exception()  # marks it as retrieved; the reader raises it, if it goes on
        self._reschedule()

    def _reschedule(self) -> None:
        """Let the wait for an event end with the execution, or with the patience with Temporal."""
        waiting = self._waiting
        if waiting is None or waiting.expired():
            return
        ends_in = 0.0
        if not self._task.done():
            ends = self._patience.silence_ends(self._quiet_since, self._idle_seconds)
            ends_in = ends - time.monotonic()
        now = asyncio.get_running_loop().time()
        waiting.reschedule(now + ends_in if math.isfinite(ends_in) else None)
