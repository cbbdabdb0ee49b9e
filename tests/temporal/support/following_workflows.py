"""Defines workflows that read their activities' streams; the sandbox imports them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from streamq import Chunk, Event, Reset, Seal
from streamq.temporal import Handover, resume_stream, stream_activity, stream_topic

HOUR = timedelta(hours=1)
BEAT = timedelta(seconds=5)


@dataclass
class Word:
    text: str
    number: int


@dataclass
class Options:
    """How to follow a stream; the defaults are those of stream_activity."""

    polling: str = "activity"
    window_ms: int = 100
    detached: bool = False
    topic: str | None = None
    stop_after: int = 0
    max_attempts: int = 0
    start_to_close_seconds: float = 600.0
    max_events: int = 1_000
    max_wait_seconds: float = 60.0
    continue_every: int = 0
    fails_after: int = 0
    task_queue: str | None = None
    block: str | None = None

    def keywords(self) -> Any:
        return {
            "polling": self.polling,
            "window": timedelta(milliseconds=self.window_ms),
            "detached": self.detached,
            "topic": self.topic,
            "max_events": self.max_events,
            "max_wait": timedelta(seconds=self.max_wait_seconds),
            "task_queue": self.task_queue,
            "start_to_close_timeout": timedelta(seconds=self.start_to_close_seconds),
            "heartbeat_timeout": BEAT,
            "retry_policy": RetryPolicy(
                maximum_attempts=self.max_attempts, initial_interval=timedelta(milliseconds=10)
            ),
        }


def short(event: Event[Any]) -> Any:
    if isinstance(event, Chunk):
        return event.value
    return (
        "RESET"
        if isinstance(event, Reset)
        else event.state.name
        if isinstance(event, Seal)
        else "GAP"
    )


@workflow.defn
class Follows:
    """Reads the whole stream of one activity."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._signals = 0

    @workflow.query
    def seen(self) -> list[Any]:
        return self._seen

    @workflow.signal
    def poke(self) -> None:
        self._signals += 1

    @workflow.query
    def signals(self) -> int:
        return self._signals

    @workflow.run
    async def run(self, activity: str, args: list[Any], options: Options) -> list[Any]:
        with stream_topic(options.block) if options.block else contextlib.nullcontext():
            called = stream_activity(activity, args=args, **options.keywords())
        async with called as stream:
            async for event in stream:
                self._seen.append(short(event))
                if len(self._seen) == options.stop_after:
                    break
                if len(self._seen) == options.fails_after:
                    raise workflow.NondeterminismError("never mind")
            else:
                try:
                    self._seen.append(["result", await stream.result()])
                except ActivityError as exc:
                    self._seen.append(["failure", getattr(exc.cause, "type", None) or str(exc)])
        return self._seen


@workflow.defn
class FollowsTyped:
    """Reads values of a type."""

    @workflow.run
    async def run(self) -> list[str]:
        found = []
        stream = stream_activity(
            "send_words",
            value_type=Word,
            result_type=Word,
            start_to_close_timeout=HOUR,
            heartbeat_timeout=BEAT,
        )
        async with stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    found.append(f"{event.value.text} {event.value.number}")
            last = await stream.result()
        return [*found, f"last: {last.text}"]


@workflow.defn
class FollowsTwo:
    """Reads two streams at once."""

    @workflow.run
    async def run(self, chunks: int) -> dict[str, list[Any]]:
        async def follow(topic: str) -> list[Any]:
            options = Options(topic=topic).keywords()
            async with stream_activity("count", chunks, 0.0, topic, **options) as stream:
                return [short(event) async for event in stream]

        left, right = await asyncio.gather(follow("left"), follow("right"))
        return {"left": left, "right": right}


@dataclass
class State:
    """State that a run passes to the next one."""

    activity: str
    args: list[Any]
    options: Options
    runs: int = 1
    sum: int = 0
    next: int = 0
    wrong: int = 0
    endings: int = 0
    handover: Handover | None = None


@workflow.defn
class Continues:
    """Reads a stream of numbers across many runs, and checks their order."""

    def __init__(self) -> None:
        self._state: State | None = None

    @workflow.query
    def state(self) -> State | None:
        return self._state

    @workflow.run
    async def run(self, state: State) -> dict[str, Any]:
        self._state = state
        if state.handover is None:
            options = state.options.keywords()
            stream = stream_activity(state.activity, args=state.args, **options)
        else:
            stream = resume_stream(state.handover)
        async with stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    state.wrong += event.value != state.next
                    state.next += 1
                else:
                    state.endings += isinstance(event, Seal)
                    state.wrong += isinstance(event, Reset)
                every = state.options.continue_every
                if (every and state.next % every == 0) or stream.should_continue_as_new:
                    state.handover = stream.handover()
                    state.runs += 1
                    workflow.continue_as_new(state)
            try:
                result = await stream.result()
            except ActivityError as exc:
                result = f"failed: {getattr(exc.cause, 'type', None)}"
        return {
            "result": result,
            "runs": state.runs,
            "chunks": state.next,
            "wrong": state.wrong,
            "endings": state.endings,
        }


@workflow.defn
class FailsOnce:
    """Fails while its producer works, and is retried by its retry policy."""

    @workflow.run
    async def run(self, activity: str) -> list[Any]:
        seen: list[Any] = []
        async with stream_activity(activity, **Options(detached=True).keywords()) as stream:
            async for event in stream:
                seen.append(short(event))
                if workflow.info().attempt == 1:
                    stream.handover()  # leaves the producer alone
                    raise ApplicationError("of the workflow")
        return seen
