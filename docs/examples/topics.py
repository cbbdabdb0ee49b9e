"""Reads two topics of a workflow in one loop, and the finished text in one call."""

import asyncio
import uuid
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk, ReadFailure, StreamWriter
from streamq.temporal import (
    StreamqPlugin,
    connect,
    read_story,
    streaming_activity,
    subscribe_topics,
)


@streaming_activity
async def think(stream: StreamWriter[str], log: StreamWriter[str], question: str) -> None:
    """Send the answer, and what led to it, to a topic of its own each."""
    for step in ("look it up", "write it down"):
        await log.send_chunk(step)
        await log.flush()
    for word in f"{question}? It is deep.".split():
        await stream.send_chunk(word + " ")


@workflow.defn
class Answer:
    """Runs the activity like any other."""

    @workflow.run
    async def run(self, question: str) -> None:
        """Return when the answer has been given."""
        await workflow.execute_activity(
            think,
            question,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def main() -> None:
    """Run the worker, start the workflow and watch both topics."""
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="answers", workflows=[Answer], activities=[think]):
        handle = await client.start_workflow(
            Answer.run, "The sea", id=f"answer-{uuid.uuid4()}", task_queue="answers"
        )
        async with subscribe_topics(handle, ["default", "log"]) as events:
            async for item in events:
                match item.event:
                    case Chunk() if item.topic == "log":
                        print("log:", item.event.value)
                    case ReadFailure():
                        print(f"{item.topic}: {item.event.error}")
        story = await read_story(handle)
        print(f"{story.state}: {story.text}")
        await handle.result()


if __name__ == "__main__":
    asyncio.run(main())
