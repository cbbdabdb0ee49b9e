"""Workflows whose chain of runs reaches a later run before it streams."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from streamq import StreamWriter
from streamq.temporal import streaming_activity

TEN_SECONDS = timedelta(seconds=10)


@streaming_activity
async def talk(stream: StreamWriter, text: str) -> None:
    """Send one chunk."""
    await stream.send_chunk(text)


@workflow.defn
class Talks:
    """Streams in the run that ``mode`` names, and then stays until it is stopped."""

    @workflow.signal
    def nudge(self) -> None:
        """Do nothing; for signal-with-start."""

    @workflow.update
    async def nudged(self) -> None:
        """Do nothing; for update-with-start."""

    @workflow.run
    async def run(self, mode: str = "") -> None:
        info = workflow.info()
        if mode == "continued" and info.continued_run_id is None:
            workflow.continue_as_new(mode)
        if mode == "retried" and info.attempt == 1:
            raise ApplicationError("retry this run")
        await workflow.execute_activity(
            talk, f"{mode or 'first'}", start_to_close_timeout=TEN_SECONDS
        )
        if mode != "short":
            await asyncio.Event().wait()


@workflow.defn
class Parent:
    """Starts ``Talks`` as a child whose chain continues."""

    @workflow.run
    async def run(self, child_id: str) -> None:
        await workflow.execute_child_workflow(
            Talks.run,
            "retried",
            id=child_id,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=20)),
        )
