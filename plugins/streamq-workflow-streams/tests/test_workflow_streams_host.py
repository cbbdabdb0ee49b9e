"""Hosts continue in new runs without losing a record, refuse what they must, and end in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.contrib.workflow_streams import WorkflowStreamClient

from streamq import open_reader, open_writer
from streamq.devserver import TemporalDevServer
from streamq.driver import (
    START,
    ChunkQueue,
    Entry,
    QueueOptions,
    StorageFullError,
    Stored,
    StreamId,
)
from streamq.testing import new_stream
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


def settings_for(server: TemporalDevServer, **options: Any) -> WorkflowStreamsSettings:
    """Return settings that lead to a server."""
    return WorkflowStreamsSettings(address=server.address, **options)


def host_id(stream: StreamId) -> str:
    """Return the workflow id of a stream's host."""
    return f"streamq-host/{stream}"


async def test_stream_is_complete_across_many_runs_while_a_reader_follows(
    server: TemporalDevServer,
) -> None:
    """A workflow run ends at its limits; a reader must not notice where."""
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


async def test_a_dozen_readers_that_have_left_or_still_wait_keep_no_append_out(
    server: TemporalDevServer,
) -> None:
    """A browser that leaves a quiet stream leaves a poll; ten of them must not end the producer."""
    stream = new_stream()
    settings = settings_for(server, operation_timeout_seconds=5)
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> ChunkQueue:
            return await stack.enter_async_context(
                await WorkflowStreamsDriver.open(OPTIONS, settings)
            )

        async def follow(queue: ChunkQueue, after: str) -> str:
            found: Sequence[Stored] = ()
            while not found:
                found = await queue.read(stream, after, max_records=9, max_bytes=99, max_wait=2)
            return found[0].position

        writing = await opened()
        await writing.append(stream, [Entry(7, 0, b"a")])
        first = await follow(writing, START)
        for _ in range(12):
            leaving = await opened()
            waiting = asyncio.ensure_future(follow(leaving, first))
            await asyncio.wait({waiting}, timeout=0.2)  # until its poll has reached the host
            await leaving.aclose()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        staying = [asyncio.ensure_future(follow(await opened(), first)) for _ in range(12)]
        await asyncio.wait(staying, timeout=1)
        await writing.append(stream, [Entry(7, 1, b"b")])
        assert set(await asyncio.gather(*staying)) == {"7-1"}


async def test_any_client_of_workflow_streams_can_subscribe_and_none_can_write(
    server: TemporalDevServer,
) -> None:
    """Readers in other languages need no driver; an unfenced writer would corrupt the stream."""
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


async def test_full_stream_refuses_appends_and_keeps_its_records(
    server: TemporalDevServer,
) -> None:
    """A host whose state exceeds the input of its next run could never continue."""
    stream, size = new_stream(), 200_000
    async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:
        for index in range(9):
            await queue.append(stream, [Entry(1, index, bytes(size))])
        with pytest.raises(StorageFullError, match="keeps at most 1835008"):
            await queue.append(stream, [Entry(1, 9, bytes(size))])
        # It still continues as new.
        client = await Client.connect(server.address)
        runs = set()
        for _ in range(120):
            await queue.append(stream, [Entry(1, 0, b"")])
            runs.add((await client.get_workflow_handle(host_id(stream)).describe()).run_id)
        assert len(runs) > 1
        assert (await queue.describe(stream)).size_bytes == 9 * size


async def test_host_completes_when_the_stream_expires(server: TemporalDevServer) -> None:
    """Hosts that never end would fill the namespace with thousands of open workflows."""
    stream = new_stream()
    client = await Client.connect(server.address)
    async with await WorkflowStreamsDriver.open(OPTIONS, settings_for(server)) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")], ttl=timedelta(seconds=0.3))
        await client.get_workflow_handle(host_id(stream)).result()
        found = await client.get_workflow_handle(host_id(stream)).describe()
        assert found.status is WorkflowExecutionStatus.COMPLETED
