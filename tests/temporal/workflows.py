"""Workflows as users write them, imported by the sandbox."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

from streamq import StreamWriter
from streamq.temporal import stream_topic, streaming_activity

TEN_SECONDS = timedelta(seconds=10)


@streaming_activity
async def say(text: str, stream: StreamWriter) -> str:
    await stream.send_chunk(text)
    return text


@workflow.defn
class TwoTopics:
    """An ordinary workflow of a user, in the sandbox."""

    @workflow.run
    async def run(self, task_queue: str) -> list[str]:
        spoken = []
        for topic in ("draft", "final"):
            with stream_topic(topic):
                spoken.append(
                    await workflow.execute_activity(
                        say,
                        topic,
                        task_queue=task_queue,
                        start_to_close_timeout=TEN_SECONDS,
                    )
                )
        return spoken


@streaming_activity(topic="spoken")
async def say_it(text: str, stream: StreamWriter) -> None:
    await stream.send_chunk(text)


@workflow.defn
class Foreign:
    """Stands for a workflow in another SDK: it knows the activity's name only."""

    @workflow.run
    async def run(self, activity_queue: str) -> None:
        await workflow.execute_activity(
            "say_it", "hello", task_queue=activity_queue, start_to_close_timeout=TEN_SECONDS
        )


async def _say_slowly(text: str) -> str:
    said: str = await workflow.execute_activity(
        "say_slowly",
        text,
        start_to_close_timeout=TEN_SECONDS,
        heartbeat_timeout=TEN_SECONDS,
    )
    return said


@workflow.defn
class AtOnce:
    """Two calls on one topic, scheduled in one workflow task."""

    @workflow.run
    async def run(self) -> list[str]:
        return list(await asyncio.gather(_say_slowly("A"), _say_slowly("B")))


@workflow.defn
class OneAfterTheOther:
    """Two calls on one topic, the second after the first has ended."""

    @workflow.run
    async def run(self) -> list[str]:
        return [await _say_slowly("first"), await _say_slowly("second")]


@workflow.defn
class Turns:
    """A call in each of two runs of one chain."""

    @workflow.run
    async def run(self) -> None:
        await _say_slowly("turn")
        if workflow.info().continued_run_id is None:
            workflow.continue_as_new()


@workflow.defn
class RetriedAsAWhole:
    """One call."""

    @workflow.run
    async def run(self) -> str:
        return await _say_slowly("only")
