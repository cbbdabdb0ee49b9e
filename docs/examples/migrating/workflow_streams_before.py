"""An activity publishes on the SDK's Workflow Streams: each batch is in the workflow's history."""

import asyncio
import sys
import uuid
from datetime import timedelta

from model import words
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamClient
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

END = "[END]"


@activity.defn
async def answer(prompt: str) -> None:
    """Publish the answer word by word, and then its end."""
    client = WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=100))
    async with client:
        topic = client.topic("words", type=str)
        async for word in words(prompt):
            topic.publish(word)
        topic.publish(END)


@workflow.defn(sandboxed=False)
class Chat:
    """Has a prompt answered, and keeps the answer for its readers."""

    @workflow.init
    def __init__(self, prompt: str) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, prompt: str) -> None:
        """Run the activity, and leave readers a second for the rest."""
        await workflow.execute_activity(answer, prompt, start_to_close_timeout=timedelta(minutes=1))
        await workflow.sleep(1)


async def ask(client: Client, chat: str, prompt: str, screen: list[str]) -> str:
    """Start the workflow, and show what arrives."""
    handle = await client.start_workflow(Chat.run, prompt, id=chat, task_queue="streams")
    stream = WorkflowStreamClient.create(client, handle.id)
    async for item in stream.subscribe(["words"], result_type=str):
        if item.data == END:
            break
        screen.append(item.data)
    return "".join(screen)


async def main() -> None:
    """Run the worker and ask once."""
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    async with Worker(client, task_queue="streams", workflows=[Chat], activities=[answer]):
        prompt = " ".join(sys.argv[1:]) or "a lighthouse"
        print(await ask(client, f"chat-{uuid.uuid4()}", prompt, []))


if __name__ == "__main__":
    asyncio.run(main())
