"""Passwords, tokens and certificates are replaced while a queue is open."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kafka_brokers import PASSWORDS, Broker, Certificates, hang_up
from streamq import Settings, open_reader, open_writer
from streamq.driver import START, AccessDeniedError, ConfigurationError, Entry, StreamId
from streamq.testing import OpenWith
from streamq_kafka import KafkaSettings

_OLD, _NEW = PASSWORDS["writer"], "s3cr3t-that-is-new"
_LONG = 60.0
_given = {"password": _OLD}


def ask() -> dict[str, str]:
    """Return credentials, as an application would that asks a vault."""
    return {"username": "writer", "password": _given["password"]}


def ask_in_vain() -> dict[str, str]:
    """Return something else than this driver takes."""
    return {"username": "writer", "passwort": "x"}


@pytest.fixture
async def password(apache: Broker) -> AsyncIterator[None]:
    """Restore the password of the shared broker after the test."""
    yield
    await apache.operator.set_password("writer", _OLD)
    _given["password"] = _OLD


def _settings(broker: Broker, **options: Any) -> KafkaSettings:
    return broker.settings(
        broker.sasl_address,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        operation_timeout_seconds=3.0,
        **options,
    )


@pytest.mark.usefixtures("password")
@pytest.mark.parametrize("source", ["file", "function"])
async def test_rotated_password_is_used_by_every_connection(
    apache: Broker, open_with: OpenWith, stream: StreamId, tmp_path: Path, source: str
) -> None:
    """The brokers have the new password some time before the process gets it."""
    path = tmp_path / "password"
    path.write_text(f"{_OLD}\n")
    options: dict[str, Any] = {"sasl_credentials": ask}
    if source == "file":
        options = {"sasl_username": "writer", "sasl_password_file": str(path)}
    settings = _settings(apache, **options)
    writing, reading = await open_with(settings), await open_with(settings)
    patient = Settings(retry_seconds=_LONG)
    async with (
        asyncio.timeout(_LONG),
        await open_writer(stream, queue=writing, settings=patient) as writer,
        open_reader(stream, queue=reading, settings=patient, idle_seconds=_LONG) as reader,
    ):
        live = asyncio.ensure_future(reader.collect())
        await writer.send_chunk("before")
        await writer.flush()
        await apache.operator.set_password("writer", _NEW)
        for queue in (writing, reading):
            hang_up(queue)
        await writer.send_chunk("after")
        flushing = asyncio.ensure_future(writer.flush())
        done, _ = await asyncio.wait([flushing, live], timeout=1.0)
        assert not done
        path.write_text(f"{_NEW}\n")
        _given["password"] = _NEW
        await flushing
        await writer.finish()
        assert await live == ["before", "after"]


@pytest.mark.usefixtures("password")
async def test_password_that_does_not_change_is_refused_at_once(
    apache: Broker, open_with: OpenWith, stream: StreamId
) -> None:
    """Nobody will replace it, so that waiting for half a minute only hides the reason."""
    queue = await open_with(_settings(apache, sasl_username="writer", sasl_password=_OLD))
    await queue.append(stream, [Entry(1, 0, b"open")])
    await apache.operator.set_password("writer", _NEW)
    hang_up(queue)
    for call in (
        queue.read(stream, START, max_records=9, max_bytes=99, max_wait=1.0),
        queue.append(stream, [Entry(1, 1, b"more")]),
        queue.describe(stream),
        queue.newest_epoch(stream),
    ):
        with pytest.raises(AccessDeniedError, match="credentials"):
            await call


async def test_source_that_returns_something_else_is_a_configuration_error(
    apache: Broker, open_with: OpenWith
) -> None:
    """A mistyped name in a function is found at the start."""
    with pytest.raises(ConfigurationError, match="passwort"):
        await open_with(_settings(apache, sasl_credentials=ask_in_vain))


async def test_certificate_that_was_replaced_on_disk_is_used(
    apache: Broker,
    certificates: Certificates,
    open_with: OpenWith,
    tmp_path: Path,
    stream: StreamId,
) -> None:
    """Certificates are valid for hours or weeks, and an agent writes the next one to the disk."""
    path = tmp_path / "client.pem"
    shutil.copy(certificates.reader, path)
    settings = apache.settings(
        apache.tls_address,
        security_protocol="SSL",
        tls_ca_file=str(certificates.authority),
        tls_cert_file=str(path),
        operation_timeout_seconds=3.0,
    )
    queue = await open_with(settings)
    with pytest.raises(AccessDeniedError):
        await queue.append(stream, [Entry(1, 0, b"open")])
    path.write_text("half of a certif")
    hang_up(queue)
    shutil.copy(certificates.writer, path)
    await queue.append(stream, [Entry(1, 0, b"open")])
    shutil.copy(certificates.broker, path)  # a user without any permission
    hang_up(queue)
    with pytest.raises(AccessDeniedError):
        await queue.read(stream, START, max_records=9, max_bytes=99, max_wait=0)
