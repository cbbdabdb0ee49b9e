"""Bounds how often, and how long, publishers that share a stream take it over from each other.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
import random
import time

from streamq._errors import FencedError, ThrottledError
from streamq._events import StreamId

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 1.0


class Competition:
    """Waits before each further takeover of a stream, longer each time, until a deadline.

    The pause is random: publishers that fenced each other at the same moment do not meet again. It
    becomes longer than a takeover takes, so that one of them has the time for a write.

    Args:
        stream: The stream.
        seconds: Deadline for all takeovers together.
    """

    def __init__(self, stream: StreamId, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._pause = _SHORTEST_PAUSE_SECONDS

    async def wait(self, fenced: FencedError) -> None:
        """Wait until the stream may be taken over once more.

        Raises:
            ThrottledError: The deadline has passed. Nothing is wrong with this publisher, so that
                a later call may succeed.
        """
        if time.monotonic() >= self._until:
            raise ThrottledError(
                f"other publishers took stream {self._stream} over repeatedly, for "
                f"{self._seconds:g} seconds; fewer calls at once, or larger batches, compete less",
                backend=fenced.backend,
                stream=str(self._stream),
            ) from fenced
        await asyncio.sleep(random.uniform(0, self._pause))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
