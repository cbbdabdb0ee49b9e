"""Defines workflows that choose the topics of their turns; the sandbox imports them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from streamq import BlockingStreamWriter, Chunk, StreamWriter
from streamq.temporal import StreamRequest, stream_activity, stream_topic, streaming_activity

MINUTE = timedelta(minutes=1)
BEAT = timedelta(seconds=5)
TIMEOUTS: Any = {"start_to_close_timeout": MINUTE, "heartbeat_timeout": BEAT}


@streaming_activity
async def speak(text: str, stream: StreamWriter[str]) -> str:
    await stream.send_chunk(text)
    return text


@streaming_activity
def speak_in_thread(text: str, stream: BlockingStreamWriter[str]) -> str:
    stream.send_chunk(text)
    return text


@streaming_activity
async def speak_by_yielding(text: str) -> AsyncIterator[str]:
    yield text


@streaming_activity(topic="declared")
async def speak_as_declared(text: str, stream: StreamWriter[str]) -> str:
    await stream.send_chunk(text)
    return text


@streaming_activity
async def speak_twice(text: str, stream: StreamWriter[str]) -> str:
    await stream.send_chunk(text)
    await stream.flush()
    await asyncio.sleep(0.3)  # the other call ends meanwhile
    await stream.send_chunk(text)
    return text


class Speaker:
    @streaming_activity
    async def speak_by_method(self, text: str, stream: StreamWriter[str]) -> str:
        await stream.send_chunk(text)
        return text


FUNCTIONS: dict[str, Any] = {
    "function": speak,
    "thread": speak_in_thread,
    "generator": speak_by_yielding,
    "declared": speak_as_declared,
    "method": Speaker.speak_by_method,
    "name": "speak",
}


async def _texts(stream: Any) -> list[str]:
    async with stream:
        found = [event.value async for event in stream if isinstance(event, Chunk)]
        await stream.result()
    return found


async def _called(shape: str, text: str) -> list[str] | None:
    match shape:
        case "execute_activity":
            await workflow.execute_activity(speak, text, **TIMEOUTS)
        case "start_activity":
            await workflow.start_activity(speak, text, **TIMEOUTS)
        case "execute_local_activity":
            await workflow.execute_local_activity(speak, text, start_to_close_timeout=MINUTE)
        case "execute_activity_method":
            await workflow.execute_activity_method(Speaker.speak_by_method, text, **TIMEOUTS)
        case "detached":
            return await _texts(stream_activity(speak, text, detached=True, **TIMEOUTS))
        case "task":
            return await asyncio.create_task(_texts(stream_activity(speak, text, **TIMEOUTS)))
        case _:
            return await _texts(stream_activity(FUNCTIONS[shape], text, **TIMEOUTS))
    return None


@workflow.defn
class ChoosesTopics:
    """Takes two turns, each with a topic of its own; returns what each of them read."""

    @workflow.run
    async def run(self, shape: str) -> list[list[str] | None]:
        found = []
        for turn in ("turn-1", "turn-2"):
            with stream_topic(turn):
                found.append(await _called(shape, turn))
        return found


@workflow.defn
class NamesTheTopic:
    """Names a topic for one call inside a block that chooses another one."""

    @workflow.run
    async def run(self) -> list[str]:
        with stream_topic("chosen"):
            stream = stream_activity(speak, "text", topic="named", **TIMEOUTS)
        return [stream.stream.rpartition("/")[2], *await _texts(stream)]


@workflow.defn
class StartsAChild:
    """Starts the generic workflow inside a block that chooses a topic."""

    @workflow.run
    async def run(self) -> dict[str, Any]:
        with stream_topic("chosen"):
            result: dict[str, Any] = await workflow.execute_child_workflow(
                "streamq.Stream", StreamRequest("speak", ["text"])
            )
        return result


@workflow.defn
class TwoTurnsOnOneTopic:
    """Takes two turns on one topic; the argument states how it leaves the second one."""

    @workflow.run
    async def run(self, leaving: str, detached: bool) -> str:
        await _texts(stream_activity(speak, "turn-1", detached=detached, **TIMEOUTS))
        second = stream_activity(speak, "turn-2", detached=detached, **TIMEOUTS)
        async with second:
            if leaving == "unread":
                future = second._producer.future  # a call that never began was not refused
                assert future is not None
                await workflow.wait([future])
                return "left"
            try:
                async for _ in second:
                    if leaving == "early":
                        break
                if leaving == "caught":
                    await second.result()
            except ActivityError:
                if leaving != "caught":
                    raise
                return "caught"
            if leaving == "own error":
                raise ApplicationError("of the workflow", type="OwnError")
        return "left"


@workflow.defn
class TwoAtOnceOnOneTopic:
    """Calls twice in one workflow task on one topic; returns what each call read or raised."""

    @workflow.run
    async def run(self) -> list[Any]:
        calls = [_texts(stream_activity(speak_twice, name, **TIMEOUTS)) for name in ("one", "two")]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return [
            getattr(each.cause, "type", None) if isinstance(each, ActivityError) else each
            for each in found
        ]
