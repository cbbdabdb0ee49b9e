"""Retries calls to the backend with jittered backoff and a deadline. Drivers never retry.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ._errors import BackendUnavailableError, StreamqError

T = TypeVar("T")

_logger = logging.getLogger("streamq")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How transient backend failures are retried, and how long a single call may take.

    Attributes:
        deadline_seconds: Give up once this long has passed since the first failure.
        call_seconds: A call that takes longer is cancelled and counts as a failure, so that a
            defective driver or connection makes no caller wait for ever.
        backend: Name of the backend, for messages.
        stream: The stream concerned, if it is a single one, for messages.
        first_seconds: Longest pause before the first retry; doubles each time.
        longest_seconds: Longest pause at all.
    """

    deadline_seconds: float = 30.0
    call_seconds: float = math.inf
    backend: str | None = None
    stream: str | None = None
    first_seconds: float = 0.02
    longest_seconds: float = 1.0

    async def run(
        self,
        operation: Callable[[], Awaitable[T]],
        *,
        wait_seconds: float = 0.0,
        only: type[StreamqError] = StreamqError,
    ) -> T:
        """Repeat ``operation()`` while it fails with a retryable error.

        The pause is uniform between half and all of the current limit, so that the many clients of
        a restarted server do not reconnect all at once.

        Args:
            operation: Makes the call.
            wait_seconds: How long the call may block by request, in addition to ``call_seconds``.
            only: Retry errors of this class only.

        Raises:
            StreamqError: The last error, once the deadline has passed; any other error at once.
        """
        limit, give_up = self.first_seconds, 0.0
        clock = asyncio.get_running_loop().time
        while True:
            try:
                result = await self._call(operation, wait_seconds)
                if give_up:
                    _logger.info("the backend answers again")
                return result
            except StreamqError as exc:
                if not exc.retryable or not isinstance(exc, only):
                    raise
                now = clock()
                if not give_up:
                    give_up = now + self.deadline_seconds
                    if self.deadline_seconds:
                        _logger.warning("%s; trying again for %g s", exc, self.deadline_seconds)
                if now >= give_up:
                    raise
                pause = min(limit * random.uniform(0.5, 1.0), give_up - now)
            await asyncio.sleep(pause)
            limit = min(limit * 2, self.longest_seconds)

    async def _call(self, operation: Callable[[], Awaitable[T]], wait_seconds: float) -> T:
        if self.call_seconds == math.inf:
            return await operation()
        try:
            async with asyncio.timeout(self.call_seconds + wait_seconds) as patience:
                return await operation()
        except TimeoutError as exc:
            if not patience.expired():
                raise
            raise BackendUnavailableError(
                f"backend {self.backend!r} has not answered a call for {self.call_seconds:g} s "
                "(STREAMQ_OPERATION_SECONDS is the limit)",
                backend=self.backend,
                stream=self.stream,
            ) from exc
