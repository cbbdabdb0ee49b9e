"""Workflows that receive a stream by signals, imported by the sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from temporalio import workflow

from streamq import Chunk, Reset
from streamq.temporal import BATCH_SIGNAL, InboxState, StreamInbox


@dataclass
class Received:
    """What a receiver has, and hands to its next run."""

    inbox: InboxState = field(default_factory=InboxState)
    offsets: list[int] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    runs: int = 1


@workflow.defn
class Gateway:
    """Stands for a gateway workflow: takes what an agent's workflow streams."""

    @workflow.init
    def __init__(self, received: Received | None = None) -> None:
        self._received = received or Received()
        self._inbox = StreamInbox[Any](self._received.inbox)
        self._signals = 0

    @workflow.signal(name=BATCH_SIGNAL)
    def on_batch(self, batch: dict[str, Any]) -> None:
        self._signals += 1
        self._inbox.put(batch)

    @workflow.query
    def signals(self) -> int:
        return self._signals

    @workflow.query
    def told(self) -> list[Any]:
        return self._received.told

    @workflow.run
    async def run(self, received: Received | None = None) -> Received:
        found = self._received
        async for event in self._inbox:
            found.offsets.append(event.offset)
            if isinstance(event, Chunk):
                found.told.append(event.value)
            elif isinstance(event, Reset):
                found.told.append("reset")
            else:
                found.told.append(str(event.to_dict().get("state")))
            if workflow.info().is_continue_as_new_suggested():
                found.inbox = self._inbox.state()
                found.runs += 1
                workflow.continue_as_new(found)
        return found


@workflow.defn
class Observer:
    """Stands for a dashboard: keeps the progress that it is told."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []

    @workflow.signal(name="streamq.progress")
    def on_progress(self, progress: dict[str, Any]) -> None:
        self._seen.append(progress)

    @workflow.run
    async def run(self, chunks: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(60):
            await workflow.wait_condition(
                lambda: bool(self._seen) and self._seen[-1]["chunks"] == chunks
            )
        return self._seen
