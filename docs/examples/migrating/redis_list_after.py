"""The workflow reads the stream with `async for`; a poll brings all new words."""

import asyncio
import sys
import uuid
from datetime import timedelta

from model import words
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import Chunk, Reset, StreamWriter
from streamq.temporal import (
    StreamqPlugin,
    connect,
    stream_activity,
    streaming_activity,
    subscribe,
)


@streaming_activity
async def answer(stream: StreamWriter[str], prompt: str) -> None:
    """Send the answer word by word."""
    async for word in words(prompt):
        await stream.send_chunk(word)


@workflow.defn(sandboxed=False)
class Chat:
    """Answers a prompt, and knows how far the answer is."""

    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.query
    def after(self, number: int) -> list[str]:
        """Return the words after the first ones."""
        return self.words[number:]

    @workflow.run
    async def run(self, prompt: str) -> str:
        """Return the answer."""
        async with stream_activity(
            answer,
            prompt,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        ) as stream:
            async for event in stream:
                match event:
                    case Chunk():
                        self.words.append(event.value)
                    case Reset():  # the activity is tried again, and starts over
                        self.words.clear()
            await stream.result()
        return "".join(self.words)


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives; the workflow is not asked."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="list")
    async with subscribe(handle) as events:
        async for event in events:
            match event:
                case Chunk():
                    screen.append(event.value)
                case Reset():
                    screen.clear()
    return "".join(screen)


async def main() -> None:
    """Run the worker and ask once."""
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="list", workflows=[Chat], activities=[answer]):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        chat = f"chat-{uuid.uuid4()}"
        print(await ask(client, chat, prompt, []))
        await client.get_workflow_handle(chat).result()


if __name__ == "__main__":
    asyncio.run(main())
