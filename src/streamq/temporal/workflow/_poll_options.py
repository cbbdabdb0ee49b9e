"""Defines how a workflow polls a stream: the one shape of these options in workflow code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamq._errors import ConfigurationError
from streamq.temporal.activities._poll_limits import (
    MAX_BYTES,
    MAX_EVENTS,
    MAX_WAIT_SECONDS,
    WINDOW_SECONDS,
    check_seconds,
)

PollMode: TypeAlias = Literal["activity", "local"]


@dataclass(frozen=True, kw_only=True)
class PollOptions:
    """How a stream is polled.

    Attributes:
        polling: ``activity``: each poll is an activity. ``local``: most polls are local activities,
            ten times cheaper; see :func:`stream_activity`.
        window_seconds: How long a poll collects events, counted from its start; a regular one that
            follows another closely counts from shortly after that one's end
            (:class:`PollRequest`).
        max_wait_seconds: How long a poll waits for the first event.
        max_events: Most events of one poll.
        max_bytes: Most bytes of one poll, as JSON.
    """

    polling: PollMode = "activity"
    window_seconds: float = WINDOW_SECONDS
    max_wait_seconds: float = MAX_WAIT_SECONDS
    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES

    def check(self) -> None:
        """Check every value.

        Not at construction, so that a handover with a mistake can be decoded, and fails the
        workflow instead of its task.

        Raises:
            ConfigurationError: A value is outside its bounds.
        """
        if self.polling not in ("activity", "local"):
            raise ConfigurationError(f"polling {self.polling!r} is neither 'activity' nor 'local'")
        check_seconds("window_seconds", self.window_seconds)
        check_seconds("max_wait_seconds", self.max_wait_seconds)
        if self.max_events < 1 or self.max_bytes < 1:
            raise ConfigurationError(
                "max_events and max_bytes must be positive, not "
                f"{self.max_events} and {self.max_bytes}"
            )
