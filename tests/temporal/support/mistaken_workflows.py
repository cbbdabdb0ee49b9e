"""Defines workflows with a mistake in them; the sandbox imports them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

from streamq import StreamWriter
from streamq.temporal import stream_activity, stream_topic, streaming_activity
from streamq.temporal.workflow_streams import WorkflowStream

MINUTE = timedelta(minutes=1)
BEAT = timedelta(seconds=5)


@streaming_activity
async def line(stream: StreamWriter, text: str) -> str:
    await stream.send_chunk(text[:10])
    return "end"


@activity.defn
async def plain(text: str) -> str:
    return text


async def _follow(function: Any, text: str, **options: Any) -> str:
    stream = stream_activity(
        function, text, start_to_close_timeout=MINUTE, heartbeat_timeout=BEAT, **options
    )
    async with stream:
        async for _ in stream:
            pass
        return str(await stream.result())


@workflow.defn
class Mistaken:
    """Makes the mistake that its argument names."""

    @workflow.run
    async def run(self, mistake: str) -> str:
        if mistake == "polling":
            options: Any = {"polling": "locally"}
            return await _follow(line, "text", **options)
        if mistake == "detached polling":
            options = {"polling": "locally", "detached": True}
            return await _follow(line, "text", **options)
        if mistake == "large":
            return await _follow(line, "x" * 1_600_000, detached=True)
        if mistake == "long":
            return await _follow(line, "text", detached=True, topic="t" * 1_600)
        if mistake == "not decorated":
            return await _follow(plain, "text")
        if mistake == "topic":
            with stream_topic("a/b"):
                return ""
        return await _follow(line, "text")


@workflow.defn
class Publishes:
    """Publishes by the names of Workflow Streams, and again after a while."""

    @workflow.init
    def __init__(self, waits: bool) -> None:
        self.topic = WorkflowStream().topic("news", type=str)

    @workflow.run
    async def run(self, waits: bool) -> None:
        self.topic.publish("first")
        if waits:
            await workflow.sleep(2)
            self.topic.publish("second")
        else:
            await self.topic._stream.flush()
