"""Errors of an AWS account become errors of streamq, within a bounded time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    ConfigurationError,
    StreamqError,
    ThrottledError,
    load_settings,
    open_reader,
)
from streamq.devserver import free_port
from streamq.driver import Entry, QueueOptions, StreamId
from streamq_sqs import SqsDriver, SqsSettings

OPTIONS = QueueOptions(ttl=timedelta(minutes=5))
SECONDS = 10.0


@asynccontextmanager
async def service(code: str, status: int = 400, *, operation: str = "") -> AsyncIterator[str]:
    """Run a service that answers requests with an error: all of them, or those of one operation.

    All other requests get an empty answer.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if operation and f"AmazonSQS.{operation}\r\n".encode() not in request:
            await send(writer, 200, {})
            return
        await send(writer, status, {"__type": f"com.amazonaws.sqs#{code}", "message": "Words."})

    async def send(writer: asyncio.StreamWriter, status: int, said: dict[str, str]) -> None:
        body = json.dumps(said).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/x-amz-json-1.0\r\n" % status
            + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
            + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def opening(settings: SqsSettings) -> None:
    """Open a queue, and close it."""
    async with asyncio.timeout(SECONDS), await SqsDriver.open(OPTIONS, settings):
        pass


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDeniedException", 400, AccessDeniedError),
        ("AccessDenied", 403, AccessDeniedError),
        ("InvalidClientTokenId", 403, AccessDeniedError),
        ("SignatureDoesNotMatch", 403, AccessDeniedError),
        ("RequestThrottled", 400, ThrottledError),
        ("ThrottlingException", 400, ThrottledError),
        ("InternalFailure", 500, BackendUnavailableError),
        ("InvalidAddress", 404, BackendError),
    ],
)
async def test_refusals_are_raised_at_open(
    code: str, status: int, expected: type[StreamqError]
) -> None:
    """The first request shows whether the account can be used; the error names the request."""
    async with service(code, status) as url:
        with pytest.raises(expected, match=f"ListQueues.*{code}") as caught:
            await opening(SqsSettings(endpoint_url=url))
    assert type(caught.value) is expected
    assert caught.value.backend == "sqs"


async def test_refused_creation_names_the_queue(stream: StreamId) -> None:
    """The author of the policy needs the name of the queue."""
    async with (
        service("AccessDenied", 403, operation="CreateQueue") as url,
        await SqsDriver.open(OPTIONS, SqsSettings(endpoint_url=url, queue_prefix="ours-")) as queue,
    ):
        with pytest.raises(AccessDeniedError, match=r"CreateQueue \(queue ours-\S+\.fifo\)"):
            await queue.append(stream, [Entry(1, 0, b"a")])


async def test_missing_credentials_are_reported_at_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new machine the message names the variable to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessDeniedError, match="AWS_PROFILE"):
        await opening(SqsSettings())


async def test_missing_region_and_unknown_profile_are_reported_at_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both mistakes are in the settings, so no request is necessary to find them."""
    with pytest.raises(ConfigurationError, match="no-such-profile"):
        await opening(SqsSettings(profile="no-such-profile"))
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="AWS_DEFAULT_REGION"):
        await opening(SqsSettings())


async def test_region_without_an_answer_is_reported_in_time() -> None:
    """No call may wait for ever for an address that does not exist, as of a mistyped region."""
    settings = SqsSettings(
        endpoint_url=f"http://127.0.0.1:{free_port()}", connect_timeout_seconds=1.0
    )
    with pytest.raises(BackendUnavailableError, match="AWS_ENDPOINT_URL"):
        await opening(settings)


@pytest.mark.parametrize("wanted", ["replay", "fan_out"])
async def test_missing_capability_is_refused_at_open(wanted: str) -> None:
    """A second reader would take chunks away from the first one."""
    with pytest.raises(CapabilityError, match=wanted):
        async with open_reader("any", settings=load_settings(backend="sqs"), require=[wanted]):
            pass


def test_settings_are_described() -> None:
    """The documentation is generated from these descriptions."""
    assert all(field.description for field in SqsSettings.model_fields.values())
