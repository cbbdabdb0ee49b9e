"""What both AWS drivers owe to whoever has an account: the usual variables, and plain words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiobotocore.session
import pytest

from aws_between import Between, Refusal
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

BUCKET = "drivers"
SERVICES = {"sqs": ["SQS"], "s3sns": ["S3", "SNS", "SQS"]}
THROTTLED = ["SlowDown", "ThrottlingException", "RequestThrottled"]
STATUS = {"sqs": 400, "s3sns": 503}  # as these services have it: answers to HEAD have no code


@pytest.fixture(params=["sqs", "s3sns"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, aws: Ministack) -> str:
    """Choose a driver by variables; the emulator is where the usual ones lead."""
    name = str(request.param)
    pytest.importorskip(f"streamq_{name}")
    with aws.client("s3") as s3:
        s3.create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("STREAMQ_BACKEND", name)
    monkeypatch.setenv("STREAMQ_S3SNS_BUCKET", BUCKET)
    monkeypatch.setenv("STREAMQ_SQS_MAX_MESSAGE_BYTES", "262144")
    return name


@pytest.fixture
async def between(monkeypatch: pytest.MonkeyPatch, aws: Ministack) -> AsyncIterator[Between]:
    """Put something in between that can refuse."""
    async with Between(aws.address) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def stream() -> StreamId:
    """Return a stream that no other test uses."""
    return new_stream()


async def told(stream: StreamId) -> list[object]:
    """Write a stream and read it, each through a queue of its own."""
    async with open_writer(stream) as writer:
        await writer.send_chunk("a")
    async with open_reader(stream) as reader:
        return await reader.collect()


async def test_endpoint_of_each_service_is_taken(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """Who keeps only one service elsewhere sets only that one's variable."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for service in SERVICES[backend]:
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", aws.url)
    assert await told(stream) == ["a"]


async def test_driver_s_own_settings_win(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """One process may keep its streams in another place than everything else."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "nowhere")
    monkeypatch.setenv(f"STREAMQ_{backend.upper()}_ENDPOINT_URL", aws.url)
    monkeypatch.setenv(f"STREAMQ_{backend.upper()}_REGION", "us-east-1")
    assert await told(stream) == ["a"]


@pytest.mark.parametrize("by", ["AWS_PROFILE", "setting"])
async def test_role_of_a_profile_is_taken_on(
    backend: str,
    stream: StreamId,
    by: str,
    between: Between,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The usual way from one account into another; what is signed with is the role's own key."""
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
    assert await told(stream) == ["a"]
    keys = between.keys - {"base"}
    assert keys
    assert all(key.startswith("ASIA") for key in keys), keys


async def test_role_of_a_web_identity_is_taken_on(
    backend: str,
    stream: StreamId,
    between: Between,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """So pods in a cluster are let in, by two variables that the cluster sets."""
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdHJlYW1xIn0.")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/streamq")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    assert await told(stream) == ["a"]
    assert between.keys
    assert all(key.startswith("ASIA") for key in between.keys), between.keys


@pytest.mark.parametrize("code", THROTTLED)
async def test_throttling_is_waited_out(
    backend: str, stream: StreamId, between: Between, code: str
) -> None:
    """A service that is asked too much says so, and serves a moment later."""
    async with open_queue() as queue:
        between.refusal = Refusal(code, STATUS[backend], times=2)
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("a")
        async with open_reader(stream, queue=queue) as reader:
            assert await reader.collect() == ["a"]
    assert max(between.refused.values()) == 2
    assert len(between.refused) >= 2, "only one kind of request was throttled"


@pytest.mark.parametrize("code", THROTTLED)
async def test_throttling_is_waited_out_at_opening_too(
    backend: str, stream: StreamId, between: Between, code: str
) -> None:
    """A worker that starts while the account is busy must not fail for it."""
    between.refusal = Refusal(code, STATUS[backend], times=2)
    assert await told(stream) == ["a"]
    assert max(between.refused.values()) == 2


async def test_throttling_at_opening_is_told_at_the_deadline(
    backend: str, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left open of what did not open."""
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0.5")
    between.refusal = Refusal("SlowDown", STATUS[backend])
    with pytest.raises(ThrottledError):
        await open_queue()
    assert max(between.refused.values()) > 1, "it was not tried again"


@pytest.mark.parametrize("code", THROTTLED)
async def test_throttling_without_end_is_told_at_the_deadline(
    backend: str,
    stream: StreamId,
    between: Between,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
) -> None:
    """Nobody waits for ever, and the message says what kept us."""
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0.5")

    async def send_in_vain() -> None:
        async with open_writer(stream) as writer:
            between.refusal = Refusal(code, STATUS[backend])
            await writer.send_chunk("a")
            await writer.flush()

    with pytest.raises(BackendUnavailableError, match=code):
        await send_in_vain()
    assert max(between.refused.values()) > 1, "it was not tried again"


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
    between: Between,
    refusal: Refusal,
    expected: type[StreamqError] | tuple[type[StreamqError], ...],
    says: str,
) -> None:
    """Each is somebody else's to mend: who reads the message must know whose, and where."""
    between.refusal = refusal
    with pytest.raises(expected, match=says) as caught:
        await told(stream)
    assert refusal.code in str(caught.value)
    assert caught.value.backend == backend


async def test_missing_credentials_are_told(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a fresh machine the message says what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessDeniedError, match="AWS_PROFILE"):
        await told(stream)


async def test_region_that_nobody_has_is_told(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error in the region leads to a name that does not resolve."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-nowhere-9")
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0")
    with pytest.raises(BackendUnavailableError, match="AWS_DEFAULT_REGION"):
        await told(stream)


async def test_endpoint_that_is_no_url_is_told(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheme is what people forget."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "me:hunter2@127.0.0.1:4566")
    with pytest.raises(
        ConfigurationError, match=r"127\.0\.0\.1:4566; an endpoint is a URL"
    ) as caught:
        await told(stream)
    assert "hunter2" not in str(caught.value)


async def test_what_does_not_exist_is_told(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket has to be there first; the queue of a stream comes with its first record."""
    if backend == "s3sns":
        monkeypatch.setenv("STREAMQ_S3SNS_BUCKET", "nowhere")
        with pytest.raises(ConfigurationError, match=r"nowhere.*doctor --create"):
            await told(stream)
        return
    with pytest.raises(StreamNotFoundError, match="there is no queue streamq-"):
        async with open_reader(stream, must_exist=True):
            pass


async def test_clients_are_opened_once_and_closed(
    backend: str, stream: StreamId, monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """A client costs tenths of a second and holds connections: no call may open its own."""
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
