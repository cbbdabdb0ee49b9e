"""Opening a queue: which servers are refused, with which error, and how TLS and sockets work."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from redis_streams import MuteProxy, OpenAt, StartServer, read_soon
from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    StreamId,
)
from streamq.driver import Entry
from streamq_redis.embedded import EmbeddedRedis


async def test_refused_connection_is_reported_at_once(open_at: OpenAt) -> None:
    """The most common first mistake: no server, or not there."""
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1:1 .*STREAMQ_REDIS_URL"):
        await open_at("redis://:secret@127.0.0.1:1/0")


async def test_silent_server_is_given_up_in_time(open_at: OpenAt) -> None:
    """A firewall that swallows packets must not hang a worker's start."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never accepts and never answers
        port = silent.getsockname()[1]
        async with asyncio.timeout(2):
            with pytest.raises(BackendUnavailableError, match="within"):
                await open_at(f"redis://127.0.0.1:{port}", connect_timeout_seconds=0.2)


async def test_every_address_of_a_name_is_tried(
    server: EmbeddedRedis, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may lead to a host that refuses, to one that is silent, and to the right one."""
    lookup = socket.getaddrinfo
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        fills = [socket.socket() for _ in range(4)]  # the server accepts no more than these
        for each in fills:
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        ports = [1, silent.getsockname()[1], server.port]

        def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "several.test":
                return lookup(host, *args, **kwargs)
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await open_at("redis://several.test:6379/0", connect_timeout_seconds=3)
        ports.pop()
        with pytest.raises(BackendUnavailableError, match=r"several\.test:6379"):
            await open_at("redis://several.test:6379/0", connect_timeout_seconds=0.5)
        for each in fills:
            each.close()


async def test_another_protocol_is_recognised(open_at: OpenAt) -> None:
    """A wrong port may lead to a server of another kind."""

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
async def test_strange_answers_become_errors_of_streamq(open_at: OpenAt, answer: bytes) -> None:
    """Callers handle errors of streamq only, so no other exception may leave the driver."""

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


async def test_cluster_node_is_refused_at_open(start_server: StartServer, open_at: OpenAt) -> None:
    """An error at start is better than one with the first stream of another node."""
    server = start_server(arguments=("--cluster-enabled", "yes"))
    with pytest.raises(ConfigurationError, match="Cluster"):
        await open_at(server.url)


class Sentinel(EmbeddedRedis):
    """Watches a primary, and answers on a port of its own."""

    def command(self, data_dir: Path) -> list[str]:
        """Return the command line; a Sentinel needs a file that it can write."""
        configuration = data_dir / "sentinel.conf"
        configuration.touch()
        program = super().command(data_dir)[0]
        arguments = ("--sentinel", "--port", str(self.port), "--bind", "127.0.0.1")
        return [program, str(configuration), *arguments]

    def answers(self, log: Path) -> bool:
        """Whether it answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


async def test_sentinel_is_refused_at_open(binary: Path, open_at: OpenAt) -> None:
    """It answers like a server, and knows no command for streams."""
    refused = pytest.raises(ConfigurationError, match="lead to the primary")
    with Sentinel(binary=binary) as sentinel, refused:
        await open_at(sentinel.url)


async def test_unix_socket_works(
    start_server: StartServer, open_at: OpenAt, stream: StreamId, tmp_path: Path
) -> None:
    """The fastest way to a server on the same machine."""
    path = tmp_path / "redis.sock"
    start_server(arguments=("--unixsocket", str(path)))
    queue = await open_at(f"unix://{path}")
    await queue.append(stream, [Entry(1, 0, b"x")])
    assert [record.data for record in await read_soon(queue, stream)] == [b"x"]


async def test_tls_works_and_checks_the_certificate(
    server: EmbeddedRedis, open_at: OpenAt, stream: StreamId, tmp_path: Path
) -> None:
    """Managed servers are reached over TLS; these binaries lack it, so a proxy ends it here."""
    authority, certificate = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with MuteProxy(server.port, context).running() as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        queue = await open_at(f"{url}?ssl_ca_certs={certificate}")
        read = read_soon(queue, stream)
        await asyncio.sleep(0.05)
        await queue.append(stream, [Entry(1, 0, bytes(300_000))])
        assert [len(record.data) for record in await read] == [300_000]
        with pytest.raises(BackendUnavailableError, match="certificate verify failed"):
            await open_at(url)
        await queue.aclose()


async def test_only_a_server_with_a_log_is_called_durable(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """A caller that requires durability must not get a server that keeps nothing."""
    durable = start_server(appendonly=True, arguments=("--appendfsync", "always"))
    assert (await open_at(durable.url)).capabilities.durable
    nearly = start_server(appendonly=True, arguments=("--appendfsync", "everysec"))
    assert not (await open_at(nearly.url)).capabilities.durable
    assert not (await open_at(start_server().url)).capabilities.durable
    without = start_server(arguments=("--appendfsync", "always"))
    assert not (await open_at(without.url)).capabilities.durable
    evicts = ("--appendfsync", "always", "--maxmemory-policy", "allkeys-lru")
    forgetful = start_server(appendonly=True, arguments=evicts)
    assert not (await open_at(forgetful.url)).capabilities.durable
