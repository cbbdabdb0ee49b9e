"""Connections: how few, how they are refused, how they break and come back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio

from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    StreamId,
)
from streamq.driver import ChunkQueue, Entry, Stored
from streamq.testing import OpenQueue
from streamq_redis import RedisSettings
from streamq_redis.embedded import EmbeddedRedis

OpenAt = Callable[..., Awaitable[ChunkQueue]]
StartServer = Callable[..., EmbeddedRedis]
Bare = redis.asyncio.Redis

# What the README of this plugin tells operators to grant.
ACL_RULES = ["~streamq:*", "+ping", "+xadd", "+xrange", "+xrevrange", "+xread", "+xlen"]
ACL_RULES += ["+pttl", "+pexpire", "+unlink", "+multi", "+exec", "+scan"]
ACL_OPTIONAL = ["+client|unblock", "+info", "+memory|usage", "+xinfo|stream", "+config|get"]


def follow(
    queue: ChunkQueue, stream: StreamId, after: str = "", wait: float = 30
) -> asyncio.Task[list[Stored]]:
    async def read() -> list[Stored]:
        return list(
            await queue.read(stream, after, max_records=100, max_bytes=10**6, max_wait=wait)
        )

    return asyncio.ensure_future(read())


async def set_user(bare: Bare, name: str, rules: list[str]) -> None:
    command: Callable[..., Awaitable[object]] = bare.execute_command
    await command("ACL", "SETUSER", name, "reset", "on", ">pass", *rules)


class Proxy:
    """Forwards TCP, and on demand swallows answers or stops listening to anybody."""

    def __init__(self, target: int, context: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._context = context
        self._writers: list[asyncio.StreamWriter] = []
        self.is_mute = False
        self.keeps_open = False
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0.01)

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, onward]
        await asyncio.gather(self._copy(reader, onward, False), self._copy(there, writer, True))

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                if not (is_answer and self.is_mute):
                    target.write(data)
        except OSError:
            pass
        finally:
            if not self.keeps_open:
                target.close()


# -- how few -------------------------------------------------------------------------------------


async def test_200_streams_need_three_connections(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """A gateway that opens a connection per stream takes its server down."""
    server = start_server()
    queue = await open_at(server.url)
    streams = [StreamId("t", f"s{i}") for i in range(200)]
    async with redis.asyncio.Redis.from_url(server.url) as bare:

        async def ours() -> set[str]:
            return {each["id"] for each in await bare.client_list() if each["name"] == "streamq"}

        reads = [follow(queue, stream) for stream in streams]
        await asyncio.sleep(0.1)
        blocked = await ours()
        await asyncio.gather(*(queue.append(stream, [Entry(1, 0, b"x")]) for stream in streams))
        assert all(await asyncio.gather(*reads))
        after = await ours()
    assert [len(blocked), len(after)] == [2, 3]
    assert blocked < after


async def test_readers_of_one_stream_share_one_read(
    open_queue: OpenQueue, bare: Bare, stream: StreamId
) -> None:
    """A popular stream costs its server no more than a lonely one."""
    queue = await open_queue()
    await queue.append(stream, [Entry(1, 0, b"x")])
    reads = [follow(queue, stream, "1-0") for _ in range(50)]
    await asyncio.sleep(0.05)
    before = (await bare.info("commandstats")).get("cmdstat_xread", {}).get("calls", 0)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert [[each.data for each in found] for found in await asyncio.gather(*reads)] == [
        [b"y"]
    ] * 50
    assert (await bare.info("commandstats"))["cmdstat_xread"]["calls"] - before <= 2


async def test_long_block_survives_the_clients_default_timeout(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """redis-py gives up a read after 5 s, in the middle of a long poll."""
    queue = await open_at(server.url, block_seconds=30)
    read = follow(queue, stream)
    await asyncio.sleep(5.6)
    await queue.append(stream, [Entry(1, 0, b"late")])
    assert [record.data for record in await read] == [b"late"]


async def test_many_short_blocks_lose_nothing(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """Between two blocks there is a moment without one; the position closes it."""
    queue = await open_at(server.url, block_seconds=0.1)
    read = follow(queue, stream)
    await asyncio.sleep(0.35)
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert [record.data for record in await read] == [b"x"]


# -- following -----------------------------------------------------------------------------------


async def test_reader_slower_than_the_tail_catches_up(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """Memory for the tail is bounded; what it dropped comes from the server, in order."""
    queue = await open_at(server.url, tail_bytes=2048)
    await queue.append(stream, [Entry(1, 0, b"0")])
    eager = follow(queue, stream, "1-0")
    await asyncio.sleep(0.05)
    for i in range(1, 200):
        await queue.append(stream, [Entry(1, i, b"%d" % i)])
    await eager
    position, found = "1-0", [b"0"]
    while len(found) < 200:
        records = await follow(queue, stream, position, 5)
        found += [record.data for record in records]
        position = records[-1].position
    assert [b"%d" % i for i in range(200)] == found


async def test_stream_deleted_and_created_anew_elsewhere_is_read_from_its_start(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Even if its epochs start again lower, while this process still follows the old one."""
    queue, other = await open_queue(), await open_queue()
    await other.append(stream, [Entry(9, 0, b"old")])
    read = follow(queue, stream, "9-0")
    await asyncio.sleep(0.05)
    await other.append(stream, [Entry(9, 1, b"old")])
    await read
    await other.delete(stream)
    read = follow(queue, stream)
    await asyncio.sleep(0.05)
    assert not read.done()
    await other.append(stream, [Entry(1, 0, b"new")])
    assert [(each.position, each.data) for each in await read] == [("1-0", b"new")]


# -- refused -------------------------------------------------------------------------------------


async def test_refused_connection_is_told_at_once(open_at: OpenAt) -> None:
    """The most common first mistake: no server, or not there."""
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1:1 .*STREAMQ_REDIS_URL"):
        await open_at("redis://:secret@127.0.0.1:1/0")


async def test_silent_server_is_given_up_in_time(open_at: OpenAt) -> None:
    """A firewall that swallows packets must not hang a worker's start."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts nothing, answers nothing
        port = silent.getsockname()[1]
        async with asyncio.timeout(2):
            with pytest.raises(BackendUnavailableError, match="within"):
                await open_at(f"redis://127.0.0.1:{port}", connect_timeout_seconds=0.2)


async def test_another_protocol_is_recognised(open_at: OpenAt) -> None:
    """A wrong port leads to some other server."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(BackendError, match="is not Redis"):
        await open_at(f"redis://127.0.0.1:{port}")
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*0\r\n", b"$abc\r\n", b"*1\r\n" * 5000, b"+" * 200_000],
    ids=["text", "number", "nil", "empty", "no length", "nested", "endless"],
)
async def test_strange_answers_are_told_as_ours(open_at: OpenAt, answer: bytes) -> None:
    """Whatever listens there, no foreign exception comes out of the driver."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((BackendError, BackendUnavailableError)):
            await open_at(f"redis://127.0.0.1:{port}", connect_timeout_seconds=0.5)


@pytest.mark.parametrize("login", ["", ":wrong-secret@", "nobody:wrong-secret@"])
async def test_wrong_password_is_refused_without_repeating_it(
    start_server: StartServer, open_at: OpenAt, login: str
) -> None:
    """The message is for the log, the password is not."""
    server = start_server(arguments=("--requirepass", "right"))
    with pytest.raises(AccessDeniedError) as caught:
        await open_at(f"redis://{login}127.0.0.1:{server.port}")
    assert "secret" not in str(caught.value) + repr(caught.value.__cause__)
    await open_at(f"redis://:right@127.0.0.1:{server.port}/3")


@pytest.mark.parametrize("rules", [ACL_RULES, ACL_RULES + ACL_OPTIONAL])
async def test_restricted_user_can_do_everything(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId, rules: list[str]
) -> None:
    """The ACL in the README is enough, also without its optional part."""
    await set_user(bare, "limited", rules)
    queue = await open_at(f"redis://limited:pass@127.0.0.1:{server.port}/0")
    for i in range(3):
        read = follow(queue, stream, f"1-{i - 1}" if i else "")
        await asyncio.sleep(0.01)
        await queue.append(stream, [Entry(1, i, b"%d" % i)])
        assert [b"%d" % i] == [record.data for record in await read]
    late = StreamId(stream.tenant, "late")
    read = follow(queue, late)
    await asyncio.sleep(0.01)
    await queue.append(late, [Entry(1, 0, b"x")])
    async with asyncio.timeout(1):
        await read
    assert (await queue.describe(stream, last=1)).records == 3
    assert [stream] == [each.stream async for each in queue.streams(stream.tenant, stream.name)]
    await queue.delete(stream)


async def test_key_outside_the_users_pattern_is_denied(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId
) -> None:
    """One application must not get at another one's streams."""
    await set_user(bare, "narrow", ACL_RULES)
    queue = await open_at(f"redis://narrow:pass@127.0.0.1:{server.port}/0", key_prefix="elsewhere")
    with pytest.raises(AccessDeniedError, match="ACL"):
        await queue.append(stream, [Entry(1, 0, b"x")])
    with pytest.raises(AccessDeniedError, match="ACL"):
        await follow(queue, stream)


async def test_cluster_node_is_refused_at_open(start_server: StartServer, open_at: OpenAt) -> None:
    """Better at start than with the first stream that lives on another node."""
    server = start_server(arguments=("--cluster-enabled", "yes"))
    with pytest.raises(ConfigurationError, match="Cluster"):
        await open_at(server.url)


async def test_unix_socket_works(
    start_server: StartServer, open_at: OpenAt, stream: StreamId, tmp_path: Path
) -> None:
    """The fastest way to a server on the same machine."""
    path = tmp_path / "redis.sock"
    start_server(arguments=("--unixsocket", str(path)))
    queue = await open_at(f"unix://{path}")
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert [record.data for record in await follow(queue, stream)] == [b"x"]


async def test_tls_works_and_checks_the_certificate(
    server: EmbeddedRedis, open_at: OpenAt, stream: StreamId, tmp_path: Path
) -> None:
    """Managed servers are reached over TLS; these binaries lack it, so a proxy ends it here."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with Proxy(server.port, context).running() as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        queue = await open_at(f"{url}?ssl_ca_certs={certificate}")
        read = follow(queue, stream)
        await asyncio.sleep(0.05)
        await queue.append(stream, [Entry(1, 0, bytes(300_000))])
        assert [len(record.data) for record in await read] == [300_000]
        with pytest.raises(BackendUnavailableError, match="certificate verify failed"):
            await open_at(url)
        await queue.aclose()


# -- broken --------------------------------------------------------------------------------------


async def test_killed_server_fails_blocked_reads_and_the_queue_recovers(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """Core retries what fails; a reader that hears nothing for ever is what it cannot help."""
    server = start_server()
    queue = await open_at(server.url)
    read = follow(queue, stream)
    await asyncio.sleep(0.05)
    server.kill()
    async with asyncio.timeout(1):
        with pytest.raises(BackendUnavailableError):
            await read
        with pytest.raises(BackendUnavailableError):
            await follow(queue, stream)
        with pytest.raises(BackendUnavailableError):
            await queue.append(stream, [Entry(1, 0, b"x")])
    server.start()
    read = follow(queue, stream)
    await asyncio.sleep(0.05)
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert [record.data for record in await read] == [b"x"]


async def test_frozen_server_is_noticed_in_time(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """The connection looks alive and nothing ever comes: bounded by block plus timeout."""
    server = start_server()
    queue = await open_at(server.url, block_seconds=0.3, operation_timeout_seconds=0.4)
    await queue.append(stream, [Entry(1, 0, b"x")])
    read = follow(queue, stream, "1-0")
    await asyncio.sleep(0.05)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(2):
            with pytest.raises(BackendUnavailableError):
                await read
            with pytest.raises(BackendUnavailableError, match="in time"):
                await queue.append(stream, [Entry(1, 1, b"y")])
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert [record.data for record in await follow(queue, stream, "1-0")] == [b"y"]


async def test_lost_acknowledgement_is_healed_by_repeating(
    server: EmbeddedRedis, open_at: OpenAt, stream: StreamId
) -> None:
    """The record was stored, its answer was lost: the repeat must neither fail nor double it."""
    async with Proxy(server.port).running() as proxy:
        queue = await open_at(f"redis://127.0.0.1:{proxy.port}")
        await queue.append(stream, [Entry(1, 0, b"0")])
        proxy.is_mute = True
        batch = [Entry(1, i, b"%d" % i) for i in range(1, 4)]
        lost = asyncio.ensure_future(queue.append(stream, batch))
        direct = await open_at(server.url)
        while (await direct.describe(stream)).records != 4:  # noqa: ASYNC110 - no event for this
            await asyncio.sleep(0.01)
        proxy.cut()
        with pytest.raises(BackendUnavailableError):
            await lost
        proxy.is_mute = False
        await queue.append(stream, [*batch, Entry(1, 4, b"4")])
        found = await follow(direct, stream)
        assert [record.data for record in found] == [b"0", b"1", b"2", b"3", b"4"]
        await queue.aclose()


async def test_cancelled_caller_leaves_the_shared_connection_in_step(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """One activity that is cancelled must not take the answers of all others with it."""
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
        await asyncio.sleep(0)  # now all have been asked for
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
    assert len(await follow(queue, stream)) == 2


async def test_half_open_blocking_connection_is_given_up_without_a_storm(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """The server has forgotten the reading client: asking again and again must end."""
    server = start_server()
    async with Proxy(server.port).running() as proxy:
        queue = await open_at(f"redis://127.0.0.1:{proxy.port}")
        async with redis.asyncio.Redis.from_url(server.url) as bare:
            read = follow(queue, stream)
            await asyncio.sleep(0.1)
            (blocked,) = [each for each in await bare.client_list() if each["cmd"] == "xread"]
            proxy.keeps_open = True
            await bare.client_kill_filter(_id=blocked["id"])
            before = (await bare.info("commandstats"))["cmdstat_client|unblock"]["calls"]
            others = [follow(queue, StreamId("t", f"s{i}")) for i in range(50)]
            async with asyncio.timeout(4):
                for each in (read, *others):
                    with pytest.raises(BackendUnavailableError):
                        await each
            after = (await bare.info("commandstats"))["cmdstat_client|unblock"]["calls"]
        assert after - before < 100
        await queue.aclose()


async def test_stalled_event_loop_drops_no_healthy_connection(
    open_at: OpenAt, server: EmbeddedRedis, stream: StreamId
) -> None:
    """A worker that computes for too long finds the answers waiting in the socket."""
    queue = await open_at(server.url, operation_timeout_seconds=0.2)
    await queue.append(stream, [Entry(1, 0, b"x")])
    stalled = asyncio.ensure_future(queue.append(stream, [Entry(1, 1, b"y")]))
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 - this is the case
    await stalled


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
    """At whatever step the blocking connection is, closing ends it."""
    server = start_server()
    async with redis.asyncio.Redis.from_url(server.url) as bare:
        for turns in range(40):
            queue = await open_at(server.url)
            read = follow(queue, StreamId("t", "s"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await queue.aclose()
            await asyncio.gather(read, return_exceptions=True)
        async with asyncio.timeout(2):
            while any(each["name"] == "streamq" for each in await bare.client_list()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


# -- told ----------------------------------------------------------------------------------------


def test_readme_names_every_setting_and_every_needed_permission() -> None:
    """Operators configure from that page."""
    text = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    for name, field in RedisSettings.model_fields.items():
        assert f"| `STREAMQ_REDIS_{name.upper()}` |" in text
        assert str(field.description) in text
    for rules in (ACL_RULES, ACL_OPTIONAL):
        assert " ".join(rules) in text
