"""Hosts: they go from run to run without losing a record, and say so when nobody runs them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.contrib.workflow_streams import WorkflowStreamClient

from streamq import ConfigurationError, open_reader, open_writer
from streamq.devserver import TemporalDevServer
from streamq.driver import (
    START,
    BackendUnavailableError,
    Entry,
    QueueOptions,
    StorageFullError,
    StreamId,
)
from streamq.testing import FaultProxy, new_stream
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


def settings_for(server: TemporalDevServer, **options: Any) -> WorkflowStreamsSettings:
    """Return settings that lead to a server."""
    return WorkflowStreamsSettings(address=server.address, **options)


def host_id(stream: StreamId) -> str:
    """Return the workflow id of a stream's host."""
    return f"streamq-host/{stream}"


async def test_stream_crosses_many_runs_complete_while_it_is_followed(
    server: TemporalDevServer,
) -> None:
    """A run of a workflow ends by its limits; the text must not show where."""
    stream, count = new_stream(), 150
    runs = set()
    client = await Client.connect(server.address)
    async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:

        async def follow() -> list[object]:
            async with open_reader(stream, queue=queue) as reader:
                return [event async for event in reader]

        following = asyncio.ensure_future(follow())
        async with open_writer(stream, queue=queue) as writer:
            for i in range(count):
                await writer.send_chunk(i)
                await writer.flush()
                if i % 10 == 0:
                    host = await client.get_workflow_handle(host_id(stream)).describe()
                    runs.add(host.run_id)
        live = await following
        assert [getattr(event, "value", None) for event in live[:-1]] == [*range(count)]
        async with open_reader(stream, queue=queue) as reader:
            assert [event async for event in reader] == live
    assert len(runs) > 3


async def test_any_client_of_workflow_streams_can_subscribe_and_none_can_write(
    server: TemporalDevServer,
) -> None:
    """Readers in other languages need no driver; a writer past the fence would spoil the text."""
    stream = new_stream()
    client = await Client.connect(server.address)
    hosted = WorkflowStreamClient.create(client, host_id(stream))
    async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:
        await queue.append(stream, [Entry(7, 0, b"a"), Entry(7, 3, b"\0b")])
        async with hosted:
            hosted.topic("7-4").publish("forged")
        await queue.append(stream, [Entry(7, 5, b"c")])
        found = []
        async for item in hosted.subscribe(result_type=RawValue):
            found.append((item.topic, item.data.payload.data, item.offset))
            if len(found) == 3:
                break
        assert found == [("7-0", b"a", 0), ("7-3", b"\0b", 1), ("7-5", b"c", 2)]
        read = await queue.read(stream, START, max_records=9, max_bytes=99, max_wait=0)
        assert [record.data for record in read] == [b"a", b"\0b", b"c"]


async def test_worker_that_nobody_runs_is_told_within_the_deadline(
    server: TemporalDevServer, start_host: Callable[[str, str], AbstractContextManager[object]]
) -> None:
    """Forgetting the worker is the first mistake: it must not look like a slow network."""
    settings = settings_for(
        server, task_queue=f"nobody-{uuid.uuid4().hex}", operation_timeout_seconds=1
    )
    stream = new_stream()
    async with await WorkflowStreamsDriver.open(OPTIONS, settings) as queue:
        async with asyncio.timeout(4):
            with pytest.raises(BackendUnavailableError, match="python -m streamq_workflow_streams"):
                await queue.append(stream, [Entry(1, 0, b"a")])
            with pytest.raises(BackendUnavailableError, match="no worker polls task queue"):
                await queue.describe(stream)
        # What was asked for in vain may have been stored later or not: the repeat settles it.
        with start_host(server.address, settings.task_queue):
            async with asyncio.timeout(30):
                while True:
                    try:
                        await queue.append(stream, [Entry(1, 0, b"a")])
                        break
                    except BackendUnavailableError:
                        continue
            assert (await queue.describe(stream)).records == 1


async def test_server_that_hangs_is_not_waited_for_in_turn(server: TemporalDevServer) -> None:
    """Questions about one stream go one after the other; their deadlines must not add up."""
    stream, asked = new_stream(), 12
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        settings = WorkflowStreamsSettings(address=proxy.address, operation_timeout_seconds=1)
        async with await WorkflowStreamsDriver.open(OPTIONS, settings) as queue:
            await queue.append(stream, [Entry(1, 0, b"a")])
            proxy.hold()
            asking = [asyncio.ensure_future(queue.describe(stream)) for _ in range(asked)]
            _, late = await asyncio.wait(asking, timeout=asked / 2)
            proxy.heal()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert not late
    assert {type(outcome) for outcome in outcomes} == {BackendUnavailableError}


async def test_stream_that_is_full_refuses_and_keeps_what_it_has(
    server: TemporalDevServer,
) -> None:
    """A host that grew past what its next run can be given would be stuck for good."""
    stream, size = new_stream(), 200_000
    async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:
        for index in range(9):
            await queue.append(stream, [Entry(1, index, bytes(size))])
        with pytest.raises(StorageFullError, match="keeps at most 1835008"):
            await queue.append(stream, [Entry(1, 9, bytes(size))])
        # It still goes from run to run.
        client = await Client.connect(server.address)
        runs = set()
        for _ in range(120):
            await queue.append(stream, [Entry(1, 0, b"")])
            runs.add((await client.get_workflow_handle(host_id(stream)).describe()).run_id)
        assert len(runs) > 1
        assert (await queue.describe(stream)).size_bytes == 9 * size


async def test_host_ends_by_itself_when_the_stream_expires(server: TemporalDevServer) -> None:
    """Workflows that nobody ends are found by the operator after a year, by the thousand."""
    stream = new_stream()
    client = await Client.connect(server.address)
    async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")], ttl=timedelta(seconds=0.3))
        await client.get_workflow_handle(host_id(stream)).result()
        found = await client.get_workflow_handle(host_id(stream)).describe()
        assert found.status is WorkflowExecutionStatus.COMPLETED


async def test_namespace_that_does_not_exist_is_told_at_open(server: TemporalDevServer) -> None:
    """A mistyped namespace looks like a stream that was never written, for ever."""
    with pytest.raises(ConfigurationError, match="has no namespace 'elsewhere'"):
        await WorkflowStreamsDriver.open(OPTIONS, settings_for(server, namespace="elsewhere"))
