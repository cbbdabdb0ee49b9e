"""Detects that a writer is superseded, on a backend that does not refuse stale appends.

It is superseded once a newer attempt has begun or the stream has been deleted.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import asyncio
import dataclasses

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq.driver import ChunkQueue, fenced_error


class Fence:
    """Queries the backend for the newest epoch: periodically, and before an ending is confirmed.

    Args:
        queue: The backend; it does not fence.
        stream: Which stream.
        epoch: The writer's own epoch.
        seconds: Interval between two checks.
        retry: How calls are retried where the answer is needed.
    """

    def __init__(
        self, queue: ChunkQueue, stream: StreamId, epoch: int, *, seconds: float, retry: RetryPolicy
    ) -> None:
        self.seconds = seconds
        """Interval between two checks."""
        self._queue = queue
        self._stream = stream
        self._epoch = epoch
        self._retry = retry
        self._single_try = dataclasses.replace(retry, deadline_seconds=0.0)
        self._clock = asyncio.get_running_loop().time
        self._next_check = self._clock() + seconds
        # With replay, readers of the log notice by themselves that the writer's records are gone.
        self._may_vanish = not queue.capabilities.replay
        self._is_missed = False

    async def check_if_due(self) -> None:
        """Check if the interval has passed; a failed query is no error.

        Raises:
            FencedError: A newer attempt has taken over.
            StreamNotFoundError: The stream is gone, and was gone at the previous check.
            StreamqError: The query failed for good.
        """
        if self._clock() < self._next_check:
            return
        try:
            await self._check(self._single_try)
        except StreamqError as exc:
            if not exc.retryable:
                raise
            # While the backend is unavailable nothing can be stored either: the append gives up.

    async def check(self) -> None:
        """Check now, with retries.

        Raises:
            FencedError: A newer attempt has taken over.
            StreamNotFoundError: The stream is gone.
            StreamqError: The query failed until the retry deadline.
        """
        await self._check(self._retry)
        if self._is_missed:
            await asyncio.sleep(self.seconds)
            await self._check(self._retry)

    async def _check(self, retry: RetryPolicy) -> None:
        newest = await retry.run(lambda: self._queue.newest_epoch(self._stream))
        self._next_check = self._clock() + self.seconds
        if newest > self._epoch:
            raise fenced_error(self._queue.backend, self._stream, epoch=self._epoch, newest=newest)
        if not self._may_vanish or newest == self._epoch:
            self._is_missed = False
            return
        # The epoch was known when the stream was opened. One miss may be a server that lags behind.
        if self._is_missed:
            raise StreamNotFoundError(
                f"stream {self._stream} was deleted, or swept, while epoch {self._epoch} wrote to "
                "it; what was written is gone, start again",
                backend=self._queue.backend,
                stream=str(self._stream),
            )
        self._is_missed = True
