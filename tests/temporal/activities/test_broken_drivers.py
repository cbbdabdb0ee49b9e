"""Activities over a driver that breaks the contract fail for good."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from tests.core.broken_driver import AcmeQueue, Defect, raising, returning

from streamq import Settings, open_writer
from streamq.driver import ChunkQueue
from streamq.temporal import PollRequest, poll
from streamq.temporal.activities._context import ActivityContext, current


@pytest.mark.parametrize("defect", [returning(None), raising(KeyError("k"))], ids=["None", "error"])
async def test_a_poll_fails_without_a_retry(
    client: Client, queue: ChunkQueue, settings: Settings, defect: Defect
) -> None:
    """The next attempt would meet the same defect, and the workflow would wait for ever."""
    async with open_writer("wf/run/default", queue=queue, settings=settings) as writer:
        await writer.send_chunk("x")
    broken = AcmeQueue(queue, read=defect)
    current.set(ActivityContext(broken, settings, client, None))
    async with asyncio.timeout(10):
        with pytest.raises(ApplicationError, match="backend 'acme' broke the contract") as caught:
            await ActivityEnvironment().run(poll, PollRequest("wf/run/default"))
    assert caught.value.type == "DriverError"
    assert caught.value.non_retryable
