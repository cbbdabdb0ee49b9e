"""Defines the agents that the tests of A2A talk to: activities, workflows and their cards."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from a2a.types.a2a_pb2 import AgentCard, AgentSkill
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from streamq import StreamWriter
from streamq.a2a import AgentTask, ArtifactNote, FileContent, FileReference, StatusNote, TaskInput
from streamq.temporal import streaming_activity

gates: dict[str, asyncio.Event] = {}
"""The gates of the running test, by name; each test begins without any."""


def gate(name: str) -> asyncio.Event:
    """Return the event for which the activities of a test wait."""
    return gates.setdefault(name, asyncio.Event())


@streaming_activity
async def write(stream: StreamWriter[Any], text: str) -> str:
    """Stream the words of a text; a word ``wait:NAME`` waits for a gate, others do what they say.

    ``fail`` fails the first attempt, ``break`` every one.
    """
    for word in text.split():
        kind, _, name = word.partition(":")
        if kind == "wait":
            await stream.flush()
            await gate(name).wait()
        elif kind == "fail" and activity.info().attempt == 1:
            raise ApplicationError("the secret is 42", next_retry_delay=timedelta(milliseconds=1))
        elif kind == "break":
            raise ApplicationError("the secret is 42", non_retryable=True)
        elif kind != "fail":
            await stream.send_chunk(f"{word} ")
    return text


@streaming_activity(topic="answer")
async def write_answer(stream: StreamWriter[Any], text: str) -> None:
    """Stream one text under a topic of its own, in the second attempt."""
    await stream.send_chunk(text)
    await stream.flush()
    if activity.info().attempt == 1:
        raise ApplicationError("once more", next_retry_delay=timedelta(milliseconds=1))


@streaming_activity
async def write_values(stream: StreamWriter[Any], text: str) -> None:
    """Stream one value of each kind."""
    await stream.send_chunk(StatusNote("looking"))
    await stream.send_chunk(ArtifactNote(name="All", metadata={"page": 1}))
    await stream.send_chunk("text")
    await stream.send_chunk({"rows": [1, 2.5, None]})
    await stream.send_chunk(b"\x00\xff")
    await stream.send_chunk(FileReference("https://example.org/a.bin", "image/png", "a.png"))
    await stream.send_chunk(FileContent.of(b"1,2", "text/csv", "a.csv"))
    await stream.send_chunk({"streamq_a2a": "unknown"})


@workflow.defn
class Planner:
    """Reports, asks, takes the answer, and produces an artifact."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> str:
        async with self.task as task:
            if request.text == "hello":
                task.reply("hello yourself")
                return ""
            if request.text == "reject":
                task.reject("not today")
                return ""
            task.status("thinking")
            answer = await task.ask(
                "On which day?", needs_authentication=request.text == "authenticate"
            )
            task.send_artifact("sum", "one", {"two": 2}, name="Sum", metadata={"of": "two"})
            with task.artifact("answer", name="Answer", metadata={"day": answer.text}):
                await workflow.execute_activity(
                    write_answer, answer.text, start_to_close_timeout=timedelta(seconds=20)
                )
        return answer.text


@workflow.defn
class Extended:
    """Answers with the extensions that its client has activated."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        async with self.task as task:
            task.status(" ".join(request.extensions))


@workflow.defn
class Pair:
    """Runs two activities at the same time, each for an artifact of its own."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        async with self.task as task:
            running = []
            for topic in ("left", "right"):
                with task.artifact(topic):
                    running.append(
                        workflow.start_activity(
                            write, request.text, start_to_close_timeout=timedelta(seconds=20)
                        )
                    )
            await asyncio.gather(*running)


@workflow.defn
class Relay:
    """Asks again and again, each time in a run of its own, until the answer is ``stop``."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        turn = request.state or 1
        async with self.task as task:
            answer = await task.ask(f"question {turn}")
            if answer.text != "stop":
                with task.artifact(f"turn-{turn}"):
                    await workflow.execute_activity(
                        write, answer.text, start_to_close_timeout=timedelta(seconds=20)
                    )
                await task.continue_as_new(turn + 1)


@workflow.defn
class Quiz:
    """Asks one question after the other, and does nothing between them."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        async with self.task as task:
            for number in range(4):
                await task.ask(f"question {number}")


@workflow.defn
class Flaky:
    """Fails in its first run, after its activity has failed; the second run leaves out ``fail``."""

    @workflow.init
    def __init__(self, request: TaskInput) -> None:
        self.task = AgentTask(request)

    @workflow.run
    async def run(self, request: TaskInput) -> None:
        text = request.text
        async with self.task as task:
            task.status(f"run {workflow.info().attempt}")
            if workflow.info().attempt > 1:
                text = text.replace("fail ", "")
            await workflow.execute_activity(
                write,
                text,
                start_to_close_timeout=timedelta(seconds=20),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )


def card(name: str) -> AgentCard:
    """Return a card."""
    return AgentCard(
        name=name,
        description="An agent of the tests",
        version="1",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="any", name="Any", description="Anything", tags=["any"])],
    )
