"""Defines workflows as users write them, around streaming activities."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from streamq import Chunk
from streamq.temporal import stream_activity

with workflow.unsafe.imports_passed_through():
    from tests.applications.activities import Summary, hang_once, resume, trickle, write

TEN_SECONDS = timedelta(seconds=10)


@workflow.defn
class Poem:
    """Waits for a day, then writes."""

    @workflow.run
    async def run(self, subject: str) -> Summary:
        await workflow.sleep(timedelta(days=1))
        return await workflow.execute_activity(
            write, subject, start_to_close_timeout=TEN_SECONDS, heartbeat_timeout=TEN_SECONDS
        )


@workflow.defn
class Reader:
    """Reads what its activity writes while that runs."""

    @workflow.run
    async def run(self, subject: str) -> list[str]:
        words = []
        async with stream_activity(
            resume,
            subject,
            start_to_close_timeout=TEN_SECONDS,
            heartbeat_timeout=TEN_SECONDS,
        ) as stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    words.append(event.value)
            await stream.result()
        await workflow.sleep(timedelta(days=30))
        return words


@workflow.defn
class Patient:
    """Has an activity whose second attempt comes an hour after the first has timed out."""

    @workflow.run
    async def run(self) -> int:
        return await workflow.execute_activity(
            hang_once,
            start_to_close_timeout=timedelta(seconds=2),
            heartbeat_timeout=timedelta(seconds=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(hours=1)),
        )


@workflow.defn
class Impatient:
    """Gives its activity an hour, reads it, and does not wait in vain."""

    @workflow.run
    async def run(self) -> list[str]:
        words = []
        async with asyncio.timeout(3600):
            async with stream_activity(
                trickle, start_to_close_timeout=TEN_SECONDS, heartbeat_timeout=TEN_SECONDS
            ) as stream:
                async for event in stream:
                    if isinstance(event, Chunk):
                        words.append(event.value)
        return words
