"""Workflows that somebody has changed without a thought for those that are running."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow


class _Changed:
    async def change(self) -> None:
        await workflow.execute_activity("news", start_to_close_timeout=timedelta(seconds=1))


@workflow.defn(name="Follows")
class ChangedFollows(_Changed):
    @workflow.run
    async def run(self, activity: str, args: list[Any], options: Any) -> None:
        await self.change()


@workflow.defn(name="Continues")
class ChangedContinues(_Changed):
    @workflow.run
    async def run(self, state: Any) -> None:
        await self.change()


@workflow.defn(name="streamq.Stream")
class ChangedStream(_Changed):
    @workflow.run
    async def run(self, request: Any, state: Any = None) -> None:
        await self.change()


@workflow.defn(name="streamq.Produce")
class ChangedProduce(_Changed):
    @workflow.run
    async def run(self, request: Any) -> None:
        await self.change()


@workflow.defn(name="streamq.Sweep")
class ChangedSweep(_Changed):
    @workflow.run
    async def run(self, request: Any) -> None:
        await self.change()


@workflow.defn(name="Gateway")
class ChangedGateway(_Changed):
    @workflow.run
    async def run(self, received: Any = None) -> None:
        await self.change()


CHANGED = [
    ChangedFollows,
    ChangedContinues,
    ChangedStream,
    ChangedProduce,
    ChangedSweep,
    ChangedGateway,
]
