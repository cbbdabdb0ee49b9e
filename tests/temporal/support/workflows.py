"""Workflows as users write them, imported by the sandbox."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from streamq import StreamWriter
from streamq.temporal import (
    PollRequest,
    SealRequest,
    poll,
    seal,
    stream_name,
    stream_topic,
    streaming_activity,
)

TEN_SECONDS = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)


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


@workflow.defn
class Anew:
    """Schedules an activity anew when its only attempt has timed out."""

    @workflow.run
    async def run(self) -> str:
        try:
            return await self._say(timedelta(seconds=0.5))
        except ActivityError:
            return await self._say(TEN_SECONDS)

    async def _say(self, longest: timedelta) -> str:
        said: str = await workflow.execute_activity(
            "say_slowly",
            "anew",
            start_to_close_timeout=longest,
            heartbeat_timeout=TEN_SECONDS,
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        return said


@workflow.defn
class Locally:
    """One call, as a local activity."""

    @workflow.run
    async def run(self) -> str:
        said: str = await workflow.execute_local_activity(
            "say_slowly", "local", start_to_close_timeout=TEN_SECONDS
        )
        return said


@workflow.defn
class WithoutHeartbeatTimeout:
    """One call, whose author forgot the heartbeat timeout."""

    @workflow.run
    async def run(self) -> str:
        said: str = await workflow.execute_activity(
            "say_slowly", "words", start_to_close_timeout=timedelta(hours=1)
        )
        return said


@workflow.defn
class GoesOn:
    """Lives on after its activity has timed out without an ending of the stream."""

    def __init__(self) -> None:
        self._seals = self._ends = False

    @workflow.signal
    def seal_it(self) -> None:
        self._seals = True

    @workflow.signal
    def end(self) -> None:
        self._ends = True

    @workflow.run
    async def run(self) -> list[bool]:
        try:
            await workflow.execute_activity(
                "say_slowly",
                "words",
                start_to_close_timeout=timedelta(seconds=0.5),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except ActivityError as exc:
            await workflow.wait_condition(lambda: self._seals)
            info = workflow.info()
            name = stream_name(info.workflow_id, info.first_execution_run_id)
            request = SealRequest(name, message=str(exc.cause), error_type="Timeout")
            did = [
                await workflow.execute_activity(seal, request, start_to_close_timeout=TEN_SECONDS)
                for _ in range(2)
            ]
        await workflow.wait_condition(lambda: self._ends)
        return did


@workflow.defn
class Watches:
    """Reads another workflow's stream by polling, and waits for more than there is."""

    @workflow.run
    async def run(self, stream: str) -> None:
        cursor = None
        while True:
            found = await workflow.execute_activity(
                poll,
                PollRequest(stream, cursor),
                start_to_close_timeout=timedelta(minutes=2),
                heartbeat_timeout=TEN_SECONDS,
            )
            cursor = found.cursor


@workflow.defn
class Calls:
    """Calls an activity as a workflow of another SDK would: by name, with plain data."""

    @workflow.run
    async def run(self, activity: str, args: list[Any]) -> Any:
        return await workflow.execute_activity(
            activity, args=args, schedule_to_close_timeout=MINUTE
        )


@workflow.defn
class Twice:
    """Calls the activity twice, without or with a heartbeat timeout."""

    @workflow.run
    async def run(self, beats: bool) -> None:
        for topic in ("a", "b"):
            await workflow.execute_activity(
                f"speak_{topic}",
                start_to_close_timeout=MINUTE,
                heartbeat_timeout=MINUTE if beats else None,
            )
