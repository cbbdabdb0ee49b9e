"""Requests that nothing answers fail in time, and name what is missing."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest

from streamq import ConfigurationError
from streamq.devserver import TemporalDevServer
from streamq.driver import BackendUnavailableError, Entry, QueueOptions
from streamq.testing import FaultProxy, new_stream
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings
from streamq_workflow_streams.embedded import EmbeddedHosts

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


def settings_for(server: TemporalDevServer, **options: Any) -> WorkflowStreamsSettings:
    """Return settings that lead to a server."""
    return WorkflowStreamsSettings(address=server.address, **options)


async def test_missing_worker_is_reported_within_the_deadline(server: TemporalDevServer) -> None:
    """Forgetting the worker is the first mistake; it must not look like a slow network."""
    settings = settings_for(
        server, task_queue=f"no-worker-{uuid.uuid4().hex}", operation_timeout_seconds=1
    )
    stream = new_stream()
    async with await WorkflowStreamsDriver.open(OPTIONS, settings) as queue:
        async with asyncio.timeout(4):
            with pytest.raises(BackendUnavailableError, match="python -m streamq_workflow_streams"):
                await queue.append(stream, [Entry(1, 0, b"a")])
            with pytest.raises(BackendUnavailableError, match="no worker polls task queue"):
                await queue.describe(stream)
        # The append that failed may be stored or not. Repeating it stores it exactly once.
        with EmbeddedHosts(server.address, settings):
            async with asyncio.timeout(30):
                while True:
                    try:
                        await queue.append(stream, [Entry(1, 0, b"a")])
                        break
                    except BackendUnavailableError:
                        continue
            assert (await queue.describe(stream)).records == 1


async def test_deadlines_of_waiting_queries_do_not_add_up(server: TemporalDevServer) -> None:
    """Queries of one stream run one after the other; if the server hangs, all must fail in time."""
    stream, count = new_stream(), 12
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:
            await queue.append(stream, [Entry(1, 0, b"a")])
        settings = WorkflowStreamsSettings(address=proxy.address, operation_timeout_seconds=1)
        async with await WorkflowStreamsDriver.open(OPTIONS, settings) as queue:
            proxy.hold()
            queries = [asyncio.ensure_future(queue.describe(stream)) for _ in range(count)]
            _, late = await asyncio.wait(queries, timeout=count / 2)
            proxy.heal()
            outcomes = await asyncio.gather(*queries, return_exceptions=True)
    assert not late
    assert {type(outcome) for outcome in outcomes} == {BackendUnavailableError}


async def test_missing_namespace_is_reported_at_open(server: TemporalDevServer) -> None:
    """Otherwise a mistyped namespace would look like a stream that is never written."""
    with pytest.raises(ConfigurationError, match="has no namespace 'elsewhere'"):
        await WorkflowStreamsDriver.open(OPTIONS, settings_for(server, namespace="elsewhere"))
