"""Workflows that get much at once, imported by the sandbox."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from tests.temporal.support.following_workflows import Options

from streamq import Chunk
from streamq.temporal import BATCH_SIGNAL, InboxState, StreamInbox, stream_activity

SENT = 120


@workflow.defn
class CountsCharacters:
    """Reads a stream of numbered texts, and keeps no more than their length."""

    @workflow.run
    async def run(self, activity: str, args: list[Any], options: Options) -> list[int]:
        chunks = characters = 0
        async with stream_activity(activity, args=args, **options.keywords()) as stream:
            async for event in stream:
                if isinstance(event, Chunk):
                    characters += len(event.value) if event.value.startswith(f"{chunks} ") else 0
                    chunks += 1
        return [chunks, characters]


@workflow.defn
class SlowGateway:
    """Receives by signals, and does not begin before all of them are there."""

    @workflow.init
    def __init__(self, state: InboxState | None = None, chunks: int = 0, runs: int = 1) -> None:
        self._inbox = StreamInbox[str](state)

    @workflow.signal(name=BATCH_SIGNAL)
    def on_batch(self, batch: dict[str, Any]) -> None:
        self._inbox.put(batch)

    @workflow.run
    async def run(
        self, state: InboxState | None = None, chunks: int = 0, runs: int = 1
    ) -> list[int]:
        await workflow.wait_condition(lambda: self._inbox.offset > SENT)
        async for event in self._inbox:
            if isinstance(event, Chunk):
                chunks += event.value.startswith(f"{chunks} ")
                if chunks % 10 == 0:
                    await asyncio.sleep(0.001)  # ends the workflow task
            if self._inbox.should_continue_as_new:
                workflow.continue_as_new(args=[self._inbox.state(), chunks, runs + 1])
        return [chunks, runs]
