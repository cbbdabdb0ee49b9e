"""Counts how long Temporal has not answered the questions of a watch, and paces its long polls.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from temporalio.service import RPCError

from streamq._errors import StreamqError

from ._rpc import is_transient

SHORTEST_PAUSE = 0.05
"""Pause before the first repetition of a question."""

LONG_POLL_TIMEOUT = timedelta(seconds=70)
"""Deadline of a long poll; the server answers earlier, also if nothing happened."""

_LONGEST_PAUSE = 2.0
_REFUSED_PAUSE = 30.0

R = TypeVar("R")


def next_pause(pause: float, failed: RPCError | None) -> float:
    """Return the pause after a pause: long ones only after a refusal, which rarely passes."""
    is_refused = failed is not None and not is_transient(failed)
    return min(pause * 2, _REFUSED_PAUSE if is_refused else _LONGEST_PAUSE)


class LongPolls:
    """Pauses between long polls, so that few requests are made also if they return at once."""

    def __init__(self) -> None:
        self._pause = SHORTEST_PAUSE
        self._began = time.monotonic()

    async def rest(self, failed: RPCError | None = None) -> None:
        """Pause after a poll: longer each time, and briefly after one that itself has waited.

        Args:
            failed: Why it failed, if it did.
        """
        if failed is None and time.monotonic() - self._began >= _LONGEST_PAUSE:
            self._pause = SHORTEST_PAUSE
        await asyncio.sleep(self._pause)
        self._pause = next_pause(self._pause, failed)
        self._began = time.monotonic()


class Patience:
    """Counts how long Temporal has not answered. An outage or a refusal does not end a watch.

    Args:
        subject: Kind and id of what is watched, for messages.
        translate: Returns the streamq error for a failed call, from the error and what was done.
        patience_seconds: Give up when Temporal has not answered for this long.
        on_change: Called when Temporal stops answering, and when it answers again.
    """

    def __init__(
        self,
        subject: str,
        translate: Callable[[RPCError, str], StreamqError],
        *,
        patience_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        self._subject = subject
        self._translate = translate
        self._patience = patience_seconds
        self._on_change = on_change
        self._failing_since = math.inf
        self.failure: StreamqError | None = None
        """Why Temporal did not answer the last question; ``None`` if it did."""

    def silence_ends(self, quiet_since: float, seconds: float) -> float:
        """Return when neither an event nor an answer will have come for a time.

        Args:
            quiet_since: Since when there has been no event, by ``time.monotonic()``.
            seconds: The time.

        Returns:
            A time of ``time.monotonic()``, infinite while Temporal answers.
        """
        return max(quiet_since, self._failing_since) + seconds

    def silence(self, stream: str, seconds: float) -> StreamqError:
        """Return the error for a stream that is silent while Temporal does not answer."""
        assert self.failure is not None
        return type(self.failure)(
            f"no event of stream {stream} came for {seconds:g} s, and for as long Temporal did not "
            f"say whether {self._subject} still runs: {self.failure}",
            backend="temporal",
            stream=stream,
        )

    async def asking(self, question: Callable[[], Awaitable[R]]) -> R:
        """Ask until there is an answer.

        Raises:
            StreamqError: There was none for as long as there is patience.
        """
        pause = SHORTEST_PAUSE
        while True:
            try:
                answer = await question()
            except RPCError as exc:
                self.failed(exc)
                failed = exc
            else:
                self.answered()
                return answer
            await asyncio.sleep(pause)
            pause = next_pause(pause, failed)

    def answered(self) -> None:
        """Take note of an answer."""
        if self.failure is not None:
            self.failure, self._failing_since = None, math.inf
            self._on_change()

    def failed(self, error: RPCError) -> None:
        """Take note of a question without an answer.

        Raises:
            StreamqError: There was none for as long as there is patience.
        """
        now = time.monotonic()
        began = self.failure is None
        self.failure = self._translate(error, f"watch {self._subject}")
        if began:
            self._failing_since = now
            self._on_change()
        if now - self._failing_since >= self._patience:
            raise self.failure from error
