"""Two agents: one calls the other over A2A, and streams what it writes on into its own artifact.

    client ---- A2A ---- Editor: a workflow             on one task queue
                            | order    asks the Writer for a text; returns the task's id
                            | relay    follows that task, chunk by chunk
                            |   ^
                            |   | A2A
                            v   |
                         Writer: one activity           on another; it could be anybody's agent

The id of the Writer's task is in the history of the Editor's workflow before the first word is
read. So a retry of ``relay`` asks for nothing twice and loses nothing: ``follow_task`` begins with
the task as it is. ``--fail-once`` shows it. Needs a Temporal server:

    python docs/examples/a2a_two_agents.py --fail-once
"""

import argparse
import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.worker import Worker

from streamq import StreamWriter
from streamq.a2a import AgentPlugin, AgentTask, TaskInput
from streamq.temporal import StreamqPlugin, connect, streaming_activity

with workflow.unsafe.imports_passed_through():  # the workflow uses nothing of these
    import httpx
    from a2a.client import Client, ClientConfig, ClientFactory
    from a2a.types import (
        AgentCard,
        AgentSkill,
        Artifact,
        CancelTaskRequest,
        Message,
        Part,
        Role,
        SendMessageConfiguration,
        SendMessageRequest,
        StreamResponse,
        TaskState,
    )

    from streamq.a2a.client import follow_task
    from streamq.a2a.server import Agent, create_app
    from streamq.devserver import free_port
    from streamq.gateway import serve

MINUTE, HEARTBEAT = timedelta(minutes=1), timedelta(seconds=10)


@asynccontextmanager
async def calling(url: str, *, streaming: bool = True) -> AsyncIterator[Client]:
    """Open the SDK's client for the agent at an address."""
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=60)) as http:
        config = ClientConfig(httpx_client=http, streaming=streaming)
        yield await ClientFactory(config).create_from_url(url)


def said(text: str, message_id: str) -> Message:
    """Return a message of one text."""
    return Message(message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)])


@streaming_activity
async def compose(stream: StreamWriter, subject: str) -> None:
    """The Writer: stand for a model, and send a text word by word."""
    for word in f"The {subject} says nothing, and the sea repeats it.".split():
        await stream.send_chunk(f"{word} ")
        await asyncio.sleep(0.05)


class Desk:
    """The Editor's activities, which are clients of the Writer.

    Args:
        writer_url: Where the Writer is.
        fails_once: Whether the first attempt to relay fails in the middle.
    """

    def __init__(self, writer_url: str, *, fails_once: bool) -> None:
        self._writer_url, self._fails_once = writer_url, fails_once

    @activity.defn
    async def order(self, subject: str) -> str:
        """Ask the Writer for a text, and return the id of its task at once."""
        message = said(subject, message_id=str(activity.info().workflow_id))
        at_once = SendMessageConfiguration(return_immediately=True)
        async with calling(self._writer_url, streaming=False) as writer:
            request = SendMessageRequest(message=message, configuration=at_once)
            [answer] = [each async for each in writer.send_message(request)]
        return answer.task.id

    @streaming_activity
    async def relay(self, stream: StreamWriter, task_id: str) -> None:
        """Send the Writer's artifact on, until its task ends."""
        fails = self._fails_once and activity.info().attempt == 1
        async with calling(self._writer_url) as writer:
            try:
                await self._copy(writer, task_id, stream, fails=fails)
            except asyncio.CancelledError:  # whoever stops the Editor stops the Writer, too
                await writer.cancel_task(CancelTaskRequest(id=task_id))
                raise

    async def _copy(
        self, writer: Client, task_id: str, stream: StreamWriter, *, fails: bool
    ) -> None:
        story, sent = Story(), ""
        async with aclosing(follow_task(writer, task_id)) as events:
            async for event in events:
                story.take(event)
                if not story.text.startswith(sent):
                    raise RuntimeError("the Writer has begun anew, so this attempt does, too")
                if new := story.text.removeprefix(sent):
                    await stream.send_chunk(new)
                    sent = story.text
                if fails and len(sent) > 20:
                    await stream.flush()
                    raise ConnectionError("the first attempt dies here")
        if story.state != TaskState.TASK_STATE_COMPLETED:
            raise RuntimeError(f"the Writer's task has ended: {TaskState.Name(story.state)}")


class Story:
    """What the events of the Writer's task say so far."""

    def __init__(self) -> None:
        self.text = ""
        self.state = TaskState.TASK_STATE_UNSPECIFIED

    def take(self, event: StreamResponse) -> None:
        """Take an event. A task comes first, and after a lost connection: it is the whole."""
        if event.HasField("task"):
            self.state = event.task.status.state
            self.text = "".join(text_of(each) for each in event.task.artifacts)
        elif event.HasField("status_update"):
            self.state = event.status_update.status.state
        elif event.HasField("artifact_update"):
            update = event.artifact_update
            self.text = (self.text if update.append else "") + text_of(update.artifact)


def text_of(artifact: Artifact) -> str:
    """Return the text of an artifact, or of an update of one."""
    return "".join(part.text for part in artifact.parts)


@workflow.defn
class Editor:
    """A task of A2A that has another one do the writing."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        """Order a text, and relay it."""
        async with self.task as task:
            task.status("asking the Writer")
            task_id = await workflow.execute_activity_method(
                Desk.order, request.text, start_to_close_timeout=MINUTE
            )
            with task.artifact("story", name="Story"):
                await workflow.execute_activity_method(
                    Desk.relay, task_id, start_to_close_timeout=MINUTE, heartbeat_timeout=HEARTBEAT
                )


def card(name: str, description: str) -> AgentCard:
    """Return how an agent presents itself."""
    return AgentCard(
        name=name,
        description=description,
        version="1",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="text", name="Text", description=description, tags=["text"])],
    )


async def ask(url: str, subject: str) -> None:
    """Ask the Editor as any client does, and print what happens."""
    async with calling(url) as editor:
        request = SendMessageRequest(message=said(subject, str(uuid.uuid4())))
        async for event in editor.send_message(request):
            if event.HasField("artifact_update"):
                update = event.artifact_update
                if not update.append:
                    print("-- the story begins --")
                print(text_of(update.artifact))
            elif event.HasField("status_update"):
                status = event.status_update.status
                notes = [part.text for part in status.message.parts]
                print("--", TaskState.Name(status.state), *notes, "--")


async def main(subject: str, *, fails_once: bool) -> None:
    """Run both agents, each with a worker and a server, and ask the first one."""
    client = await connect(plugins=[StreamqPlugin(), AgentPlugin()])
    ports = free_port(), free_port()
    editor_url, writer_url = (f"http://127.0.0.1:{port}" for port in ports)
    editor = Agent(
        card=card("Editor", "Has a text written"),
        task_queue="editor",
        workflow=Editor,
        url=editor_url,
    )
    writer = Agent(
        card=card("Writer", "Writes a text"), task_queue="writer", activity=compose, url=writer_url
    )
    desk = Desk(writer_url, fails_once=fails_once)
    async with (
        Worker(client, task_queue="writer", activities=[compose]),
        Worker(
            client,
            task_queue="editor",
            workflows=[Editor],
            activities=[desk.order, desk.relay],
        ),
        serve(create_app(writer, client=client), port=ports[1]),
        serve(create_app(editor, client=client), port=ports[0]),
    ):
        await ask(editor_url, subject)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", nargs="?", default="lighthouse", help="what to write about")
    parser.add_argument("--fail-once", action="store_true", help="the first attempt to relay fails")
    given = parser.parse_args()
    asyncio.run(main(given.subject, fails_once=given.fail_once))
