"""Workflows over a backend where what is read is gone, as on SQS."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
)
from tests.kit.mailbox_driver import MailboxQueue, Post
from tests.temporal.support.following_workflows import Follows, Options

from streamq import Settings, StreamWriter
from streamq.temporal import StreamqPlugin, StreamRequest, StreamResult, streaming_activity


class LosesResults(Interceptor):
    """Every third poll dies after it has read, and before anybody has its result."""

    def __init__(self) -> None:
        self.polls = self.lost = 0

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap activities."""
        outer = self

        class Losing(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                result = await super().execute_activity(input)
                if input.fn.__name__ == "poll":
                    outer.polls += 1
                    if outer.polls % 3 == 0:
                        outer.lost += 1
                        raise ApplicationError("the worker died")
                return result

        return Losing(next)


@streaming_activity
async def count_mail(chunks: int, stream: StreamWriter) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        if i % 3 == 0:
            await stream.flush()
    return "done"


Execute = Callable[..., Any]


@pytest.fixture
def execute(client: Client, settings: Settings, task_queue: str) -> Execute:
    """Run a workflow that reads a stream from a mailbox; return what it has seen."""

    async def run(chunks: int, *interceptors: Interceptor, **options: Any) -> list[Any]:
        queue = MailboxQueue(Post(), hidden_seconds=0.3)
        async with Worker(
            client,
            task_queue=task_queue,
            workflows=[Follows],
            activities=[count_mail],
            interceptors=interceptors,
            plugins=[StreamqPlugin(queue, settings)],
        ):
            seen: list[Any] = await client.execute_workflow(
                Follows.run,
                args=["count_mail", [chunks], Options(**options)],
                id=f"wf-{uuid.uuid4().hex}",
                task_queue=task_queue,
            )
        return seen

    return run


@pytest.mark.parametrize("polling", ["activity", "local"])
async def test_workflow_reads_every_chunk_once(execute: Execute, polling: str) -> None:
    """The same code and the same result as on any other backend."""
    seen = await execute(100, polling=polling)
    assert seen == [*range(100), "END", ["result", "done"]]


async def test_poll_that_is_lost_loses_nothing(execute: Execute) -> None:
    """A message is only deleted once the workflow has what was in it."""
    losing = LosesResults()
    seen = await execute(100, losing)
    assert seen == [*range(100), "END", ["result", "done"]]
    assert losing.lost


async def test_what_would_have_to_read_twice_is_refused(
    client: Client, settings: Settings, task_queue: str
) -> None:
    """A digest would take the stream from whoever reads it; the work itself must not suffer."""
    queue = MailboxQueue(Post(), hidden_seconds=0.3)
    async with Worker(
        client,
        task_queue=task_queue,
        activities=[count_mail],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        found = await client.execute_workflow(
            "streamq.Stream",
            StreamRequest("count_mail", [3]),
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
            result_type=StreamResult,
        )
    assert found.result == "done"
    assert "replay" in str(found.error)
