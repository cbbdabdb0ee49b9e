"""A producer that dies and runs again: its second attempt replays, and readers notice nothing."""

import asyncio
import uuid

from streamq import BufferFullError, Chunk, OnFull, OnRetry, open_reader, open_writer

LINES = ["checking out", "building", "testing", "done"]


async def attempt(name: str, *, stops_after: int) -> None:
    """Send every line from the first; lines that are stored are compared and dropped."""
    stream = await open_writer(name, on_retry=OnRetry.REPLAY, on_full=OnFull.ERROR)
    try:
        for number, line in enumerate(LINES, 1):
            try:
                await stream.send_chunk(line)
            except BufferFullError:  # the backend is away or slow: wait for it, or do without
                await stream.flush()
                await stream.send_chunk(line)
            if number == stops_after:
                raise RuntimeError("the worker dies")
        await stream.finish()
    finally:
        await stream.aclose()  # without an ending the stream is open for the next attempt


async def main() -> None:
    """Run both attempts, then print the events that a reader gets."""
    name = f"job-{uuid.uuid4()}"  # of the job, the same for its attempts
    try:
        await attempt(name, stops_after=2)
    except RuntimeError as exc:
        print(f"first attempt: {exc}")
    await attempt(name, stops_after=0)
    async with open_reader(name) as reader:
        async for event in reader:
            if isinstance(event, Chunk):
                print(event.offset, f"attempt {event.attempt}:", event.value)


if __name__ == "__main__":
    asyncio.run(main())
