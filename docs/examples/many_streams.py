"""Many streams in one loop: a chat has one for each turn, and nobody knows the next names."""

import asyncio
import uuid

from streamq import (
    Chunk,
    ReadFailure,
    Reset,
    Seal,
    StreamFound,
    open_queue,
    open_readers,
    open_writer,
    read_story,
)
from streamq.driver import ChunkQueue


async def answer(queue: ChunkQueue, name: str, text: str) -> None:
    """Write one turn of the chat."""
    async with open_writer(name, queue=queue) as stream:
        for word in text.split():
            await stream.send_chunk(word + " ")


async def show(queue: ChunkQueue, chat: str) -> None:
    """Read all turns of a chat, those to come as well, until three have ended."""
    turns: dict[str, str] = {}
    ended = 0
    async with open_readers(prefixes=[chat], list_seconds=0.2, queue=queue) as readers:
        async for item in readers:
            turn = item.stream.name.removeprefix(chat)
            match item.event:
                case StreamFound() | Reset():
                    turns[turn] = ""
                case Chunk():
                    turns[turn] += item.event.value
                case Seal():
                    print(f"{turn}: {turns[turn].strip()} ({item.event.state})")
                    ended += 1
                case ReadFailure():
                    print(f"{turn}: {item.event.error}")
            if ended == 3:
                return


async def main() -> None:
    """Write a chat while it is read, then read one turn of it again, in one call."""
    chat = f"chat-{uuid.uuid4()}/"
    async with open_queue() as queue:
        await answer(queue, f"{chat}1", "There is a lighthouse.")
        watching = asyncio.create_task(show(queue, chat))
        await answer(queue, f"{chat}2", "It says nothing.")
        await answer(queue, f"{chat}3", "And the sea repeats it.")
        await watching
        story = await read_story(f"{chat}3", queue=queue)
        print(f"{story.state}, attempt {story.attempt}: {story.text}")


if __name__ == "__main__":
    asyncio.run(main())
