"""Workflows on a cron schedule, in each shape in which a workflow streams."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from streamq import StreamWriter
from streamq.temporal import stream_activity, streaming_activity, workflow_stream_name

TEN_SECONDS = timedelta(seconds=10)
ONCE = RetryPolicy(maximum_attempts=1)


@streaming_activity
async def tell(stream: StreamWriter, retried: bool) -> str:
    """Send one chunk; fail in the first attempt if the workflow is to be retried."""
    is_half = retried and stream.attempt == 1
    await stream.send_chunk("half" if is_half else "whole")
    if is_half:
        raise ApplicationError("the rest comes with the retry of the workflow")
    return stream.stream.name


@streaming_activity
async def stay(stream: StreamWriter) -> None:
    """Send one chunk and stay."""
    await stream.send_chunk("stays")
    await stream.flush()
    await asyncio.Event().wait()


@workflow.defn
class Fires:
    """Streams in each firing of its schedule, in one of these shapes.

    * ``executed``, ``followed``, ``detached``: the activity ``tell``, called in this way;
    * ``silent``: nothing;
    * ``staying``: nothing in the first firing, ``stay`` in the second.
    """

    @workflow.run
    async def run(self, shape: str, retried: bool = False, continues: str = "") -> str:
        is_later = workflow.has_last_completion_result()
        if continues == ("second" if is_later else "first"):
            workflow.continue_as_new(args=[shape, retried, ""])
        if shape == "silent" or (shape == "staying" and not is_later):
            return ""
        if shape == "staying":
            await workflow.execute_activity(
                stay, start_to_close_timeout=TEN_SECONDS, heartbeat_timeout=TEN_SECONDS
            )
        if shape == "executed":
            name = await workflow.execute_activity(
                tell, retried, start_to_close_timeout=TEN_SECONDS, retry_policy=ONCE
            )
        else:
            async with stream_activity(
                tell,
                retried,
                start_to_close_timeout=TEN_SECONDS,
                retry_policy=ONCE,
                detached=shape == "detached",
            ) as events:
                _ = [event async for event in events]
                name = await events.result()
        assert name == workflow_stream_name()
        return str(name)


@workflow.defn
class Bare:
    """Calls the activity from a worker that does not have streamq's plugin."""

    @workflow.run
    async def run(self, task_queue: str) -> str:
        name: str = await workflow.execute_activity(
            "tell",
            False,
            result_type=str,
            task_queue=task_queue,
            start_to_close_timeout=TEN_SECONDS,
        )
        return name
