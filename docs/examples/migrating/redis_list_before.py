"""An activity pushes to a Redis list, and the workflow pops it, one activity for each word."""

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
async def answer(prompt: str, key: str) -> None:
    """Push the answer word by word, and then its end."""
    async with connect_redis() as store:
        async for word in words(prompt):
            await store.rpush(key, word)
        await store.rpush(key, END)


@activity.defn
async def pop(key: str) -> str:
    """Take the next word off the list."""
    async with connect_redis() as store:
        found = await store.blpop([key], timeout=4)
        if found is None:
            raise TimeoutError("no word within 4 s")
        return str(found[1])


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
        key = f"answer:{workflow.info().workflow_id}"
        minute = timedelta(minutes=1)
        writing = workflow.start_activity(answer, args=[prompt, key], start_to_close_timeout=minute)
        while True:
            word = await workflow.execute_activity(pop, key, start_to_close_timeout=minute)
            self.words.append(word)
            if word == END:
                break
        await writing
        return "".join(self.words[:-1])


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="list")
    while END not in screen:
        screen.extend(await handle.query(Chat.after, len(screen)))
        await asyncio.sleep(0.05)
    screen.remove(END)
    return "".join(screen)


async def main() -> None:
    """Run the worker and ask once."""
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    async with Worker(client, task_queue="list", workflows=[Chat], activities=[answer, pop]):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        print(await ask(client, f"chat-{uuid.uuid4()}", prompt, []))


if __name__ == "__main__":
    asyncio.run(main())
