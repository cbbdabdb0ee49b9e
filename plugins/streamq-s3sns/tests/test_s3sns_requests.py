"""Requests: waiting for connections, throttling, and the server's clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from botocore.exceptions import ClientError

from s3sns_bucket import count_calls
from streamq import (
    BackendUnavailableError,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import (
    StreamId,
)
from streamq.testing import OpenQueue
from streamq_aws import AwsClients
from streamq_s3sns import S3SnsSettings
from streamq_s3sns.requests._bucket import Bucket
from streamq_s3sns.requests._server_clock import ServerClock

CONNECTIONS = 2
ANSWER_SECONDS = 0.1
PATIENCE_SECONDS = 1.0


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Return the address of a service that answers slowly that nothing exists."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(ANSWER_SECONDS)
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())


async def test_waiting_for_a_connection_does_not_count_as_silence_of_s3(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many readers that catch up at once wait for each other, and not for S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    settings = S3SnsSettings(
        bucket="streams", region="us-east-1", endpoint_url=address, max_connections=CONNECTIONS
    )
    clients = AwsClients(settings, backend="s3sns")
    try:
        bucket = Bucket(await clients.client("s3"), settings, patience_seconds=PATIENCE_SECONDS)
        asked = int(2 * CONNECTIONS * PATIENCE_SECONDS / ANSWER_SECONDS)
        answers = await asyncio.gather(
            *(bucket.call("head_object", missing_is_none=True, Key=str(i)) for i in range(asked))
        )
    finally:
        await clients.aclose()
    assert answers == [None] * asked


@pytest.mark.parametrize("code", ["SlowDown", "ThrottlingException", "InternalError"])
async def test_throttling_is_retried_by_core_and_costs_nothing_else(
    open_queue: OpenQueue, stream: StreamId, code: str
) -> None:
    """S3 throttles a busy prefix until it has split it."""
    queue = await open_queue()
    dice = random.Random(4)

    def throttle(name: str) -> None:
        if dice.random() < 0.3:
            answer = {"Error": {"Code": code, "Message": "Please reduce your request rate."}}
            status = {"ResponseMetadata": {"HTTPStatusCode": 503}}
            raise ClientError(answer | status, name)

    calls = count_calls(queue, throttle)
    async with open_writer(stream, queue=queue) as writer:
        for i in range(20):
            await writer.send_chunk(i)
            await writer.flush()
    async with open_reader(stream, queue=queue) as reader:
        assert await reader.collect() == list(range(20))
    assert sum(calls.values()) > 30


async def test_throttling_beyond_the_deadline_is_raised(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A writer that cannot store anything has to fail in time."""
    queue = await open_queue()

    def throttle(name: str) -> None:
        answer = {"Error": {"Code": "SlowDown", "Message": "m"}}
        raise ClientError(answer | {"ResponseMetadata": {"HTTPStatusCode": 503}}, name)

    count_calls(queue, throttle)
    with pytest.raises(BackendUnavailableError, match="SlowDown"):
        await open_writer(stream, queue=queue, settings=load_settings(retry_seconds=0.2))


async def test_clock_of_a_machine_is_corrected_by_the_servers() -> None:
    """A worker whose clock is an hour off must not end streams at once, or never."""
    clock = ServerClock()
    now = clock.now_ms() / 1000
    clock.observe("Tue, 24 Nov 2026 19:00:00 GMT", now)
    assert abs(clock.now_ms() - 1_795_546_800_000) < 2_000
    clock.observe("nonsense", now)
    clock.observe(None, now)
