"""A user who may not do something gets one clear error from every operation."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from kafka_brokers import Broker
from streamq.driver import START, AccessDeniedError, Entry, StreamId
from streamq.testing import OpenWith


async def test_every_operation_without_permission_is_one_access_error(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """With a topic for each tenant, a queue opens before anything is refused."""
    queue = await open_with(apache.settings_of("stranger", topic="stream{tenant}"))
    closed = StreamId("q", stream.name)
    for call in (
        queue.append(closed, [Entry(1, 0, b"open")]),
        queue.read(closed, START, max_records=1, max_bytes=1, max_wait=0),
        queue.read(closed, START, max_records=1, max_bytes=1, max_wait=5.0),
        queue.describe(closed, last=1),
        queue.newest_epoch(closed),
        queue.delete(closed),
        anext(aiter(queue.streams("q"))),
    ):
        with pytest.raises(AccessDeniedError, match="ACLs"):
            await call


async def test_reader_may_not_delete(apache: Broker, open_with: OpenWith, stream: StreamId) -> None:
    """Credentials of a gateway must not remove anything, and the error has to say so."""
    await (await open_with(apache.settings())).append(stream, [Entry(1, 0, b"open")])
    queue = await open_with(apache.settings_of("reader"))
    with pytest.raises(AccessDeniedError, match="we may not write"):
        await queue.delete(stream)
    assert await queue.newest_epoch(stream) == 1


async def test_command_without_permission_prints_one_line(apache: Broker) -> None:
    """An operator has the wrong user; a traceback of ten tasks does not say that."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("streamq")),
        "ls",
        env={
            **os.environ,
            "STREAMQ_BACKEND": "kafka",
            "STREAMQ_KAFKA_BOOTSTRAP_SERVERS": apache.sasl_address,
            "STREAMQ_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "STREAMQ_KAFKA_SASL_USERNAME": "stranger",
            "STREAMQ_KAFKA_SASL_PASSWORD": apache.passwords["stranger"],
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"does not permit" in said
    assert b"Traceback" not in said
