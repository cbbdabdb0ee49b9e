"""Uploads: failures, lost answers, cancellation, and the remains of each."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from s3sns_bucket import segments
from s3sns_objects import fetch, objects, on_call, unfinished
from streamq import (
    BackendUnavailableError,
    ChunkTooLargeError,
    ClosedError,
    ConfigurationError,
    SerializationError,
    load_settings,
)
from streamq.driver import ChunkQueue, Entry, QueueOptions, StreamId, StreamNotFoundError
from streamq.testing import FaultProxy
from streamq_aws.embedded import Ministack
from streamq_s3sns import (
    HandOver,
    S3SnsDriver,
    S3SnsSettings,
    open_hand_over,
)
from streamq_s3sns._naming import OBJECT
from streamq_s3sns.large_objects import _upload as upload_module
from streamq_s3sns.large_objects._source import PART_BYTES
from streamq_s3sns.large_objects._upload import PARTS_AT_ONCE


async def endless(started: asyncio.Event) -> AsyncIterator[bytes]:
    """Give some parts, and then wait for ever."""
    for _ in range(3):
        yield bytes(PART_BYTES)
    started.set()
    await asyncio.Event().wait()


async def test_cancelled_upload_leaves_nothing(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Parts of an upload that is never completed cost money, and no listing shows them."""
    started = asyncio.Event()
    uploading = asyncio.create_task(hand_over.upload(stream, endless(started)))
    async with asyncio.timeout(20):
        await started.wait()
        assert len(unfinished(s3, settings)) == 1
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert unfinished(s3, settings) == []
    assert objects(s3, settings) == []


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "PutObject"])
async def test_upload_that_is_cancelled_in_a_request_leaves_nothing(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings, operation: str
) -> None:
    """The server may have executed a request whose caller has gone."""
    client = hand_over._objects.bucket.client
    is_done = asyncio.Event()

    async def hold(**_: object) -> None:
        is_done.set()
        await asyncio.sleep(0.05)

    client.meta.events.register(f"after-call.s3.{operation}", hold)
    size = 3 if operation == "PutObject" else 2 * PART_BYTES
    uploading = asyncio.create_task(hand_over.upload(stream, bytes(size)))
    async with asyncio.timeout(20):
        await is_done.wait()
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert unfinished(s3, settings) == []
    assert objects(s3, settings) == []


async def test_error_of_the_source_is_raised_unchanged(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings, tmp_path: Path
) -> None:
    """An error of the caller's own code must reach the caller, and nothing is left."""

    async def failing() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(PART_BYTES)
        raise LookupError("the camera is gone")

    async def texts() -> AsyncIterator[Any]:
        yield bytes(PART_BYTES)
        yield "text"

    with pytest.raises(LookupError, match="camera"):
        await hand_over.upload(stream, failing())
    with pytest.raises(SerializationError, match="str"):
        await hand_over.upload(stream, texts())
    with pytest.raises(SerializationError, match=r"pathlib\.Path"):
        await hand_over.upload(stream, "film.mp4")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        await hand_over.upload(stream, tmp_path / "film.mp4")
    assert unfinished(s3, settings) == []
    assert objects(s3, settings) == []


@pytest.mark.parametrize("argument", [{"media_type": "film"}, {"name": "a\nb"}])
async def test_arguments_that_no_header_can_hold_are_refused(
    hand_over: HandOver, stream: StreamId, argument: dict[str, Any]
) -> None:
    """The error comes at the upload, and not in a browser."""
    with pytest.raises(ConfigurationError, match=next(iter(argument)).replace("_", " ")):
        await hand_over.upload(stream, b"film", **argument)


async def test_more_parts_than_s3_accepts_are_refused(
    hand_over: HandOver,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The length of an iterable is unknown; S3 would refuse it after ten thousand parts."""
    monkeypatch.setattr(upload_module, "_MOST_PARTS", 2)
    with pytest.raises(ChunkTooLargeError, match="2 parts"):
        await hand_over.upload(stream, bytes(2 * PART_BYTES + 1))
    assert unfinished(s3, settings) == []
    await hand_over.upload(stream, bytes(2 * PART_BYTES))


@pytest.mark.parametrize(
    "operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"]
)
async def test_request_whose_answer_is_lost_is_repeated(
    hand_over: HandOver, stream: StreamId, operation: str
) -> None:
    """An upload of gigabytes must not begin anew because one part failed."""
    client = hand_over._objects.bucket.client
    lost: list[str] = []

    def lose(**_: object) -> None:
        if not lost:
            lost.append(operation)
            raise EndpointConnectionError(endpoint_url="s3")

    client.meta.events.register(f"after-call.s3.{operation}", lose)
    data = os.urandom(5 if operation == "PutObject" else 2 * PART_BYTES + 5)
    reference = await hand_over.upload(stream, data)
    assert lost
    assert (await fetch(await hand_over.url(stream, reference))).content == data


@pytest.mark.parametrize("setting", ["when_supported", "when_required"])
async def test_checksums_of_parts_are_announced_and_repeated_at_the_end(
    queue: ChunkQueue, stream: StreamId, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Amazon refuses parts with a checksum that was not announced, and an end without checksums."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    sent: dict[str, Any] = {}

    def note(model: Any, params: dict[str, Any], **_: object) -> None:
        sent[model.name] = params

    async with open_hand_over(queue=queue) as hand_over:
        for operation in ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"):
            on_call(hand_over, operation, note)
        await hand_over.upload(stream, bytes(PART_BYTES))
    announced = sent["CreateMultipartUpload"]["headers"].get("x-amz-checksum-algorithm")
    has_checksum = [
        "x-amz-checksum-crc32" in sent["UploadPart"]["headers"],
        b"ChecksumCRC32" in sent["CompleteMultipartUpload"]["body"],
    ]
    if setting == "when_supported":
        assert (announced, has_checksum) == ("CRC32", [True, True])
    else:
        assert (announced, has_checksum) == (None, [False, False])


async def test_failed_cleanup_is_logged_and_the_first_error_raised(
    hand_over: HandOver, stream: StreamId, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets the first error; the operator learns what is left."""

    def refuse(**_: object) -> None:
        answer = {"Error": {"Code": "AccessDenied", "Message": "m"}}
        raise ClientError(answer, "AbortMultipartUpload")

    async def failing() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        raise LookupError("the camera is gone")

    on_call(hand_over, "AbortMultipartUpload", refuse)
    with pytest.raises(LookupError, match="camera"):
        await hand_over.upload(stream, failing())
    (said,) = [each.getMessage() for each in caplog.records if each.name == "streamq.s3sns"]
    assert OBJECT in said
    assert "AccessDenied" in said


async def test_repeated_completion_succeeds(hand_over: HandOver, stream: StreamId) -> None:
    """S3 may answer the repeat of a completion that the upload does not exist."""
    client = hand_over._objects.bucket.client
    answers = [
        EndpointConnectionError(endpoint_url="s3"),
        ClientError(
            {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}},
            "CompleteMultipartUpload",
        ),
    ]

    def answer(**_: object) -> None:
        raise answers.pop(0)

    client.meta.events.register("after-call.s3.CompleteMultipartUpload", answer)
    reference = await hand_over.upload(stream, bytes(PART_BYTES))
    assert answers == []
    assert (await fetch(await hand_over.url(stream, reference))).status_code == 200


async def test_outage_is_raised_and_parts_are_removed(
    queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """The error comes after the time for retries, and when no part is under way any more."""
    async with open_hand_over(queue=queue, settings=load_settings(retry_seconds=0)) as hand_over:
        parts: list[int] = []

        async def fail(**_: object) -> None:
            parts.append(1)
            if len(parts) == PARTS_AT_ONCE:
                raise EndpointConnectionError(endpoint_url="s3")
            await asyncio.Event().wait()

        on_call(hand_over, "UploadPart", fail)
        with pytest.raises(BackendUnavailableError, match="s3"):
            await hand_over.upload(stream, bytes(20 * PART_BYTES))
        assert len(parts) == PARTS_AT_ONCE
        assert len(asyncio.all_tasks()) == 1
    assert unfinished(s3, settings) == []
    assert objects(s3, settings) == []


async def test_object_of_a_stream_that_was_deleted_during_the_upload_is_removed(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """The deletion did not see the object yet, so it would never be removed."""

    async def delete(**_: object) -> None:
        await queue.delete(stream)

    on_call(hand_over, "PutObject", delete)
    with pytest.raises(StreamNotFoundError):
        await hand_over.upload(stream, b"film")
    assert segments(s3, settings) == []


async def test_closing_ends_uploads_and_removes_them(
    queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A worker that shuts down leaves nothing behind."""
    started = asyncio.Event()
    hand_over = await open_hand_over(queue=queue)
    uploading = asyncio.create_task(hand_over.upload(stream, endless(started)))
    async with asyncio.timeout(20):
        await started.wait()
        await hand_over.aclose()
        with pytest.raises(ClosedError):
            await uploading
    assert unfinished(s3, settings) == []
    with pytest.raises(ClosedError):
        await hand_over.url(stream, f"{1:012}-{'a' * 32}")
    await hand_over.aclose()


async def test_broken_connections_do_not_restart_an_upload_or_a_download(
    aws: Ministack, settings: S3SnsSettings, stream: StreamId
) -> None:
    """A large object takes long enough for a connection to break, in both directions."""
    data = os.urandom(3 * PART_BYTES)
    async with FaultProxy("127.0.0.1", aws.port, half_closes=False) as proxy:
        behind = settings.model_copy(update={"endpoint_url": f"http://{proxy.address}"})
        broken = {"up": 0, "down": 0}

        async def breaking() -> AsyncIterator[bytes]:
            yield data[: 2 * PART_BYTES]
            broken["up"] = proxy.cut()
            yield data[2 * PART_BYTES :]

        async with (
            await S3SnsDriver.open(QueueOptions(ttl=timedelta(days=1)), behind) as queue,
            open_hand_over(queue=queue) as hand_over,
        ):
            await queue.append(stream, [Entry(1, 0, b"a")])
            reference = await hand_over.upload(stream, breaking())
            got = bytearray()
            async for block in hand_over.download(stream, reference):
                got += block
                if not broken["down"]:
                    broken["down"] = proxy.cut()
    assert min(broken.values()) > 0
    assert got == data


_HAND_OVER_MUCH = """
import asyncio, os, pathlib
from streamq import open_writer
from streamq_s3sns import open_hand_over

SIZE = 300_000_000

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if "VmHWM" in line)

async def source():
    block = os.urandom(1_000_000)
    for _ in range(SIZE // len(block)):
        yield block

async def main():
    async with open_hand_over() as hand_over, open_writer("much") as writer:
        before = peak()
        reference = await hand_over.upload(writer, source())
        uploaded = peak()
        size = 0
        async for block in hand_over.download(writer.stream, reference):
            size += len(block)
        assert size == SIZE
        print(uploaded - before, peak() - uploaded)

asyncio.run(main())
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak memory")
def test_memory_does_not_grow_with_the_object(tmp_path: Path, settings: S3SnsSettings) -> None:
    """Objects are large, and a worker needs its memory for other things."""
    ended = subprocess.run(
        [sys.executable, "-c", _HAND_OVER_MUCH],
        env={
            **os.environ,
            "STREAMQ_BACKEND": "s3sns",
            "STREAMQ_S3SNS_BUCKET": settings.bucket,
            "STREAMQ_S3SNS_PREFIX": settings.prefix,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    uploading, downloading = map(int, ended.stdout.split())
    assert uploading < 130
    assert downloading < 50
