"""Tests workflows over a backend where reading removes records, as on SQS."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import (
    Client,
    CompleteAsyncActivityInput,
    Interceptor,
    OutboundInterceptor,
)
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.kit.mailbox_driver import MailboxQueue, Post
from tests.temporal.support.following_workflows import Follows, Options

from streamq import Settings, StreamWriter
from streamq.temporal import StreamqPlugin, StreamRequest, StreamResult, streaming_activity


class LosesResults(Interceptor):
    """Lets every third poll fail after it has read, and before Temporal has its result."""

    def __init__(self) -> None:
        self.polls = self.lost = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Wrap the calls by which activities that wait outside of slots complete."""
        outer = self

        class Losing(OutboundInterceptor):
            async def complete_async_activity(self, input: CompleteAsyncActivityInput) -> None:
                outer.polls += 1
                if outer.polls % 3 == 0:
                    outer.lost += 1
                    raise ApplicationError("the worker died")
                await super().complete_async_activity(input)

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
        config = client.config() | {"interceptors": interceptors}
        async with Worker(
            Client(**config),
            task_queue=task_queue,
            workflows=[Follows],
            activities=[count_mail],
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


async def test_lost_poll_loses_no_event(execute: Execute) -> None:
    """A message is deleted only once the workflow has its content."""
    losing = LosesResults()
    seen = await execute(100, losing)
    assert seen == [*range(100), "END", ["result", "done"]]
    assert losing.lost


async def test_options_that_read_twice_are_refused(
    client: Client, settings: Settings, task_queue: str
) -> None:
    """A digest would take the stream from its reader; the work itself must not fail."""
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
