"""Carries a followed stream from one run of a workflow to the next."""

from __future__ import annotations

from dataclasses import dataclass

from ._poll_options import DEFAULT_POLL_OPTIONS as _DEFAULT
from ._poll_options import PollMode, PollOptions


@dataclass(frozen=True)
class Handover:
    """Where the next run of a workflow continues; pass it to ``workflow.continue_as_new``.

    Plain JSON. Valid for the runs of one chain.

    Attributes:
        stream: Name of the stream, and id of the workflow that produces it.
        offset: Offset of the last event that was taken.
        cursor: Where to poll; at that event or before it.
        ended: Whether the stream has been read to its end.
        polling: How polls are made.
        window_seconds: How long a poll collects events.
        max_wait_seconds: How long a poll waits.
        max_events: Most events of one poll.
        max_bytes: Most bytes of one poll.
    """

    stream: str
    offset: int = 0
    cursor: str | None = None
    ended: bool = False
    polling: PollMode = _DEFAULT.polling
    window_seconds: float = _DEFAULT.window_seconds
    max_wait_seconds: float = _DEFAULT.max_wait_seconds
    max_events: int = _DEFAULT.max_events
    max_bytes: int = _DEFAULT.max_bytes


def begin_handover(stream: str, options: PollOptions) -> Handover:
    """Return the handover of a stream of which nothing has been read."""
    return Handover(
        stream,
        polling=options.polling,
        window_seconds=options.window_seconds,
        max_wait_seconds=options.max_wait_seconds,
        max_events=options.max_events,
        max_bytes=options.max_bytes,
    )


def poll_options(handover: Handover) -> PollOptions:
    """Return how the stream of a handover is polled.

    Raises:
        ConfigurationError: A value is outside its bounds.
    """
    return PollOptions(
        handover.polling,
        handover.window_seconds,
        handover.max_wait_seconds,
        handover.max_events,
        handover.max_bytes,
    )
