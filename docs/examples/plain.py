"""streamq without Temporal: one process writes, any other reads, now or later."""

import asyncio
import uuid

from streamq import Chunk, open_queue, open_reader, open_writer


async def produce(name: str) -> None:
    """Write a stream; leaving the block seals it."""
    async with open_writer(name) as stream:
        for line in ("building", "testing", "done"):
            await stream.send_chunk(line)


async def consume(name: str) -> None:
    """Read two events, keep the cursor, and go on from it in another reader."""
    async with open_queue() as queue:
        async with open_reader(name, queue=queue) as reader:
            for _ in range(2):
                event = await anext(reader)
                assert isinstance(event, Chunk)
                print(event.offset, event.value)
            cursor = reader.cursor
        async with open_reader(name, from_=cursor, queue=queue) as reader:
            async for event in reader:
                print(event.to_dict())


async def main() -> None:
    """Write and read at the same time."""
    name = f"job-{uuid.uuid4()}"  # a stream ends once: each run has its own
    await asyncio.gather(produce(name), consume(name))


if __name__ == "__main__":
    asyncio.run(main())
