"""Connections: how they break, come back, and are closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from redis_streams import Bare, OpenAt, StartServer, read_soon
from streamq import BackendUnavailableError, ClosedError, StorageFullError, StreamId
from streamq.driver import Entry
from streamq.testing import FaultProxy, OpenQueue
from streamq_redis._queue import RedisQueue
from streamq_redis.embedded import EmbeddedRedis


async def test_killed_server_fails_blocked_reads_and_the_queue_recovers(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """streamq retries calls that fail; it can do nothing for a reader that waits for ever."""
    server = start_server()
    queue = await open_at(server.url)
    read = read_soon(queue, stream)
    await asyncio.sleep(0.05)
    server.kill()
    async with asyncio.timeout(1):
        with pytest.raises(BackendUnavailableError):
            await read
        with pytest.raises(BackendUnavailableError):
            await read_soon(queue, stream)
        with pytest.raises(BackendUnavailableError):
            await queue.append(stream, [Entry(1, 0, b"x")])
    server.start()
    read = read_soon(queue, stream)
    await asyncio.sleep(0.05)
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert [record.data for record in await read] == [b"x"]


async def test_frozen_server_is_noticed_in_time(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """The connection looks alive and nothing arrives: bounded by block plus timeout."""
    server = start_server()
    queue = await open_at(
        server.url,
        block_seconds=0.3,
        operation_timeout_seconds=0.4,
        connect_timeout_seconds=0.4,
    )
    await queue.append(stream, [Entry(1, 0, b"x")])
    read = read_soon(queue, stream, "1-0")
    await asyncio.sleep(0.05)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(5):
            with pytest.raises(BackendUnavailableError):
                await read
            with pytest.raises(BackendUnavailableError, match="no answer within"):
                await queue.append(stream, [Entry(1, 1, b"y")])
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert [record.data for record in await read_soon(queue, stream, "1-0")] == [b"y"]


async def test_server_that_cannot_write_to_its_disk_is_read_from(
    start_server: StartServer, open_at: OpenAt, stream: StreamId, tmp_path: Path
) -> None:
    """It refuses appends, which drops all connections, and PING, with which each one begins."""
    directory = tmp_path / "data"
    server = start_server(data_dir=directory, arguments=("--save", "3600 1"))
    queue = await open_at(server.url)
    await queue.append(stream, [Entry(1, 0, b"x")])
    read = read_soon(queue, stream, "1-0", wait=1)
    shutil.rmtree(directory)
    async with redis.asyncio.Redis.from_url(server.url) as bare, asyncio.timeout(20):
        await bare.bgsave()
        while (await bare.info("persistence"))["rdb_last_bgsave_status"] != "err":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for _ in range(2):
        with pytest.raises(StorageFullError, match="MISCONF"):
            await queue.append(stream, [Entry(1, 1, b"y")])
    assert await read == []
    assert len(await read_soon(queue, stream)) == 1
    assert (await queue.describe(stream)).records == 1


async def test_cancelled_caller_leaves_the_shared_connection_in_step(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """Cancelling one activity must not shift the answers of all others."""
    server = start_server()
    queue = await open_at(server.url)
    streams = [StreamId("t", f"s{i}") for i in range(60)]
    data = [b"%02d" % i * 20_000 for i in range(60)]
    await queue.append(StreamId("t", "first"), [Entry(1, 0, b"x")])
    async with redis.asyncio.Redis.from_url(server.url) as bare:
        before = [each["id"] for each in await bare.client_list() if each["name"] == "streamq"]
        tasks = [
            asyncio.ensure_future(queue.append(each, [Entry(1, 0, content)]))
            for each, content in zip(streams, data, strict=True)
        ]
        await asyncio.sleep(0)  # now all appends have been submitted
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for at, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) if at % 3 == 0 else result is None
        for at in range(60):
            if at % 3:
                info = await queue.describe(streams[at], last=1)
                assert [data[at]] == [record.data for record in info.last]
        after = [each["id"] for each in await bare.client_list() if each["name"] == "streamq"]
    assert before == after


async def test_dropped_connection_of_an_idle_queue_goes_unnoticed(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """Servers and balancers drop idle connections; the next call simply connects again."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    for each in await bare.client_list():
        if each["name"] == "streamq":
            await bare.client_kill_filter(_id=each["id"])
    await asyncio.sleep(0.05)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert len(await read_soon(queue, stream)) == 2


async def test_stalled_event_loop_drops_no_healthy_connection(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """A worker that computes for too long finds its answers in the socket."""
    queue = await open_at(server.url, operation_timeout_seconds=0.2)
    await queue.append(stream, [Entry(1, 0, b"x")])
    stalled = asyncio.ensure_future(queue.append(stream, [Entry(1, 1, b"y")]))
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 - this is the case
    await stalled


async def test_writers_wait_while_the_network_takes_no_more(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """A server that stalls must not fill the memory of a worker with a thousand streams."""
    server = start_server()
    queue = await open_at(server.url, operation_timeout_seconds=20)
    assert isinstance(queue, RedisQueue)
    await queue.append(stream, [Entry(1, 0, b"x")])
    connection = queue._appender._connection.current
    assert connection is not None
    size, most = 500_000, 0
    os.kill(server.pid, signal.SIGSTOP)
    try:
        tasks = [
            asyncio.ensure_future(queue.append(StreamId("t", f"s{i}"), [Entry(1, 0, bytes(size))]))
            for i in range(60)
        ]
        for _ in range(200):
            await asyncio.sleep(0)
            most = max(most, connection._unsent._bytes)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await asyncio.gather(*tasks)
    assert size < most < 2**20 + 2 * size


async def test_cancelled_close_still_closes(start_server: StartServer, open_at: OpenAt) -> None:
    """A worker that is being shut down cancels everything, and must not leak connections."""
    server = start_server()
    queue = await open_at(server.url)
    await queue.append(StreamId("t", "s"), [Entry(1, 0, b"x")])
    closing = asyncio.ensure_future(queue.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    async with redis.asyncio.Redis.from_url(server.url) as bare, asyncio.timeout(2):
        while any(each["name"] == "streamq" for each in await bare.client_list()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_close_while_connecting_leaks_nothing(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """Closing has to end the blocking connection at every step of connecting."""
    server = start_server()
    async with redis.asyncio.Redis.from_url(server.url) as bare:
        for turns in range(40):
            queue = await open_at(server.url)
            read = read_soon(queue, StreamId("t", "s"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await queue.aclose()
            await asyncio.gather(read, return_exceptions=True)
        async with asyncio.timeout(2):
            while any(each["name"] == "streamq" for each in await bare.client_list()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_cancelling_at_any_step_of_reconnecting_leaves_nothing(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """A request that is cancelled during a fail-over is cancelled again while it cleans up."""
    server = start_server()
    async with (
        FaultProxy("127.0.0.1", server.port) as name,
        redis.asyncio.Redis.from_url(server.url) as bare,
    ):
        before = asyncio.all_tasks()
        for turns in range(0, 80, 2):
            queue = await open_at(f"redis://{name.address}/0")
            await queue.append(stream, [Entry(1, turns, b"x")])
            waiting = read_soon(queue, stream, f"1-{turns}")
            await asyncio.sleep(0)
            name.cut()
            tasks = [waiting, asyncio.ensure_future(queue.append(stream, [Entry(2, turns, b"y")]))]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            closing = asyncio.ensure_future(queue.aclose())
            for _ in range(3):
                await asyncio.sleep(0)
                closing.cancel()
            await asyncio.gather(*tasks, closing, return_exceptions=True)
        async with asyncio.timeout(20):
            while any(each["name"] == "streamq" for each in await bare.client_list()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            while any("proxy" not in each.get_name() for each in asyncio.all_tasks() - before):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_close_waits_for_no_lookout(start_server: StartServer, open_at: OpenAt) -> None:
    """The connection with which the name is checked may be in any state."""
    server = start_server()
    async with FaultProxy("127.0.0.1", server.port) as name:
        queue = await open_at(f"redis://{name.address}/0", lookup_seconds=0.1)
        name.hold()
        async with asyncio.timeout(20):
            while name.connections < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await queue.aclose()
    assert not [each for each in asyncio.all_tasks() if "lookout" in each.get_name()]


@pytest.mark.parametrize("asks", ["append", "lookout"])
async def test_close_waits_for_no_name_server(
    start_server: StartServer,
    open_at: OpenAt,
    stream: StreamId,
    monkeypatch: pytest.MonkeyPatch,
    asks: str,
) -> None:
    """A resolution cannot be cancelled, and may take half a minute."""
    server, lookup = start_server(), socket.getaddrinfo
    is_slow, asked, release = False, threading.Event(), threading.Event()

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "primary.test":
            return lookup(host, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        if is_slow:
            asked.set()
            release.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    often = {"lookup_seconds": 0.1} if asks == "lookout" else {}
    queue = await open_at("redis://primary.test:6379/0", **often)
    is_slow = True
    tasks = []
    if asks == "append":
        tasks.append(asyncio.ensure_future(queue.append(stream, [Entry(1, 0, b"x")])))
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(asked.wait, 20)
            await queue.aclose()
            for task in tasks:
                with pytest.raises(ClosedError):
                    await task
    finally:
        release.set()
