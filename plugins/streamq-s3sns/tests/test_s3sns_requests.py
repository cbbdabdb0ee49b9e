"""A bucket that is busy with us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamq_aws import AwsClients
from streamq_s3sns import S3SnsSettings
from streamq_s3sns.requests._bucket import Bucket

CONNECTIONS = 2
ANSWER_SECONDS = 0.1
PATIENCE_SECONDS = 1.0


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Return where a service takes its time to say that there is nothing."""

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


async def test_who_waits_for_a_connection_is_not_told_that_s3_does_not_answer(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many readers that catch up at once wait for each other, which is no failure of S3."""
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
