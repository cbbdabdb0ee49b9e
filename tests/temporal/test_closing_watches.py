"""Tests the watches for the end of a workflow and of a standalone activity.

Both long-poll. A server whose long polls return at once makes each of them ask again and again:
the pause between polls is one mechanism (``LongPolls``), and each watch is checked here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import Client
from tests.temporal.support.standalone import begin

from streamq.devserver import TemporalDevServer
from streamq.temporal._activity_closing import ActivityClosingWatch
from streamq.temporal._closing import ClosingWatch

_AT_ONCE = {
    "activity.longPollTimeout": '"1ms"',
    "activity.longPollBuffer": '"1ms"',
    "history.longPollExpirationInterval": '"1ms"',
}
_SECONDS = 0.7  # pauses of 0.05, 0.1, 0.2 and 0.4 s


class CountedActivityWatch(ActivityClosingWatch):
    """Counts answers."""

    answers = 0

    def answered(self) -> None:
        self.answers += 1
        super().answered()


class CountedWorkflowWatch(ClosingWatch):
    """Counts answers."""

    answers = 0

    def answered(self) -> None:
        self.answers += 1
        super().answered()


async def test_long_polls_that_return_at_once_make_few_requests() -> None:
    """A server may wait as briefly as it likes; the watch still reports the end."""
    with TemporalDevServer(dynamic_config=_AT_ONCE) as server:
        client = await Client.connect(server.address)
        handle = await begin(client, "nobody", "anything")
        workflow = await client.start_workflow("Anything", id="wf", task_queue="nobody")
        of_activity = CountedActivityWatch(client, handle.id)
        of_workflow = CountedWorkflowWatch(client, workflow.id)
        watching: list[asyncio.Task[Any]] = [
            asyncio.create_task(of_activity.wait(str(handle.run_id))),
            asyncio.create_task(of_workflow.wait_run(None)),
        ]
        await asyncio.wait(watching, timeout=_SECONDS)
        found = (of_activity.answers, of_workflow.answers)
        await handle.terminate()
        await workflow.terminate()
        async with asyncio.timeout(10):
            status, event = await asyncio.gather(*watching)
    assert status == "TERMINATED"
    assert event.HasField("workflow_execution_terminated_event_attributes")
    assert max(found) <= 6, found
