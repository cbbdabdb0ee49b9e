"""One text, watched in three places while it is written: by A2A, by server-sent events, by signals.

    A2A client ---- A2A server ----+                    the artifact grows, chunk by chunk
                                   |
    workflow Reporter --- activity write --- stream     the activity knows nothing of A2A
          |                        |
          |          SSE client ---+---- gateway        the same chunks, as a browser reads them
          |
          +-- streamq.forward -- signals -- workflow Gateway      and as another workflow gets them

Whatever dies, goes on: a worker's next attempt replaces the text, and a client that comes back
finds it as it is. Needs a Temporal server (``temporal server start-dev``):

    python docs/examples/a2a_chain.py
"""

import argparse
import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk, Reset, StreamWriter
from streamq.a2a import AgentPlugin, AgentTask, TaskInput
from streamq.temporal import (
    ForwardRequest,
    StreamInbox,
    StreamqPlugin,
    connect,
    find_stream_name,
    forward,
    streaming_activity,
    workflow_stream_name,
)

with workflow.unsafe.imports_passed_through():  # the workflows use nothing of these
    import httpx
    from a2a.client import ClientConfig, ClientFactory
    from a2a.types import AgentCard, AgentSkill, Message, Part, Role, SendMessageRequest

    from streamq import gateway
    from streamq.a2a import server as a2a_server
    from streamq.devserver import free_port

MINUTE, HEARTBEAT = timedelta(minutes=1), timedelta(seconds=10)


@streaming_activity
async def write(stream: StreamWriter, subject: str) -> None:
    """Stand for a model: send a text word by word."""
    for word in f"The {subject} says nothing, and the sea repeats it.".split():
        await stream.send_chunk(f"{word} ")
        await asyncio.sleep(0.05)


@workflow.defn
class Reporter:
    """The agent: a task of A2A, whose artifact is the stream of its activity."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        """Write, and send the text on to the workflow of the gateway."""
        async with self.task:
            reader = await workflow.start_child_workflow(
                Gateway.run, id=f"{workflow.info().workflow_id}-gateway"
            )
            sending = workflow.start_activity(
                forward,
                ForwardRequest(workflow_stream_name(), reader.id),
                start_to_close_timeout=MINUTE,
                heartbeat_timeout=HEARTBEAT,
            )
            await workflow.execute_activity(
                write, request.text, start_to_close_timeout=MINUTE, heartbeat_timeout=HEARTBEAT
            )
            await sending
            await reader


@workflow.defn
class Gateway:
    """Gets the stream as signals. It could be anybody's, in any language, in another team."""

    def __init__(self) -> None:
        self.inbox = StreamInbox()

    @workflow.signal(name="streamq.batch")
    def on_batch(self, batch: dict[str, Any]) -> None:
        """Take what the agent's side sends."""
        self.inbox.put(batch)

    @workflow.run
    async def run(self) -> str:
        """Return the text."""
        text = ""
        async for event in self.inbox:
            if isinstance(event, Reset):  # an attempt failed; the next one starts over
                text = ""
            elif isinstance(event, Chunk):
                text += event.value
        return text


async def watch_a2a(url: str, subject: str, started: asyncio.Future[str]) -> str:
    """Ask the agent as any client of A2A does, and return the text that arrived."""
    text = ""
    async with httpx.AsyncClient(timeout=60) as http:
        agent = await ClientFactory(ClientConfig(httpx_client=http)).create_from_url(url)
        message = Message(
            message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[Part(text=subject)]
        )
        async for event in agent.send_message(SendMessageRequest(message=message)):
            if event.HasField("task"):
                started.set_result(event.task.id)
            update = event.artifact_update
            if event.HasField("artifact_update"):
                new = "".join(part.text for part in update.artifact.parts)
                text = text + new if update.append else new
                print(f"a2a  {new}")
    return text


async def sse_events(url: str) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of a stream, as an ``EventSource`` gets them from the gateway."""
    async with httpx.AsyncClient(timeout=60) as http, http.stream("GET", url) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


async def watch_sse(url: str) -> str:
    """Read the stream from the gateway, and return the text that arrived."""
    text = ""
    async with aclosing(sse_events(url)) as events:
        async for event in events:
            match event["event"]:
                case "chunk":
                    text += event["value"]
                    print(f"sse  {event['value']}")
                case "reset":
                    text = ""
                case "end":
                    break
    return text


def agent_at(url: str) -> "a2a_server.Agent":
    """Declare the agent for A2A: the workflow that a message starts, and how it presents itself."""
    card = AgentCard(
        name="Reporter",
        description="Writes about what you name",
        version="1",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="write", name="Write", description="A text", tags=["text"])],
    )
    return a2a_server.Agent(card=card, task_queue="chain", workflow=Reporter, url=url)


async def main(subject: str) -> None:
    """Run the worker and both servers, and watch the text in three places."""
    client = await connect(plugins=[StreamqPlugin(), AgentPlugin()])
    port = free_port()
    agent = agent_at(f"http://127.0.0.1:{port}")
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with (
        Worker(client, task_queue="chain", workflows=[Reporter, Gateway], activities=[write]),
        gateway.serve(a2a_server.create_app(agent, client=client), port=port),
        gateway.serve(gateway.create_app()) as streams,
    ):
        by_a2a = asyncio.create_task(watch_a2a(agent.url, subject, started))
        # A task of A2A is a workflow of the same id; its stream is named after it.
        workflow_id = await started
        name = await find_stream_name(client.get_workflow_handle(workflow_id))
        by_sse = asyncio.create_task(watch_sse(f"{streams.url}/events/{name}?wait=30"))
        texts = [await by_a2a, await by_sse]
        texts.append(await client.get_workflow_handle(f"{workflow_id}-gateway").result())
    for watcher, text in zip(("a2a", "sse", "signals"), texts, strict=True):
        print(f"{watcher} has it all: {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", nargs="?", default="lighthouse", help="what to write about")
    asyncio.run(main(parser.parse_args().subject))
