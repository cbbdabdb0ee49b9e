"""Waits until a workflow has made progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio.client import Client, WorkflowHandle


async def wait_progress(handle: WorkflowHandle[Any, Any], **wanted: object) -> dict[str, Any]:
    async with asyncio.timeout(90):
        while True:
            progress: dict[str, Any] = await handle.query("progress")
            if wanted.items() <= progress.items():
                return progress
            await asyncio.sleep(0.01)  # a query cannot be waited for


async def reach_later_run(client: Client, handle: WorkflowHandle[Any, Any]) -> None:
    newest = client.get_workflow_handle(handle.id)
    async with asyncio.timeout(90):
        while (await newest.describe()).run_id == handle.first_execution_run_id:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # there is nothing to wait for


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # it has no event
