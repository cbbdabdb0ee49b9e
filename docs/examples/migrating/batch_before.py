"""An activity returns its whole answer at its end: nobody sees anything before."""

import asyncio
import sys
import uuid
from datetime import timedelta

from model import words
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker


@activity.defn
async def answer(prompt: str) -> str:
    """Return the answer."""
    return "".join([word async for word in words(prompt)])


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
        )


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="batch")
    screen.append(await handle.result())
    return "".join(screen)


async def main() -> None:
    """Run the worker and ask once."""
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    async with Worker(client, task_queue="batch", workflows=[Chat], activities=[answer]):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        print(await ask(client, f"chat-{uuid.uuid4()}", prompt, []))


if __name__ == "__main__":
    asyncio.run(main())
