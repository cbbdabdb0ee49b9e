"""A relay keeps the words of an activity in Redis; a browser goes on after those that it has."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import redis.asyncio
import uvicorn
from model import words
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

END = "[END]"


def connect_redis() -> redis.asyncio.Redis:
    """Return a client."""
    return redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


@activity.defn
async def answer(prompt: str) -> None:
    """Append each word to a list, and wake the relay."""
    key = f"answer:{activity.info().workflow_id}"
    async with connect_redis() as store:

        async def append(word: str) -> None:
            await store.rpush(key, word)
            await store.publish(key, "")

        async for word in words(prompt):
            await append(word)
        await append(END)


@workflow.defn(sandboxed=False)
class Chat:
    """Has a prompt answered."""

    @workflow.run
    async def run(self, prompt: str) -> None:
        """Run the activity."""
        await workflow.execute_activity(answer, prompt, start_to_close_timeout=timedelta(minutes=1))


async def relay(request: Request) -> StreamingResponse:
    """Send the words after the first ones, as lines, and what comes later."""
    key, skip = f"answer:{request.path_params['id']}", int(request.query_params.get("skip", 0))

    async def lines() -> AsyncIterator[str]:
        place = skip
        async with connect_redis() as store, store.pubsub() as channel:
            await channel.subscribe(key)
            while True:
                for word in map(str, await store.lrange(key, place, -1)):
                    place += 1
                    yield word + "\n"
                    if word == END:
                        return
                await channel.get_message(timeout=1)

    return StreamingResponse(lines())


app = Starlette(routes=[Route("/answers/{id}", relay)])


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives, on connections that break after three words."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="relay")
    port = os.environ["RELAY_PORT"]
    async with httpx.AsyncClient(timeout=30) as browser:
        while END not in screen:
            url = f"http://127.0.0.1:{port}/answers/{handle.id}?skip={len(screen)}"
            async with browser.stream("GET", url) as response:
                received = 0
                async for line in response.aiter_lines():
                    screen.append(line)
                    received += 1
                    if received == 3:
                        break
    screen.remove(END)
    return "".join(screen)


async def main() -> None:
    """Run the relay and the worker, and ask once."""
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    config = uvicorn.Config(app, port=int(os.environ["RELAY_PORT"]), log_level="error")
    server = uvicorn.Server(config)
    async with Worker(client, task_queue="relay", workflows=[Chat], activities=[answer]):
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        print(await ask(client, f"chat-{uuid.uuid4()}", prompt, []))
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
