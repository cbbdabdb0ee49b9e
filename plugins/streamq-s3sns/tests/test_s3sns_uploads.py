"""Every upload has the headers that a bucket demands, and none that a server may not know."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from aws_refusing_proxy import Refusal, RefusingProxy
from s3sns_bucket import segments
from streamq import load_settings, open_reader, open_writer
from streamq.driver import (
    AccessDeniedError,
    ConfigurationError,
    Entry,
    FencedError,
    QueueOptions,
    StreamId,
)
from streamq.testing import new_stream
from streamq_aws.embedded import Ministack
from streamq_s3sns import S3SnsDriver, S3SnsSettings, open_hand_over
from streamq_s3sns.large_objects._source import PART_BYTES

OPTIONS = QueueOptions(ttl=timedelta(hours=1))
PART = re.compile(r"PUT [^ ]*partNumber", re.IGNORECASE)
NO_CHECKSUMS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


@pytest.fixture
async def proxy(aws: Ministack) -> AsyncIterator[RefusingProxy]:
    """Return a proxy in front of the emulator that answers as another server or policy does."""
    async with RefusingProxy(aws.address) as running:
        yield running


@pytest.fixture
def behind(settings: S3SnsSettings, proxy: RefusingProxy) -> S3SnsSettings:
    """Return settings that lead through the proxy."""
    return settings.model_copy(update={"endpoint_url": proxy.url})


async def upload_everything(stream: StreamId, settings: S3SnsSettings) -> None:
    """Upload everything that streamq ever does, and read and delete it."""
    queue = await S3SnsDriver.open(OPTIONS, settings)
    async with queue, open_hand_over(queue=queue, settings=load_settings(retry_seconds=5)) as over:
        with contextlib.suppress(FencedError):  # of the first attempt, when it ends
            async with open_writer(stream, queue=queue) as first:
                await first.send_chunk(0)
                await first.flush()
                async with open_writer(stream, queue=queue) as writer:
                    for i in range(10):  # enough for a pack
                        await writer.send_chunk(i)
                        await writer.flush()
                    await over.upload(stream, b"small")
                    await over.upload(stream, bytes(PART_BYTES + 1))
        async with open_reader(stream, queue=queue) as reader:
            assert (await reader.collect())[-10:] == list(range(10))
        await queue.delete(stream)


def kinds(proxy: RefusingProxy) -> set[str]:
    """Return the kinds of uploads that have passed through the proxy."""
    found = {
        "part": PART,
        "begin": re.compile("POST "),
        "conditional": re.compile(r".*^if-none-match", re.I | re.M | re.S),
        "pack": re.compile(r".*^if-match", re.I | re.M | re.S),
        "object": re.compile(r"PUT [^ ]*-object-"),
    }
    return {name for name, each in found.items() if any(map(each.match, proxy.uploads))}


async def test_no_upload_waits_for_100_continue(
    stream: StreamId, behind: S3SnsSettings, proxy: RefusingProxy
) -> None:
    """A round trip for each append, and with a server that never answers it a time-out."""
    async with asyncio.timeout(60):
        await upload_everything(stream, behind)
    assert kinds(proxy) == {"part", "begin", "conditional", "pack", "object"}
    assert [each for each in proxy.uploads if re.search("^expect:", each, re.I | re.M)] == []


async def test_upload_in_parts_goes_on_with_other_credentials(
    stream: StreamId, behind: S3SnsSettings, proxy: RefusingProxy
) -> None:
    """A large file may take longer than a token is valid, and the next one may come late."""
    proxy.refusal = Refusal("ExpiredToken", 400, only="PUT [^ ]*partNumber.*Credential=AKIAOLD")

    def credentials() -> dict[str, str]:
        key = "AKIAOLD" if proxy.refused["PUT"] < 3 else "AKIANEW"
        return {"access_key_id": key, "secret_access_key": "s", "session_token": key}

    settings = behind.model_copy(update={"credentials": credentials})
    data = os.urandom(2 * PART_BYTES + 1)
    queue = await S3SnsDriver.open(OPTIONS, settings)
    async with queue, open_hand_over(queue=queue, settings=load_settings(retry_seconds=30)) as over:
        await queue.append(stream, [Entry(1, 0, b"a")])
        stored = await over.upload(stream, data)
        assert b"".join([each async for each in over.download(stream, stored)]) == data
    assert proxy.keys == {"AKIAOLD", "AKIANEW"}


@pytest.mark.parametrize(
    ("demanded", "setting"),
    [
        (
            "x-amz-server-side-encryption-aws-kms-key-id: alias/ours",
            {"encryption": "aws:kms", "kms_key_id": "alias/ours", "bucket_key": True},
        ),
        pytest.param(
            "x-amz-server-side-encryption: AES256", {"encryption": "AES256"}, marks=pytest.mark.full
        ),
        pytest.param(
            "x-amz-server-side-encryption: aws:kms:dsse",
            {"encryption": "aws:kms:dsse"},
            marks=pytest.mark.full,
        ),
        pytest.param(
            "x-amz-server-side-encryption-bucket-key-enabled: true",
            {"encryption": "aws:kms", "bucket_key": True},
            marks=pytest.mark.full,
        ),
    ],
)
async def test_every_upload_satisfies_a_policy_that_demands_encryption(
    stream: StreamId,
    behind: S3SnsSettings,
    proxy: RefusingProxy,
    demanded: str,
    setting: dict[str, Any],
) -> None:
    """Such policies are common; of an upload in parts they concern the request that begins it."""
    proxy.dropped = "Expect|x-amz-server-side-encryption[^:]*"  # the emulator does not know all
    lacks = rf"^(PUT (?![^ ]*partNumber)|POST [^ ]*\?uploads)(?!.*{demanded})"
    proxy.refusal = Refusal("AccessDenied", 403, only=lacks)
    with pytest.raises(AccessDeniedError, match="STREAMQ_S3SNS_ENCRYPTION"):
        await upload_everything(stream, behind.model_copy(update={"pack": False}))
    proxy.refused.clear()
    encrypting = S3SnsSettings(**(behind.model_dump() | setting))
    await upload_everything(new_stream(), encrypting)
    assert not proxy.refused
    assert {"begin", "conditional", "pack", "object"} <= kinds(proxy)


async def test_server_without_checksums_is_named_with_the_variables_to_set(
    stream: StreamId,
    behind: S3SnsSettings,
    proxy: RefusingProxy,
    monkeypatch: pytest.MonkeyPatch,
    s3: Any,
) -> None:
    """Older servers and gateways know neither the headers nor the trailers."""
    proxy.refusal = Refusal(
        "NotImplemented", 501, only="x-amz-checksum|x-amz-sdk-checksum|x-amz-trailer|aws-chunked"
    )
    with pytest.raises(ConfigurationError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
        await upload_everything(stream, behind)
    for name, value in NO_CHECKSUMS.items():
        monkeypatch.setenv(name, value)
    stream = new_stream()
    await upload_everything(stream, behind)
    assert not segments(s3, behind)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("NotImplemented", 501),
        pytest.param("MissingContentMD5", 400, marks=pytest.mark.full),
        pytest.param("InvalidRequest", 400, marks=pytest.mark.full),
        pytest.param("MethodNotAllowed", 405, marks=pytest.mark.full),
    ],
)
async def test_server_that_cannot_delete_many_deletes_one_by_one(
    stream: StreamId,
    behind: S3SnsSettings,
    proxy: RefusingProxy,
    s3: Any,
    code: str,
    status: int,
) -> None:
    """Google's and some older servers have no DeleteObjects, or demand a digest for it."""
    proxy.refusal = Refusal(code, status, only=r"^POST [^ ]*\?delete")
    await upload_everything(stream, behind)
    assert proxy.refused["POST"] <= 2, "it was tried again"
    assert not segments(s3, behind)


@pytest.mark.parametrize("pack", [True, pytest.param(False, marks=pytest.mark.full)])
async def test_server_without_conditional_writes_is_refused(
    stream: StreamId, behind: S3SnsSettings, proxy: RefusingProxy, pack: bool
) -> None:
    """It answers 501, or overwrites: either way nothing would fence writers."""
    settings = behind.model_copy(update={"pack": pack})
    proxy.refusal = Refusal("NotImplemented", 501, only="^if-none-match|\nif-none-match")
    with pytest.raises(ConfigurationError, match=r"refuses `If-None-Match.*conditional writes"):
        await upload_everything(stream, settings)
    proxy.refusal, proxy.dropped = None, "If-None-Match"
    with pytest.raises(ConfigurationError, match="does not honour `If-None-Match"):
        await upload_everything(new_stream(), settings)


@pytest.mark.parametrize("dropped", [pytest.param(True, marks=pytest.mark.full), False])
async def test_server_without_conditional_replacement_is_not_packed_on(
    stream: StreamId, behind: S3SnsSettings, proxy: RefusingProxy, dropped: bool
) -> None:
    """Streams are complete without packs; reading them takes more requests."""
    if dropped:
        proxy.dropped = "If-Match"
    else:
        proxy.refusal = Refusal("NotImplemented", 501, only="\nif-match")
    await upload_everything(stream, behind)
