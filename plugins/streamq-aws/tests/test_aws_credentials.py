"""Credentials that are rotated, that expire, and that cannot be had."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiobotocore.session import AioSession

from aws_refusing_proxy import Refusal, RefusingProxy
from streamq import (
    AccessDeniedError,
    BackendUnavailableError,
    Chunk,
    ConfigurationError,
    StreamqError,
    open_queue,
    open_reader,
    open_writer,
)
from streamq.driver import CredentialSource, StreamId
from streamq_aws import AwsClients, AwsSettings, aws_errors
from streamq_aws._credentials import NAMES, REQUIRED, QueueCredentials

OLD, NEW = "AKIAOLD", "AKIANEW"
CODES = [
    *("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidAccessKeyId"),
    *("UnrecognizedClientException", "SignatureDoesNotMatch", "TokenRefreshRequired"),
]


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a credentials file with the old key, which is the only source of credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    write_key(path, OLD)
    return path


def write_key(path: Path, key: str) -> None:
    """Write a credentials file."""
    path.write_text(
        f"[default]\naws_access_key_id={key}\naws_secret_access_key=s\naws_session_token={key}\n"
    )


@pytest.mark.parametrize(
    "code", [CODES[0], *(pytest.param(each, marks=pytest.mark.full) for each in CODES[1:])]
)
async def test_rotated_file_is_read_again_by_every_client(
    backend: str, stream: StreamId, proxy: RefusingProxy, file: Path, code: str
) -> None:
    """Session tokens live for an hour; a queue lives as long as its process."""
    async with open_queue() as queue, open_writer(stream, queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        async with open_reader(stream, queue=queue) as reader:
            first = await anext(reader)
            assert isinstance(first, Chunk)
            assert first.value == "a"
            waiting = asyncio.ensure_future(anext(reader))
            await asyncio.sleep(0)
            write_key(file, NEW)
            proxy.refusal = Refusal(code, 400 if code.startswith("Expired") else 403, only=OLD)
            await writer.send_chunk("b")
            await writer.flush()
            second = await waiting
            assert isinstance(second, Chunk)
            assert second.value == "b"
        assert [each.stream async for each in queue.streams(stream.tenant)]
    assert sum(proxy.refused.values()) <= 4, "a client was not told"


async def test_keys_that_are_replaced_later_are_waited_for(
    backend: str, stream: StreamId, proxy: RefusingProxy, file: Path
) -> None:
    """Whoever rotates them may need some seconds."""
    async with open_queue() as queue, open_writer(stream, queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        proxy.refusal = Refusal("ExpiredToken", 400, only=OLD)
        await writer.send_chunk("b")
        flushing = asyncio.ensure_future(writer.flush())
        while sum(proxy.refused.values()) < 3:  # noqa: ASYNC110 - until it was refused again
            await asyncio.sleep(0.02)
        assert not flushing.done()
        write_key(file, NEW)
        await flushing


async def test_keys_that_are_never_replaced_end_in_an_error_of_streamq(
    backend: str,
    stream: StreamId,
    proxy: RefusingProxy,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the source that has to be looked at."""
    monkeypatch.setenv("STREAMQ_RETRY_SECONDS", "0.5")

    async def send() -> None:
        async with open_writer(stream) as writer:
            proxy.refusal = Refusal("ExpiredToken", 400, only=OLD)
            await writer.send_chunk("a")
            await writer.flush()

    with pytest.raises(BackendUnavailableError, match=r"shared-credentials-file.*ExpiredToken"):
        await send()


async def test_kept_credentials_that_cannot_be_renewed_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Requests go on, so nobody would look for the store that fails now and then."""
    fails = False

    def give() -> dict[str, str]:
        nonlocal fails
        if fails:
            fails = False
            raise OSError("store.example is being restarted")
        soon = datetime.now(UTC) + timedelta(minutes=1)
        return {
            "access_key_id": OLD,
            "secret_access_key": "hunter2",
            "expires_at": soon.isoformat(),
        }

    source = CredentialSource("STREAMQ_SQS_", NAMES, call=give, required=REQUIRED)
    credentials = QueueCredentials(AioSession, source, backend="sqs")
    await credentials.get_frozen_credentials()
    fails = True
    with caplog.at_level(logging.WARNING, "streamq.aws"):
        assert (await credentials.get_frozen_credentials()).access_key == OLD
    await credentials.aclose()
    (record,) = [each for each in caplog.records if each.name == "streamq.aws"]
    assert "sqs: credentials of streamq cannot be renewed" in record.getMessage()
    assert "store.example" in record.getMessage()
    assert "hunter2" not in caplog.text


async def test_keys_that_nobody_can_replace_fail_at_once(
    backend: str, stream: StreamId, proxy: RefusingProxy
) -> None:
    """Variables of a process stay as they are: repeating would only hide the reason."""
    async with open_queue() as queue, open_writer(stream, queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        proxy.refusal = Refusal("ExpiredToken", 400)
        with pytest.raises(AccessDeniedError, match="ExpiredToken"):
            [each async for each in queue.streams(stream.tenant)]
        assert sum(proxy.refused.values()) == 1
        proxy.refusal = None


async def test_function_that_gives_credentials_is_asked_again(
    backend: str, stream: StreamId, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal, and before the time that it states."""
    given = {"access_key_id": OLD, "secret_access_key": "s", "session_token": "t"}
    module = types.ModuleType("keys_of_a_test")
    vars(module)["give"] = lambda: given
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv(f"STREAMQ_{backend.upper()}_CREDENTIALS", f"{module.__name__}:give")
    async with open_queue() as queue, open_writer(stream, queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        soon = datetime.now(UTC) + timedelta(seconds=60)  # botocore refreshes long before
        given |= {"access_key_id": "AKIASOON", "expires_at": soon.isoformat()}
        proxy.refusal = Refusal("InvalidClientTokenId", 403, only=OLD)
        await writer.send_chunk("b")
        await writer.flush()
        given |= {"access_key_id": NEW}
        await writer.send_chunk("c")
        await writer.flush()
    assert proxy.keys == {OLD, "AKIASOON", NEW}


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (lambda: {"password": "hunter2"}, ConfigurationError, "access_key_id"),
        (
            lambda: {"access_key_id": "a"},
            ConfigurationError,
            "CREDENTIALS returned no secret_access",
        ),
        (lambda: 1 / 0, ConfigurationError, "ZeroDivisionError"),
        (
            lambda: {"access_key_id": "a", "secret_access_key": "hunter2", "expires_at": "soon"},
            BackendUnavailableError,
            "malformed",
        ),
    ],
)
async def test_function_that_gives_something_else_is_named(
    given: Callable[[], object], error: type[StreamqError], says: str
) -> None:
    """The mistake is in somebody's code, and not in an account."""
    settings = AwsSettings(credentials=given)  # type: ignore[arg-type]
    clients = AwsClients(settings, backend="sqs")
    with pytest.raises(error, match=says) as caught, aws_errors("sqs"):
        await (await clients.client("sqs")).list_queues()
    await clients.aclose()
    assert "hunter2" not in str(caught.value)


async def test_requests_that_are_cancelled_leave_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that waits for its user was started again for each request that gave up."""
    started = tmp_path / "started"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $$ >> {started}\nexec sleep 600\n")
    program.chmod(0o700)
    (tmp_path / "config").write_text(_process(str(program)))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    clients = AwsClients(AwsSettings(), backend="sqs")
    client = await clients.client("sqs")
    for _ in range(3):
        listing = asyncio.ensure_future(client.list_queues())
        while not started.exists() or not started.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        listing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listing
    (process,) = started.read_text().split()
    os.kill(int(process), 0)
    closing = asyncio.ensure_future(clients.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await clients.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


def _process(script: str) -> str:
    return f"[default]\ncredential_process = {script}\n"


EXPIRED_KEYS = (
    '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "hunter2", "SessionToken": "t", '
    '"Expiration": "2020-01-01T00:00:00Z"}'
)
SSO = (
    "[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\nsso_region = us-east-1\n"
    "sso_start_url = https://x.example/start\n"
    "[sso-session s]\nsso_region = us-east-1\nsso_start_url = https://x.example/start\n"
)
BROKEN: dict[str, tuple[str | Callable[[Path], str], dict[str, str], str]] = {
    "none": ("", {}, "AWS_PROFILE"),
    "no such profile": ("", {"AWS_PROFILE": "nowhere"}, "nowhere.*AWS_PROFILE"),
    "half a key": ("[default]\naws_access_key_id = a\n", {}, "aws_secret_access_key"),
    "process fails": (_process("/bin/false"), {}, "custom-process"),
    "process is not there": (_process("/nowhere/tool"), {}, "/nowhere/tool"),
    "process prints rubbish": (_process("/bin/echo hunter2"), {}, "malformed"),
    "process lacks a key": (_process("/bin/echo '{\"Version\": 1}'"), {}, "AccessKeyId"),
    "process of another version": (_process("/bin/echo '{\"Version\": 9}'"), {}, "9"),
    "process gives expired keys": (
        lambda directory: _process(f"/bin/cat {directory / 'keys.json'}"),
        {},
        "still expired",
    ),
    "token file is missing": (
        "",
        {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token"},
        "/nowhere/token",
    ),
    "not logged in": (SSO, {}, "sso|SSO|Token"),
    "container endpoint is down": (
        "",
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/"},
        "container",
    ),
    "source profile loops": (
        "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = a\n"
        "[profile a]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = b\n"
        "[profile b]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = a\n",
        {},
        "loop",
    ),
    "role without a source": (
        "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = nowhere\n",
        {},
        "nowhere",
    ),
    "file is rubbish": ("[default\n", {}, "AWS"),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
async def test_every_source_that_fails_gives_an_error_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    """The chain of botocore raises many classes, also such as JSONDecodeError and RuntimeError."""
    config, variables, says = BROKEN[case]
    (tmp_path / "keys.json").write_text(EXPIRED_KEYS)
    path = tmp_path / "config"
    path.write_text(config if isinstance(config, str) else config(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    clients = AwsClients(AwsSettings(), backend="sqs")
    with pytest.raises(StreamqError, match=says) as caught, aws_errors("sqs"):
        await (await clients.client("sqs")).list_queues()
    await clients.aclose()
    assert "AWS_" in str(caught.value), "the message names no setting"
    assert "hunter2" not in str(caught.value)
