"""Logging in to genuine Apache Kafka, and failures of the token provider."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kafka_brokers import Broker, Certificates, hang_up
from streamq import open_reader, open_writer
from streamq.driver import (
    START,
    AccessDeniedError,
    BackendUnavailableError,
    ChunkQueue,
    Entry,
    StreamId,
)
from streamq.testing import OpenWith, new_stream
from streamq_kafka import KafkaSettings

_SOON = 8.0
_DEADLINES: dict[str, Any] = {"connect_timeout_seconds": 2.0, "operation_timeout_seconds": 2.0}


def _token(lifetime: float = 600.0) -> str:
    """Return a token of ``writer`` without a signature."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": "writer", "iat": now - 60, "exp": now + lifetime})
    return "".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") + "."
        for part in parts
    )


async def provide() -> str:
    """Return a token as a coroutine."""
    return _token()


def provide_in_thread() -> str:
    """Return a token as a function that may block."""
    assert threading.current_thread() is not threading.main_thread()
    return _token()


def provide_expired() -> str:
    """Return a token that a broker refuses."""
    return _token(-30.0)


_answer: Callable[[], Any] = provide_in_thread


def provide_by_answer() -> Any:
    """Call the function that the test has set."""
    return _answer()


def _raise() -> str:
    raise ValueError("s3cr3t")


async def _hang() -> str:
    await asyncio.Event().wait()
    return ""


def _with_tokens(broker: Broker, provider: Callable[..., Any], **options: Any) -> KafkaSettings:
    known: dict[str, Any] = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_token_provider": f"{__name__}:{provider.__name__}",
        **_DEADLINES,
    }
    address = broker.sasl_address
    if options.get("security_protocol") == "SASL_SSL":
        address = broker.sasl_tls_address
    return broker.settings(address, **{**known, **options})


async def _use(queue: ChunkQueue, stream: StreamId, index: int) -> int:
    """Append a record, and return the number of records."""
    await queue.append(stream, [Entry(1, index, b"x")])
    found = await queue.read(stream, START, max_records=100, max_bytes=2**20, max_wait=0)
    return len(found)


@pytest.mark.parametrize("provider", [provide, provide_in_thread])
async def test_token_logs_in(
    apache: Broker, open_with: OpenWith, provider: Callable[..., Any]
) -> None:
    """MSK with IAM and every identity provider work this way."""
    queue = await open_with(_with_tokens(apache, provider))
    assert await _use(queue, new_stream(), 0) == 1


async def test_connections_that_end_with_their_token_lose_nothing(
    apache: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managed clusters need TLS, and a new token every few minutes; streams last longer."""
    asked = 0

    def count() -> str:
        nonlocal asked
        asked += 1
        return _token()

    monkeypatch.setattr(f"{__name__}._answer", count)
    tls = {"security_protocol": "SASL_SSL", "tls_ca_file": str(apache.ca_file)}
    queue = await open_with(_with_tokens(apache, provide_by_answer, **tls))
    stream = new_stream()
    writer = await open_writer(stream, queue=queue)
    async with open_reader(stream, queue=queue, idle_seconds=_SOON) as reader:
        reading = asyncio.ensure_future(reader.collect())
        async with asyncio.timeout(30.0), writer:
            opened, sent = asked, 0
            # Until six connections of reader and writer have ended and been replaced.
            while asked < opened + 6:
                await writer.send_chunk(sent)
                await writer.flush()
                sent += 1
                await asyncio.sleep(0.05)
        assert await reading == list(range(sent))


async def test_refused_token_is_an_access_error(apache: Broker, open_with: OpenWith) -> None:
    """A token that has expired or is for another audience does not get better by a retry."""
    with pytest.raises(AccessDeniedError, match="credentials"):
        await open_with(_with_tokens(apache, provide_expired))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_password_over_tls_logs_in(
    apache: Broker, open_with: OpenWith, mechanism: str
) -> None:
    """The listeners of Confluent Cloud and MSK need both."""
    queue = await open_with(
        apache.settings(
            apache.sasl_tls_address,
            security_protocol="SASL_SSL",
            sasl_mechanism=mechanism,
            sasl_username="writer",
            sasl_password=apache.passwords["writer"],
            tls_ca_file=str(apache.ca_file),
        )
    )
    assert await _use(queue, new_stream(), 0) == 1


async def test_client_certificate_logs_in(
    apache: Broker, certificates: Certificates, open_with: OpenWith
) -> None:
    """With mutual TLS the certificate is the identity."""
    settings = apache.settings(
        apache.tls_address,
        security_protocol="SSL",
        tls_ca_file=str(certificates.authority),
        tls_cert_file=str(certificates.writer),
    )
    queue = await open_with(settings)
    assert await _use(queue, new_stream(), 0) == 1


@pytest.mark.parametrize("answer", [_raise, _hang, dict])
async def test_missing_token_is_reported_and_later_ones_are_used(
    apache: Broker, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any]
) -> None:
    """A token service is down for a minute; nothing may need a restart after that."""
    queue = await open_with(_with_tokens(apache, provide_by_answer))
    stream = new_stream()
    assert await _use(queue, stream, 0) == 1
    monkeypatch.setattr(f"{__name__}._answer", answer)
    hang_up(queue)
    async with asyncio.timeout(_SOON):
        for call in (
            queue.read(stream, START, max_records=1, max_bytes=1, max_wait=1.0),
            queue.append(stream, [Entry(1, 1, b"x")]),
            open_with(_with_tokens(apache, provide_by_answer)),
        ):
            with pytest.raises(BackendUnavailableError) as caught:
                await call
            assert "s3cr3t" not in str(caught.value)
    assert "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER" in str(caught.value)
    monkeypatch.undo()
    async with asyncio.timeout(_SOON):
        while True:
            try:
                # An append that was given up may have been stored, too; readers drop the repeat.
                assert await _use(queue, stream, 1) in (2, 3)
                break
            except BackendUnavailableError:
                continue
