"""An activity streams, and the holder of the workflow's handle sees it at once."""

import asyncio
import uuid
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk, Reset, StreamWriter
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


@streaming_activity
async def write_poem(stream: StreamWriter, subject: str) -> str:
    """Send a poem word by word; return its title at the end."""
    for word in f"The {subject} says nothing, and the sea repeats it.".split():
        await stream.send_chunk(word + " ")
        await asyncio.sleep(0.1)
    return f"Ode to a {subject}"


@workflow.defn
class Poem:
    """Runs the activity like any other: the stream is not a parameter for Temporal."""

    @workflow.run
    async def run(self, subject: str) -> str:
        """Return the title."""
        return await workflow.execute_activity(
            write_poem,
            subject,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def main() -> None:
    """Run the worker, start the workflow and watch it."""
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="poems", workflows=[Poem], activities=[write_poem]):
        handle = await client.start_workflow(
            Poem.run, "lighthouse", id=f"poem-{uuid.uuid4()}", task_queue="poems"
        )
        async with subscribe(handle) as events:
            print(f"streamq tail {events.stream.name}")
            async for event in events:
                match event:
                    case Chunk():
                        print(event.value, end="", flush=True)
                    case Reset():
                        print(f"\n-- attempt {event.attempt} starts over --")
        print("\n" + await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
