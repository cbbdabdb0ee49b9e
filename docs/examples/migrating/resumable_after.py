"""The gateway is the relay: a browser goes on after the id of the last event that it has."""

import asyncio
import json
import os
import sys
import uuid
from datetime import timedelta

import httpx
from httpx_sse import EventSource
from model import words
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from streamq import StreamWriter
from streamq.gateway import create_app, serve
from streamq.temporal import StreamqPlugin, connect, stream_name, streaming_activity


@streaming_activity
async def answer(stream: StreamWriter[str], prompt: str) -> None:
    """Send the answer word by word."""
    async for word in words(prompt):
        await stream.send_chunk(word)


@workflow.defn(sandboxed=False)
class Chat:
    """Has a prompt answered."""

    @workflow.run
    async def run(self, prompt: str) -> None:
        """Run the activity."""
        await workflow.execute_activity(
            answer,
            prompt,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives, on connections that break after three events."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="relay")
    name = stream_name(handle.id, handle.first_execution_run_id or "")
    url = f"http://127.0.0.1:{os.environ['RELAY_PORT']}/events/{name}?wait=10"
    place, kind = "", ""
    async with httpx.AsyncClient(timeout=30) as browser:
        while kind != "end":
            headers = {"Last-Event-ID": place} if place else {}
            async with browser.stream("GET", url, headers=headers) as response:
                received = 0
                async for event in EventSource(response).aiter_sse():
                    place, kind = event.id, event.event
                    match kind:
                        case "chunk":
                            screen.append(json.loads(event.data)["value"])
                        case "reset":  # the activity is tried again, and starts over
                            screen.clear()
                    received += 1
                    if received == 3:
                        break
    return "".join(screen)


async def main() -> None:
    """Run the gateway and the worker, and ask once."""
    client = await connect(plugins=[StreamqPlugin()])
    async with (
        serve(create_app(), port=int(os.environ["RELAY_PORT"])),
        Worker(client, task_queue="relay", workflows=[Chat], activities=[answer]),
    ):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        chat = f"chat-{uuid.uuid4()}"
        print(await ask(client, chat, prompt, []))
        await client.get_workflow_handle(chat).result()


if __name__ == "__main__":
    asyncio.run(main())
