"""The shortest way to stream: an activity that yields its chunks, async or in a thread."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


@streaming_activity(topic="steps")
async def walk(steps: int) -> AsyncIterator[str]:
    """Yield each step; an async generator has no result."""
    for number in range(1, steps + 1):
        await asyncio.sleep(0.1)
        yield f"step {number}"


@streaming_activity(topic="rungs")
def climb(rungs: int) -> Generator[str, None, str]:
    """Yield each rung, in a thread; the generator's return value is the activity's result."""
    for number in range(1, rungs + 1):
        yield f"rung {number}"
    return "the top"


@workflow.defn
class Hike:
    """Walks, then climbs: two streams of one workflow, so that each has its own topic."""

    @workflow.run
    async def run(self, length: int) -> str:
        """Return where it ends."""
        limit, beat = timedelta(minutes=1), timedelta(seconds=10)
        await workflow.execute_activity(
            walk, length, start_to_close_timeout=limit, heartbeat_timeout=beat
        )
        return await workflow.execute_activity(
            climb, length, start_to_close_timeout=limit, heartbeat_timeout=beat
        )


async def main() -> None:
    """Run the worker, start the workflow and watch both streams, one after the other."""
    client = await connect(plugins=[StreamqPlugin()])
    with ThreadPoolExecutor(max_workers=8) as threads:
        async with Worker(
            client,
            task_queue="hikes",
            workflows=[Hike],
            activities=[walk, climb],
            activity_executor=threads,
        ):
            handle = await client.start_workflow(
                Hike.run, 3, id=f"hike-{uuid.uuid4()}", task_queue="hikes"
            )
            for topic in ("steps", "rungs"):
                async with subscribe(handle, topic) as events:
                    async for event in events:
                        if isinstance(event, Chunk):
                            print(event.value)
            print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
