"""Fail-over behind one name: the name leads to another server, and every connection follows."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
import trustme
from httpx_sse import aconnect_sse

from redis_pairs import (
    Pair,
    becomes_a_replica,
    changes_roles_by_command,
    command,
    dies,
    goes_silent,
    is_loading,
    records,
    replicated,
    stays_a_primary,
    until,
)
from redis_streams import MuteProxy, OpenAt, StartServer
from streamq import (
    BackendUnavailableError,
    Chunk,
    CursorError,
    Settings,
    StreamId,
    StreamReader,
    StreamWriter,
    TrimmedError,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue
from streamq.gateway import create_app, serve
from streamq.testing import Direction
from streamq_redis._naming import KeySpace


@pytest.fixture
async def pair(start_server: StartServer) -> AsyncIterator[Pair]:
    async with replicated(start_server) as pair:
        yield pair


SETTINGS = Settings(retry_seconds=60, operation_seconds=20)
OPERATION_SECONDS = 1.5
ONE_SERVER = pytest.mark.parametrize("binary", ["valkey"], indirect=True)
"""For what does not depend on the server's program."""
BOTH_SERVERS = pytest.mark.parametrize(
    "binary", ["valkey", pytest.param("redis", marks=pytest.mark.full)], indirect=True
)
"""For what does depend on it, and takes long."""


@pytest.fixture
async def queue(pair: Pair, open_at: OpenAt) -> ChunkQueue:
    """Return a queue at the name, whose requests are soon given up."""
    return await open_at(pair.url, operation_timeout_seconds=0.5)


async def writing(queue: ChunkQueue, stream: StreamId) -> StreamWriter[Any]:
    return await open_writer(stream, queue=queue, settings=SETTINGS)


async def reading(queue: ChunkQueue, stream: StreamId) -> StreamReader[Any]:
    return await open_reader(stream, queue=queue, settings=SETTINGS)


@BOTH_SERVERS
@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (becomes_a_replica, 2.0),
        (changes_roles_by_command, 2.0),
        (goes_silent, 2.0 + OPERATION_SECONDS),
        (dies, 2.0),
        (stays_a_primary, 2.0),
        (is_loading, 2.0),
    ],
)
async def test_everybody_follows_the_name(
    pair: Pair,
    open_at: OpenAt,
    fault: Callable[[Pair], contextlib.AbstractAsyncContextManager[None]],
    seconds: float,
    note: Callable[[str, str], None],
) -> None:
    """After a fail-over a process must not need a restart, whatever its connections were doing."""
    queue = await open_at(
        pair.url,
        operation_timeout_seconds=OPERATION_SECONDS,
        connect_timeout_seconds=OPERATION_SECONDS,
        block_seconds=1.0,
        lookup_seconds=0.5,
    )
    names = ["written", "second"]
    writers = [await writing(queue, StreamId("t", each)) for each in names]
    readers = [await reading(queue, StreamId("t", each)) for each in [*names, "late"]]
    for writer in writers:
        await writer.send_chunk("before")
        await writer.flush()
    for reader in readers[:2]:
        assert await values(reader, 1) == ["before"]
    following = [asyncio.create_task(values(reader, 2)) for reader in readers]
    await asyncio.sleep(0.2)  # the live tail blocks
    async with fault(pair):
        async with asyncio.timeout(60):
            for writer in writers:
                await writer.send_chunk("after")
            await asyncio.gather(*(writer.flush() for writer in writers))
            flushed_at = time.monotonic()
            late = await writing(queue, StreamId("t", "late"))
            await late.send_chunk("before")
            for writer in [*writers, late]:
                await writer.send_chunk("end")
                await writer.finish()
            read = await asyncio.gather(*following)
            listed = {each.stream.name async for each in queue.streams("t")}
    assert read == [["after", "end"], ["after", "end"], ["before", "end"]]
    assert listed == {"written", "second", "late"}
    async with redis.asyncio.Redis.from_url(pair.new.url) as client:
        assert len(await client.keys("streamq:*")) == 3
    took = flushed_at - pair.ready_at
    assert took < 3 * seconds, "three times what an idle machine needs at most"
    note("fail-over", f"{fault.__name__}: the writer went on after {took:.2f} s")


async def values(reader: StreamReader[object], count: int) -> list[object]:
    found: list[object] = []
    while len(found) < count:
        event = await anext(reader)
        assert isinstance(event, Chunk)
        found.append(event.value)
    return found


@ONE_SERVER
@pytest.mark.parametrize("fault", [becomes_a_replica, stays_a_primary])
async def test_gateway_follows_the_name_without_writing(
    pair: Pair,
    open_at: OpenAt,
    fault: Callable[[Pair], contextlib.AbstractAsyncContextManager[None]],
) -> None:
    """A process that only reads gets no answer such as READONLY: it has to notice by itself."""
    queue = await open_at(pair.url, lookup_seconds=0.3)
    shown = await open_at(pair.url, block_seconds=0.5, lookup_seconds=0.3)
    stream = StreamId(SETTINGS.tenant, "shown")
    writer = await writing(queue, stream)
    async with (
        serve(create_app(shown, SETTINGS)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        aconnect_sse(client, "GET", "/streams/shown/events") as source,
    ):
        events = source.aiter_sse()
        await writer.send_chunk("before")
        await writer.flush()
        assert (await anext(events)).json()["value"] == "before"
        async with fault(pair), asyncio.timeout(30):
            await writer.send_chunk("after")
            await writer.finish()
            assert [each.event async for each in events if each.data] == ["chunk", "end"]
            listed = (await client.get("/streams")).json()
    assert [each["name"] for each in listed["streams"]] == ["shown"]


@ONE_SERVER
@pytest.mark.parametrize("kind", ["unix", "rediss"])
async def test_other_kinds_of_address_are_followed(
    start_server: StartServer, open_at: OpenAt, stream: StreamId, tmp_path: Path, kind: str
) -> None:
    """The path of a socket can lead elsewhere, too, and so can a name behind TLS."""
    sockets = [tmp_path / "old.sock", tmp_path / "new.sock"]
    old, new = (start_server(arguments=("--unixsocket", str(each))) for each in sockets)
    authority, certificate = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    link = tmp_path / "link.sock"
    link.symlink_to(sockets[0])
    async with MuteProxy(old.port, context).running() as proxy:
        urls = {
            "unix": f"unix://{link}",
            "rediss": f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate}",
        }
        queue = await open_at(urls[kind])
        writer = await writing(queue, stream)
        await writer.send_chunk("before")
        await writer.flush()
        await command(old, "REPLICAOF", "127.0.0.1", new.port)
        link.unlink()
        link.symlink_to(sockets[1])
        proxy.redirect(new.port)
        await writer.send_chunk("after")
        async with asyncio.timeout(20):
            await writer.finish()
        assert await records(new, stream) > 0
        await queue.aclose()


@ONE_SERVER
async def test_append_whose_answer_was_lost_is_not_repeated_on_the_new_primary(
    pair: Pair, queue: ChunkQueue, stream: StreamId
) -> None:
    """The old primary has stored and replicated it, and nobody has heard of that."""
    async with await writing(queue, stream) as writer:
        await writer.send_chunk("first")
        await writer.flush()
        pair.name.hold(Direction.TO_CLIENT)
        for i in range(20):
            await writer.send_chunk(f"{i} " + "x" * 60_000)
        await until(lambda: records(pair.old, stream), 5)
        await pair.promote()
        await command(pair.old, "REPLICAOF", "127.0.0.1", pair.new.port)
        pair.move()
        pair.name.cut()
        pair.name.release()
        await writer.flush()
    async with await reading(queue, stream) as reader:
        found = [str(each).split()[0] for each in await reader.collect()]
    assert found == ["first", *map(str, range(20))]


@ONE_SERVER
async def test_append_that_was_not_replicated_is_stored_once(
    pair: Pair, queue: ChunkQueue, stream: StreamId
) -> None:
    """The old primary has stored it and nobody else: the retry has to bring all of it."""
    async with await writing(queue, stream) as writer:
        await writer.send_chunk("first")
        await writer.flush()
        await pair.promote()
        pair.name.hold(Direction.TO_CLIENT)
        for each in ("second", "third"):
            await writer.send_chunk(each)
        await until(lambda: records(pair.old, stream), 3)
        await command(pair.old, "REPLICAOF", "127.0.0.1", pair.new.port)
        pair.move()
        pair.name.cut()
        pair.name.release()
        await writer.flush()
    async with await reading(queue, stream) as reader:
        assert await reader.collect() == ["first", "second", "third"]


@ONE_SERVER
async def test_chunks_that_the_new_primary_lacks_are_reported(
    pair: Pair, queue: ChunkQueue, stream: StreamId
) -> None:
    """Replication is asynchronous: what the servers lost is an error of readers, never silence."""
    writer = await writing(queue, stream)
    reader = await reading(queue, stream)
    await writer.send_chunk("kept")
    await writer.flush()
    await pair.promote()
    await writer.send_chunk("lost")
    await writer.flush()
    assert await values(reader, 2) == ["kept", "lost"]
    await command(pair.old, "REPLICAOF", "127.0.0.1", pair.new.port)
    pair.move()
    await writer.send_chunk("later")
    await writer.flush()
    assert await values(reader, 1) == ["later"]  # it had seen what is lost
    async with await reading(queue, stream) as late:
        assert await values(late, 1) == ["kept"]
        with pytest.raises(TrimmedError, match="events 2 to 2"):
            await anext(late)


@ONE_SERVER
async def test_reader_that_is_ahead_of_the_new_primary_gets_an_error(
    pair: Pair, queue: ChunkQueue, stream: StreamId
) -> None:
    """The next attempt numbers from what is left: a reader beyond it must not wait for ever."""
    writer = await writing(queue, stream)
    reader = await reading(queue, stream)
    await writer.send_chunk("kept")
    await writer.flush()
    await pair.promote()
    for each in ("lost", "lost too"):
        await writer.send_chunk(each)
    await writer.flush()
    assert await values(reader, 3) == ["kept", "lost", "lost too"]
    following = asyncio.create_task(values(reader, 1))
    await command(pair.old, "REPLICAOF", "127.0.0.1", pair.new.port)
    pair.move()
    second = await writing(queue, stream)
    await second.send_chunk("of the second attempt")
    await second.finish()
    with pytest.raises(CursorError, match="began again"):
        await following


@ONE_SERVER
async def test_slow_name_server_is_asked_once_and_waited_for(
    start_server: StartServer, open_at: OpenAt, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolution cannot be cancelled: one for each try would take every thread of the process."""
    first, second = start_server(), start_server()
    lookup, is_slow, port = socket.getaddrinfo, threading.Event(), [first.port]
    release, asked, under_way = threading.Event(), threading.Semaphore(0), [0, 0]

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "primary.test":
            return lookup(host, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        under_way[0] += 1
        under_way[1] = max(under_way)
        if is_slow.is_set():
            asked.release()
            release.wait(30)
        under_way[0] -= 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port[0]))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    queue = await open_at("redis://primary.test:6379/0", connect_timeout_seconds=0.2)
    writer = await writing(queue, stream)
    await writer.send_chunk("before")
    await writer.flush()
    is_slow.set()
    port[0] = second.port
    first.kill()
    await writer.send_chunk("after")
    await asyncio.to_thread(asked.acquire)
    for _ in range(5):  # several tries give up meanwhile, and none takes another thread
        with pytest.raises(BackendUnavailableError, match="within"):
            await queue.describe(stream)
    assert under_way == [1, 1]
    release.set()
    async with asyncio.timeout(20):
        await writer.finish()
    assert await records(second, stream) == 2


@ONE_SERVER
async def test_listing_goes_on_at_another_server(pair: Pair, open_at: OpenAt) -> None:
    """Each server walks through its keys in an order of its own: its cursor is no other's."""
    keys = KeySpace("streamq")
    names = {f"{i:04}" for i in range(2_500)}
    async with redis.asyncio.Redis.from_url(pair.old.url) as client:
        async with client.pipeline() as pipeline:
            for each in names:
                pipeline.xadd(keys.key(StreamId("t", each)), {"r": b"x"}, id="1-0")
            await pipeline.execute()
        await pair.promote()
    queue = await open_at(pair.url)
    listed = set()
    listing = queue.streams("t")
    async for info in listing:
        listed.add(info.stream.name)
        if len(listed) == 5:
            pair.move()
            pair.name.cut()
            await asyncio.sleep(0.1)
    assert listed == names
