"""Reads a stream in the workflow that starts its activity, for backends with one reader."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from streamq.temporal import stream_activity

from ._recorded import fields_of
from ._schedule import HEARTBEAT_SECONDS

POLL_READER = "poll-1"
"""The name of this reader."""


@workflow.defn(sandboxed=False)
class Consumer:
    """Starts an activity, and returns what it has read of its stream."""

    @workflow.run
    async def run(self, plan: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events in the form in which readers record them."""
        async with stream_activity(
            plan["policy"],
            plan,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_SECONDS),
        ) as stream:
            return [fields_of(event) async for event in stream]
