"""Both AWS drivers take the usual variables and raise clear errors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiobotocore.session
import pytest

from aws_refusing_proxy import Refusal, RefusingProxy
from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    StreamNotFoundError,
    StreamqError,
    ThrottledError,
    open_queue,
    open_reader,
    open_writer,
)
from streamq.driver import StreamId
from streamq.testing import FaultProxy, new_stream
from streamq_aws.embedded import Ministack

SERVICES = {"sqs": ["SQS"], "s3sns": ["S3", "SNS", "SQS"]}
THROTTLED = ["SlowDown", "ThrottlingException", "RequestThrottled"]
STATUS = {"sqs": 400, "s3sns": 503}  # of real services; an answer to HEAD has no code


async def write_and_read(stream: StreamId) -> list[object]:
    """Write a stream and read it, each through its own queue."""
    async with open_writer(stream) as writer:
        await writer.send_chunk("a")
    async with open_reader(stream) as reader:
        return await reader.collect()


async def test_endpoint_variable_of_each_service_is_used(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """Users may redirect only one service, by the variable of that service."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for service in SERVICES[backend]:
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", aws.url)
    assert await write_and_read(stream) == ["a"]


async def test_settings_of_the_driver_take_precedence(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """A process may use another account for its streams than for everything else."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "nowhere")
    monkeypatch.setenv(f"STREAMQ_{backend.upper()}_ENDPOINT_URL", aws.url)
    monkeypatch.setenv(f"STREAMQ_{backend.upper()}_REGION", "us-east-1")
    assert await write_and_read(stream) == ["a"]


@pytest.mark.parametrize("by", ["AWS_PROFILE", "setting"])
async def test_role_of_a_profile_is_assumed(
    backend: str,
    stream: StreamId,
    by: str,
    proxy: RefusingProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Roles lead from one account to another; requests must be signed with the role's own key."""
    file = tmp_path / "config"
    file.write_text(
        "[profile base]\naws_access_key_id = base\naws_secret_access_key = b\n"
        "[profile role]\nrole_arn = arn:aws:iam::000000000000:role/streamq\n"
        "source_profile = base\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    variable = by if by == "AWS_PROFILE" else f"STREAMQ_{backend.upper()}_PROFILE"
    monkeypatch.setenv(variable, "role")
    assert await write_and_read(stream) == ["a"]
    keys = proxy.keys - {"base"}
    assert keys
    assert all(key.startswith("ASIA") for key in keys), keys


async def test_role_of_a_web_identity_is_assumed(
    backend: str,
    stream: StreamId,
    proxy: RefusingProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Pods of a cluster get their permissions this way, by two variables that the cluster sets."""
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdHJlYW1xIn0.")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/streamq")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    assert await write_and_read(stream) == ["a"]
    assert proxy.keys
    assert all(key.startswith("ASIA") for key in proxy.keys), proxy.keys


@pytest.mark.parametrize("code", THROTTLED)
async def test_throttled_requests_are_retried(
    backend: str, stream: StreamId, proxy: RefusingProxy, code: str
) -> None:
    """A service that throttles requests serves them a moment later."""
    async with open_queue() as queue:
        proxy.refusal = Refusal(code, STATUS[backend], times=2)
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        async with open_reader(stream, queue=queue) as reader:
            assert await reader.collect() == ["a"]
    assert max(proxy.refused.values()) == 2
    assert len(proxy.refused) >= 2, "only one kind of request was throttled"


@pytest.mark.parametrize("code", THROTTLED)
async def test_throttled_opening_is_retried(
    backend: str, stream: StreamId, proxy: RefusingProxy, code: str
) -> None:
    """A worker that starts while the account is busy must not fail."""
    proxy.refusal = Refusal(code, STATUS[backend], times=2)
    assert await write_and_read(stream) == ["a"]
    assert max(proxy.refused.values()) == 2


async def test_throttled_opening_fails_at_the_deadline(
    backend: str, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that did not open must leave nothing open."""
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0.5")
    proxy.refusal = Refusal("SlowDown", STATUS[backend])
    with pytest.raises(ThrottledError):
        await open_queue()
    assert max(proxy.refused.values()) > 1, "no request was repeated"


@pytest.mark.parametrize("code", THROTTLED)
async def test_endless_throttling_fails_at_the_deadline(
    backend: str,
    stream: StreamId,
    proxy: RefusingProxy,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
) -> None:
    """No call waits for ever, and the message names the reason."""
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0.5")

    async def send() -> None:
        async with open_writer(stream) as writer:
            proxy.refusal = Refusal(code, STATUS[backend])
            await writer.send_chunk("a")
            await writer.flush()

    with pytest.raises(BackendUnavailableError, match=code):
        await send()
    assert max(proxy.refused.values()) > 1, "no request was repeated"


@pytest.mark.parametrize(
    ("refusal", "expected", "says"),
    [
        (Refusal("AccessDenied", 403), AccessDeniedError, "permissions"),
        (Refusal("InvalidClientTokenId", 403), AccessDeniedError, "credentials"),
        (
            Refusal(
                "InvalidSignatureException",
                403,
                "Credential should be scoped to a valid region, not 'us-east-1'. ",
            ),
            (BackendError, ConfigurationError),
            "AWS_DEFAULT_REGION",
        ),
    ],
    ids=["denied", "unknown-key", "wrong-region"],
)
async def test_refusals_name_the_request_and_the_next_step(
    backend: str,
    stream: StreamId,
    proxy: RefusingProxy,
    refusal: Refusal,
    expected: type[StreamqError] | tuple[type[StreamqError], ...],
    says: str,
) -> None:
    """Users cannot correct these in code; the message must name the request and the remedy."""
    proxy.refusal = refusal
    with pytest.raises(expected, match=says) as caught:
        await write_and_read(stream)
    assert refusal.code in str(caught.value)
    assert caught.value.backend == backend


async def test_missing_credentials_are_reported(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new machine the message names the variable to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessDeniedError, match="AWS_PROFILE"):
        await write_and_read(stream)


async def test_unknown_region_is_reported(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped region leads to a host name that does not resolve."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-nowhere-9")
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0")
    with pytest.raises(BackendUnavailableError, match="AWS_DEFAULT_REGION"):
        await write_and_read(stream)


async def test_endpoint_without_a_scheme_is_reported(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting the scheme is a common mistake; the message must not show the password."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "me:hunter2@127.0.0.1:4566")
    with pytest.raises(
        ConfigurationError, match=r"127\.0\.0\.1:4566; an endpoint is a URL"
    ) as caught:
        await write_and_read(stream)
    assert "hunter2" not in str(caught.value)


async def test_missing_bucket_or_queue_is_reported(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket has to exist before; the queue of a stream is created with its first record."""
    if backend == "s3sns":
        monkeypatch.setenv("STREAMQ_S3SNS_BUCKET", "nowhere")
        with pytest.raises(ConfigurationError, match=r"nowhere.*doctor --create"):
            await write_and_read(stream)
        return
    with pytest.raises(StreamNotFoundError, match="there is no queue streamq-"):
        async with open_reader(stream, must_exist=True):
            pass


async def test_clients_are_opened_once_and_closed(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """A client takes tenths of a second to open and holds connections: calls must share it."""
    opened: list[str] = []
    create = aiobotocore.session.AioSession.create_client

    def note(session: object, service_name: str, *args: object, **kwargs: object) -> object:
        opened.append(service_name)
        return create(session, service_name, *args, **kwargs)

    monkeypatch.setattr(aiobotocore.session.AioSession, "create_client", note)
    async with FaultProxy(*_host_and_port(aws), half_closes=False) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
        async with open_queue() as queue:
            for each in (stream, new_stream(), new_stream()):
                async with open_writer(each, queue=queue) as writer:
                    await writer.send_chunk("a")
                async with open_reader(each, queue=queue) as reader:
                    assert await reader.collect() == ["a"]
            assert sorted(opened) == sorted(set(opened))
            assert proxy.connections
        while proxy.connections:  # noqa: ASYNC110 - until the proxy has noticed
            await asyncio.sleep(0.01)


def _host_and_port(server: Ministack) -> tuple[str, int]:
    host, port = server.address.split(":")
    return host, int(port)
