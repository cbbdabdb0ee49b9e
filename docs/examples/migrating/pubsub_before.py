"""An activity publishes to a Redis channel: a reader that comes late has missed the beginning."""

import asyncio
import os
import sys
import uuid
from datetime import timedelta

import redis.asyncio
from model import words
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
    """Publish the answer word by word, and then its end."""
    channel = f"answer:{activity.info().workflow_id}"
    async with connect_redis() as store:
        async for word in words(prompt):
            await store.publish(channel, word)
        await store.publish(channel, END)


@workflow.defn(sandboxed=False)
class Chat:
    """Has a prompt answered."""

    @workflow.run
    async def run(self, prompt: str) -> None:
        """Run the activity."""
        await workflow.execute_activity(answer, prompt, start_to_close_timeout=timedelta(minutes=1))


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Subscribe, start the workflow, and show what arrives."""
    async with connect_redis() as store, store.pubsub() as channel:
        await channel.subscribe(f"answer:{chat}")
        await client.start_workflow(Chat.run, prompt, id=chat, task_queue="channel")
        async for message in channel.listen():
            if message["data"] == END:
                break
            if message["type"] == "message":
                screen.append(message["data"])
    return "".join(screen)


async def main() -> None:
    """Run the worker and ask once."""
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    async with Worker(client, task_queue="channel", workflows=[Chat], activities=[answer]):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        print(await ask(client, f"chat-{uuid.uuid4()}", prompt, []))


if __name__ == "__main__":
    asyncio.run(main())
