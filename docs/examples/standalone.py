"""A client starts a streaming activity without a workflow, and reads its stream by the handle."""

import asyncio
import uuid
from datetime import timedelta

from temporalio.worker import Worker

from streamq import Chunk, StreamWriter
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


@streaming_activity
async def answer(stream: StreamWriter[str], question: str) -> int:
    """Send an answer word by word, as a model does; return the number of words."""
    words = f"You asked about {question}. It is deep.".split()
    for word in words:
        await stream.send_chunk(word + " ")
        await asyncio.sleep(0.1)
    return len(words)


async def main() -> None:
    """Run the worker, start the activity and watch it."""
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="answers", activities=[answer]):
        handle = await client.start_activity(
            answer,
            "the sea",
            id=f"answer-{uuid.uuid4()}",
            task_queue="answers",
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )
        async with subscribe(handle) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    print(event.value, end="", flush=True)
        print(f"\n{await handle.result()} words")


if __name__ == "__main__":
    asyncio.run(main())
