"""An agent of A2A: its worker, its server, and a client that sees the poem grow."""

import asyncio
import os
import uuid

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.types import (
    AgentCard,
    AgentSkill,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    TaskState,
)
from temporalio.worker import Worker

from streamq import StreamWriter
from streamq.a2a import AgentPlugin
from streamq.a2a.server import Agent, create_app
from streamq.gateway import serve
from streamq.temporal import StreamqPlugin, connect, streaming_activity

PORT = int(os.environ.get("PORT", "8017"))


@streaming_activity
async def write_poem(stream: StreamWriter, subject: str) -> None:
    """Send a poem word by word. The activity knows nothing of A2A."""
    for word in f"The {subject} says nothing, and the sea repeats it.".split():
        await stream.send_chunk(word + " ")
        await asyncio.sleep(0.1)


agent = Agent(
    card=AgentCard(
        name="Poet",
        description="Writes a poem about what you name",
        version="1",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="poem", name="Poem", description="A short poem", tags=["poem"])],
    ),
    task_queue="poems",
    activity=write_poem,
    url=f"http://127.0.0.1:{PORT}",
)


def show(event: StreamResponse) -> None:
    """Print what an event says."""
    if event.HasField("artifact_update"):
        print(event.artifact_update.artifact.parts[0].text, end="", flush=True)
    elif event.HasField("status_update"):
        print(f"\n{TaskState.Name(event.status_update.status.state)}")


async def main() -> None:
    """Run the worker and the server, and ask the agent as any client does."""
    client = await connect(plugins=[StreamqPlugin(), AgentPlugin()])
    async with (
        Worker(client, task_queue="poems", activities=[write_poem]),
        serve(create_app(agent, client=client), port=PORT),
        httpx.AsyncClient(timeout=60) as http,
    ):
        poet = await ClientFactory(ClientConfig(httpx_client=http)).create_from_url(agent.url)
        message = Message(
            message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[Part(text="lighthouse")]
        )
        async for event in poet.send_message(SendMessageRequest(message=message)):
            show(event)


if __name__ == "__main__":
    asyncio.run(main())
