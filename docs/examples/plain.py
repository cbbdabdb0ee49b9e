"""streamq without Temporal: one process writes, any other reads, now or later."""

import asyncio

from streamq import Chunk, open_queue, open_reader, open_writer


async def produce() -> None:
    """Write a stream; leaving the block seals it."""
    async with open_writer("job-42") as stream:
        for line in ("building", "testing", "done"):
            await stream.send_chunk(line)


async def consume() -> None:
    """Read two events, keep the cursor, and go on from it in another reader."""
    async with open_queue() as queue:
        async with open_reader("job-42", queue=queue) as reader:
            for _ in range(2):
                event = await anext(reader)
                assert isinstance(event, Chunk)
                print(event.offset, event.value)
            cursor = reader.cursor
        async with open_reader("job-42", from_=cursor, queue=queue) as reader:
            async for event in reader:
                print(event.to_dict())


async def main() -> None:
    """Write and read at the same time."""
    await asyncio.gather(produce(), consume())


if __name__ == "__main__":
    asyncio.run(main())
