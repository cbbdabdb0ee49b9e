"""What is large: it must not exceed what Temporal carries in one message or payload."""

from __future__ import annotations

import asyncio
import uuid

from temporalio.client import Client
from temporalio.worker import Worker

from streamq import Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, streaming_activity

from .followers import Options
from .large import CountsCharacters


@streaming_activity
async def send_texts(chunks: int, size: int, stream: StreamWriter) -> None:
    for i in range(chunks):
        await stream.send_chunk(f"{i} ".ljust(size, "x"))


async def test_local_polls_of_a_fast_producer_fit_into_one_message(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The server ends a workflow whose task brings more than 4 MiB; full polls do not wait."""
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[CountsCharacters],
        activities=[send_texts],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        found = await asyncio.wait_for(
            client.execute_workflow(
                CountsCharacters.run,
                args=["send_texts", [1_000, 40_000], Options(polling="local", window_ms=20)],
                id=f"wf-{uuid.uuid4().hex}",
                task_queue=task_queue,
            ),
            60,
        )
    assert found == [1_000, 1_000 * 40_000]
