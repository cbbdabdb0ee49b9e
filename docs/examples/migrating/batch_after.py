"""The same activity streams; `STREAMQ_MODE=batch` holds all back until its end, as before."""

import asyncio
import sys
import uuid
from datetime import timedelta

from model import words
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import Chunk, Reset, StreamWriter
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


@streaming_activity
async def answer(stream: StreamWriter[str], prompt: str) -> str:
    """Send the answer word by word, and return it."""
    sent = []
    async for word in words(prompt):
        await stream.send_chunk(word)
        sent.append(word)
    return "".join(sent)


@workflow.defn(sandboxed=False)
class Chat:
    """Answers a prompt."""

    @workflow.run
    async def run(self, prompt: str) -> str:
        """Return the answer."""
        return await workflow.execute_activity(
            answer,
            prompt,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="batch")
    async with subscribe(handle) as events:
        async for event in events:
            match event:
                case Chunk():
                    screen.append(event.value)
                case Reset():  # the activity is tried again, and starts over
                    screen.clear()
    return "".join(screen)


async def main() -> None:
    """Run the worker and ask once."""
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="batch", workflows=[Chat], activities=[answer]):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        chat = f"chat-{uuid.uuid4()}"
        print(await ask(client, chat, prompt, []))
        await client.get_workflow_handle(chat).result()


if __name__ == "__main__":
    asyncio.run(main())
