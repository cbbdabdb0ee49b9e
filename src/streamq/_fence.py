"""How a writer learns that a newer attempt has begun, where the backend refuses nothing."""

from __future__ import annotations

import asyncio
import dataclasses

from ._errors import FencedError, StreamqError
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

    async def look(self) -> None:
        """Ask, if it is time to.

        Raises:
            FencedError: A newer attempt has taken over.
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
            StreamqError: There is no answer.
        """
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
