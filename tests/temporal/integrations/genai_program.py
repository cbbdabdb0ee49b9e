"""Defines a workflow as the sample of Google GenAI has it; nothing here knows streamq."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.contrib.workflow_streams import WorkflowStream
from temporalio.google_genai import TemporalAsyncClient
from temporalio.workflow import ActivityConfig

GEMINI = "gemini"


@workflow.defn
class StreamsGemini:
    """Streams the chunks of the model."""

    @workflow.init
    def __init__(self, prompt: str) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, prompt: str) -> str:
        client = TemporalAsyncClient(
            streaming_topic=GEMINI,
            activity_config=ActivityConfig(
                start_to_close_timeout=timedelta(seconds=30),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            ),
        )
        chunks = await client.models.generate_content_stream(model="gemini-fake", contents=prompt)
        return "".join([chunk.text or "" async for chunk in chunks])


@workflow.defn
class HostsNothing:
    """Streams without hosting a stream, which the integration refuses."""

    @workflow.run
    async def run(self, prompt: str) -> None:
        client = TemporalAsyncClient(streaming_topic=GEMINI)
        async for _ in await client.models.generate_content_stream(model="fake", contents=prompt):
            pass
