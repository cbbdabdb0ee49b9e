"""Workflows on a cron schedule, in each shape in which a workflow streams."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from streamq import StreamNotFoundError, StreamWriter
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


@workflow.defn
class Names:
    """Names its stream wherever workflow code runs: in a query, a validator, a handler, the end.

    Its object has no place for attributes of others. The first firing ends at once, or fails if it
    is to be retried; the next run stays until an update.
    """

    __slots__ = ("_leaves",)

    @workflow.init
    def __init__(self, retried: bool = False) -> None:
        self._leaves = False

    @workflow.run
    async def run(self, retried: bool = False) -> str:
        if retried:
            if workflow.info().attempt == 1:
                raise ApplicationError("the retry names the stream")
            return workflow_stream_name()
        if workflow.has_last_completion_result():
            await workflow.wait_condition(lambda: self._leaves)
        return workflow_stream_name()

    @workflow.query
    def name(self) -> str:
        return workflow_stream_name()

    @workflow.update
    def leave(self, expected: str, leaves: bool) -> str:
        self._leaves = leaves
        return workflow_stream_name()

    @leave.validator
    def check(self, expected: str, leaves: bool) -> None:
        assert workflow_stream_name() == expected


@workflow.defn
class Forgotten:
    """Fails once; the retry streams nothing, and returns the error that naming a stream raises."""

    @workflow.run
    async def run(self) -> str:
        if workflow.info().attempt == 1:
            raise ApplicationError("the retry cannot know its first run")
        try:
            return workflow_stream_name()
        except StreamNotFoundError as exc:
            return str(exc)
