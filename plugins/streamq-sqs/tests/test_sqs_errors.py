"""What goes wrong with an account: told in streamq's words, within a bounded time."""

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
    """A service that answers requests with an error: all, or those for one operation.

    Others are told nothing, successfully.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if operation and f"AmazonSQS.{operation}\r\n".encode() not in asked:
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
    """Open a queue, and close it again."""
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
async def test_refusals_are_told_at_open(
    code: str, status: int, expected: type[StreamqError]
) -> None:
    """The first call finds out whether the account lets us in, and says which call it was."""
    async with service(code, status) as url:
        with pytest.raises(expected, match=f"ListQueues.*{code}") as caught:
            await opening(SqsSettings(endpoint_url=url))
    assert type(caught.value) is expected
    assert caught.value.backend == "sqs"


async def test_creation_that_is_not_permitted_names_the_queue(stream: StreamId) -> None:
    """Whoever writes the policy has to know for which names."""
    async with (
        service("AccessDenied", 403, operation="CreateQueue") as url,
        await SqsDriver.open(OPTIONS, SqsSettings(endpoint_url=url, queue_prefix="ours-")) as queue,
    ):
        with pytest.raises(AccessDeniedError, match=r"CreateQueue \(queue ours-\S+\.fifo\)"):
            await queue.append(stream, [Entry(1, 0, b"a")])


async def test_missing_credentials_are_told_at_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fresh machine the message says what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessDeniedError, match="AWS_PROFILE"):
        await opening(SqsSettings())


async def test_missing_region_and_unknown_profile_are_told_at_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both mistakes are in the settings, and nothing has to be asked to know."""
    with pytest.raises(ConfigurationError, match="nobody"):
        await opening(SqsSettings(profile="nobody"))
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="AWS_DEFAULT_REGION"):
        await opening(SqsSettings())


async def test_region_where_nothing_answers_is_told_in_time() -> None:
    """A region with a typing error has an address that nobody has; nobody waits for it for ever."""
    settings = SqsSettings(
        endpoint_url=f"http://127.0.0.1:{free_port()}", connect_timeout_seconds=1.0
    )
    with pytest.raises(BackendUnavailableError, match="AWS_ENDPOINT_URL"):
        await opening(settings)


@pytest.mark.parametrize("wanted", ["replay", "fan_out"])
async def test_what_sqs_cannot_do_is_refused_at_open(wanted: str) -> None:
    """A second reader would take chunks away from the first one: better no stream than half."""
    with pytest.raises(CapabilityError, match=wanted):
        async with open_reader("any", settings=load_settings(backend="sqs"), require=[wanted]):
            pass


def test_settings_are_described() -> None:
    """The documentation is generated from these descriptions."""
    assert all(field.description for field in SqsSettings.model_fields.values())
