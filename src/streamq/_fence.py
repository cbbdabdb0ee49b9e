"""How a writer learns that it writes in vain, where the backend refuses nothing.

A newer attempt has begun, or the stream has been deleted.
"""

from __future__ import annotations

import asyncio
import dataclasses

from ._errors import FencedError, StreamNotFoundError, StreamqError
from ._events import StreamId
from ._retry import RetryPolicy
from .driver import ChunkQueue


class Fence:
    """Asks the backend for the newest epoch: now and then, and before an end is believed.

    Args:
        queue: Where; it does not fence.
        stream: Which stream.
        epoch: The writer's own.
        seconds: How long between two looks.
        retry: How calls are retried where the answer is needed.
    """

    def __init__(
        self, queue: ChunkQueue, stream: StreamId, epoch: int, *, seconds: float, retry: RetryPolicy
    ) -> None:
        self.seconds = seconds
        """How long between two looks."""
        self._queue = queue
        self._stream = stream
        self._epoch = epoch
        self._retry = retry
        self._single_try = dataclasses.replace(retry, deadline_seconds=0.0)
        self._clock = asyncio.get_running_loop().time
        self._next_look = self._clock() + seconds
        # Where all is read from one log, its readers see what has become of the writer's records.
        self._may_vanish = not queue.capabilities.replay
        self._is_missed = False

    async def check_if_due(self) -> None:
        """Ask, if it is time to.

        Raises:
            FencedError: A newer attempt has taken over.
            StreamNotFoundError: The stream is gone, and was at the last look.
            StreamqError: The question can never be answered.
        """
        if self._clock() < self._next_look:
            return
        try:
            await self._check(self._single_try)
        except StreamqError as exc:
            if not exc.retryable:
                raise
            # It cannot be asked. Neither can anything be stored: that is what gives up.

    async def check(self) -> None:
        """Ask, and insist on an answer.

        Raises:
            FencedError: A newer attempt has taken over.
            StreamNotFoundError: The stream is gone.
            StreamqError: There is no answer.
        """
        await self._check(self._retry)
        if self._is_missed:
            await asyncio.sleep(self.seconds)
            await self._check(self._retry)

    async def _check(self, retry: RetryPolicy) -> None:
        newest = await retry.run(lambda: self._queue.newest_epoch(self._stream))
        self._next_look = self._clock() + self.seconds
        if newest > self._epoch:
            raise FencedError(
                f"epoch {newest} has taken over stream {self._stream}; epoch {self._epoch} must "
                "stop",
                backend=self._queue.backend,
                stream=str(self._stream),
            )
        if not self._may_vanish or newest == self._epoch:
            self._is_missed = False
            return
        # The epoch was known when the stream was opened. Once may be a server that lags behind.
        if self._is_missed:
            raise StreamNotFoundError(
                f"stream {self._stream} was deleted, or swept, while epoch {self._epoch} wrote to "
                "it; what was written is gone, start again",
                backend=self._queue.backend,
                stream=str(self._stream),
            )
        self._is_missed = True
