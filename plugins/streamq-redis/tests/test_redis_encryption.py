"""What the server holds of a stream that is encrypted by the Temporal client's payload codec."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import redis.asyncio
from cryptography.fernet import Fernet
from pydantic import BaseModel
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from redis_streams import OpenAt, StartServer
from streamq import Chunk, Event, Seal, SerializationError, StreamWriter, load_settings, open_reader
from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, streaming_activity, subscribe
from streamq_redis.embedded import EmbeddedRedis


class Token(BaseModel):
    text: str


SENT: list[object] = [
    "Zephyrine and the others",
    'she said "Quetzal \\ Basilisk"',
    "Übermäßiger Grünspecht",
    b"\x00\xffOpossum\xfe",
    {"codename": "Marabou", "größe": ["Kühlschrank"]},
    Token(text="Capybara"),
    4815162342,
    "Pelican " * 25_000,
]
SECRETS = [
    *(b"Heron", b"Zephyrine", b'"Quetzal \\ Basilisk"', "Übermäßiger Grünspecht".encode()),
    *(b"Opossum", b"codename", b"Marabou", "größe".encode(), "Kühlschrank".encode(), b"Capybara"),
    *(b"4815162342", b"Pelican", b"Kestrel refused", b"WombatError"),
]


@streaming_activity
async def dictate(stream: StreamWriter[object]) -> None:
    """Fail, then send values of every kind, then fail for good."""
    if activity.info().attempt == 1:
        await stream.send_chunk("Heron of the first attempt")
        raise ApplicationError("again", next_retry_delay=timedelta(milliseconds=20))
    for value in SENT:
        await stream.send_chunk(value)
    raise ApplicationError("Kestrel refused", type="WombatError", non_retryable=True)


class Encryption(PayloadCodec):
    def __init__(self) -> None:
        self._cipher = Fernet(Fernet.generate_key())

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={"encoding": b"binary/encrypted"},
                data=self._cipher.encrypt(each.SerializeToString()),
            )
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(self._cipher.decrypt(each.data)) for each in payloads]


class CommandFeed:
    """Everything that anybody asks of a server, scripts' own calls included."""

    _END = b"the-end-of-the-feed"

    def __init__(self, server: EmbeddedRedis) -> None:
        self._server = server
        self._seen = bytearray()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._writer.write(b"MONITOR\r\n")
        assert await self._reader.readline() == b"+OK\r\n"
        self._task = asyncio.create_task(self._collect())
        return self

    async def _collect(self) -> None:
        while self._END not in self._seen[-200:]:
            self._seen += await self._reader.read(65_536)

    async def seen(self, client: redis.asyncio.Redis) -> bytes:
        """Return it as it was before the server quoted it."""
        await client.echo(self._END)
        await asyncio.wait_for(self._task, 10)
        return self._seen.decode("ascii").encode().decode("unicode_escape").encode("latin-1")

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        self._writer.close()
        await self._writer.wait_closed()


def flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = value.items()
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            yield from flat(each)
    else:
        yield str(value).encode()


async def keys_and_values(client: redis.asyncio.Redis) -> bytes:
    async def value_of(key: bytes, kind: bytes) -> Any:
        match kind:
            case b"string":
                return await client.get(key)
            case b"hash":
                return await client.hgetall(key)
            case b"list":
                return await client.lrange(key, 0, -1)
            case b"set":
                return await client.smembers(key)
            case b"zset":
                return await client.zrange(key, 0, -1, withscores=True)
            case b"stream":
                groups = await client.xinfo_groups(key)
                return [await client.xrange(key), await client.xinfo_stream(key), groups]
        pytest.fail(f"key {key!r} is a {kind!r}, which this test cannot look into")

    keys: list[Any] = [key async for key in client.scan_iter()]
    kinds: list[Any] = [await client.type(key) for key in keys]
    found = [(key, await value_of(key, kind)) for key, kind in zip(keys, kinds, strict=True)]
    assert found
    return b"\n".join(flat(found))


def files_of(directory: Path) -> bytes:
    return b"\n".join(each.read_bytes() for each in directory.rglob("*") if each.is_file())


def forms(secret: bytes) -> set[bytes]:
    """Every way in which it could lie there without being encrypted."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for ascii_only in (True, False):
        found.add(json.dumps(secret.decode(), ensure_ascii=ascii_only)[1:-1].encode())
    for encode, before in itertools.product((base64.b64encode, base64.urlsafe_b64encode), range(3)):
        # Whatever stands before and after it moves its bits; the digits in between are its own.
        digits = encode(bytes(before) + secret)
        bits = 8 * (before + len(secret))
        found.add(digits[-(-8 * before // 6) : bits // 6])
    return found


def test_a_word_is_found_in_whatever_form() -> None:
    """A search that does not find base64 would prove nothing."""
    for secret, before in itertools.product(SECRETS, range(6)):
        coded = bytes(before) + secret + bytes(2)
        text = secret.decode()
        for found in (
            coded,
            coded.hex().encode(),
            base64.b64encode(coded),
            base64.urlsafe_b64encode(coded),
            json.dumps([text]).encode(),
            json.dumps([text], ensure_ascii=False).encode(),
        ):
            assert any(form in found for form in forms(secret)), (secret, found)


@pytest.fixture(scope="module")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer() as server:
        yield server.address


async def run_and_read(
    address: str, converter: DataConverter, queue: ChunkQueue
) -> tuple[str, list[Event]]:
    """Run the activity; return the stream's name and what a subscriber was told."""
    client = await Client.connect(address, data_converter=converter)
    settings = load_settings(backend="redis", retry_seconds=5, idle_seconds=20)
    task_queue = f"tq-{uuid.uuid4()}"
    plugin = StreamqPlugin(queue, settings)
    async with Worker(client, task_queue=task_queue, activities=[dictate], plugins=[plugin]):
        handle: Any = await client.start_workflow(
            "streamq.Stream",
            StreamRequest("dictate"),
            id=f"letter-{uuid.uuid4()}",
            task_queue=task_queue,
        )
        async with subscribe(handle, queue=queue, settings=settings) as events:
            return events.stream.name, [event async for event in events]


@pytest.mark.parametrize("is_encrypted", [True, False], ids=["encrypted", "plain"])
async def test_the_server_holds_nothing_readable_of_an_encrypted_stream(
    start_server: StartServer,
    open_at: OpenAt,
    temporal_address: str,
    tmp_path: Path,
    is_encrypted: bool,
) -> None:
    """Whoever encrypts for the law's sake must find no word in Redis, its files or its commands.

    The same search over a stream without codec finds every word everywhere, so that it can be
    trusted to find one.
    """
    converter = pydantic_data_converter
    if is_encrypted:
        converter = replace(converter, payload_codec=Encryption())
    server = start_server(appendonly=True, data_dir=tmp_path, arguments=("--rdbcompression", "no"))
    queue = await open_at(server.url)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(server.url))
        feed = await stack.enter_async_context(CommandFeed(server))
        name, events = await run_and_read(temporal_address, converter, queue)
        commands = await feed.seen(client)
        places = {"keys and values": await keys_and_values(client), "commands": commands}
        places["append-only file"] = files_of(tmp_path)
        await client.save()
        places["snapshot"] = (tmp_path / "dump.rdb").read_bytes()

    values = [event.value for event in events if isinstance(event, Chunk) and event.attempt == 2]
    assert values == [*SENT[:5], {"text": "Capybara"}, *SENT[6:]]
    seal = events[-1]
    assert isinstance(seal, Seal)
    assert (seal.message, seal.error_type) == ("Kestrel refused", "WombatError")

    # It is in the right place that was searched: the name is not encrypted.
    assert all(name.split("/")[0].encode() in found for found in places.values())
    leaks = {
        (place, secret)
        for place, found in places.items()
        for secret in SECRETS
        if any(form in found for form in forms(secret))
    }
    assert leaks == (set() if is_encrypted else set(itertools.product(places, SECRETS)))

    if is_encrypted:
        settings = load_settings(backend="redis", idle_seconds=5)
        async with open_reader(name, queue=queue, settings=settings) as reader:
            with pytest.raises(SerializationError, match="payload codec"):
                await reader.collect()
