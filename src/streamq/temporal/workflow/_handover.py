"""Carries a followed stream from one run of a workflow to the next."""

from __future__ import annotations

from dataclasses import dataclass

from ._poll_options import PollOptions


@dataclass(frozen=True)
class Handover(PollOptions):
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
