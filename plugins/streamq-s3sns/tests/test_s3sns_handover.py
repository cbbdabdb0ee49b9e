"""Objects that are handed over beside a stream: how they get there, who gets them, how they go."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from s3sns_bucket import BUCKET, segments
from streamq import (
    BackendUnavailableError,
    BlockingStreamWriter,
    Chunk,
    ChunkTooLargeError,
    ClosedError,
    ConfigurationError,
    CorruptRecordError,
    SerializationError,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, QueueOptions, StreamId, StreamNotFoundError
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import FaultProxy, OpenQueue
from streamq_aws.embedded import Ministack
from streamq_s3sns import (
    HandOver,
    ObjectNotFoundError,
    ObjectReference,
    S3SnsDriver,
    S3SnsSettings,
    open_hand_over,
)
from streamq_s3sns import _upload as upload_module
from streamq_s3sns._keys import ANNOUNCEMENT, LARGEST_NUMBER, OBJECT, segment_name
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns._reference import disposition, shown_type
from streamq_s3sns._upload import PART_BYTES, PARTS_AT_ONCE

PAGE = b"<script>alert(document.domain)</script>"


def unfinished(s3: Any, settings: S3SnsSettings) -> list[str]:
    """Return the uploads below the prefix that were neither completed nor aborted."""
    answer = s3.list_multipart_uploads(Bucket=BUCKET)
    found = [each["Key"] for each in answer.get("Uploads", ())]
    return [key for key in found if key.startswith(f"{settings.prefix}/")]


def objects(s3: Any, settings: S3SnsSettings) -> list[str]:
    """Return the keys of objects that were handed over."""
    return [key for key in segments(s3, settings) if OBJECT in key]


async def fetch(url: str, **headers: str) -> httpx.Response:
    """Fetch as somebody does who has the URL and nothing else."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        return await client.get(url, headers=headers)


@pytest.fixture
async def queue(open_queue: OpenQueue, stream: StreamId) -> ChunkQueue:
    """Return a queue on which the stream exists."""
    opened = await open_queue()
    await opened.append(stream, [Entry(1, 0, b"a")])
    return opened


@pytest.fixture
async def hand_over(queue: ChunkQueue) -> AsyncIterator[HandOver]:
    """Return what hands over on that queue."""
    async with open_hand_over(queue=queue, settings=load_settings(retry_seconds=5)) as opened:
        yield opened


def on_call(hand_over: HandOver, operation: str, handler: Any) -> None:
    """Have a function called before each request of a kind; what it raises is the outcome."""
    client = hand_over._objects._client
    client.meta.events.register(f"before-call.s3.{operation}", handler)


async def pieces(data: bytes) -> AsyncIterator[Any]:
    """Give bytes in pieces that are no parts, from one buffer, as whoever reads a socket does."""
    buffer = bytearray()
    for first in range(0, len(data), 700_001):
        buffer[:] = data[first : first + 700_001]
        yield buffer


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 5])
@pytest.mark.parametrize("kind", ["bytes", "path", "iterable"])
async def test_object_comes_back_as_it_was_given(
    hand_over: HandOver, stream: StreamId, tmp_path: Path, s3: Any, size: int, kind: str
) -> None:
    """In one request or in parts, from wherever: the bytes, and what is said of them."""
    data = (os.urandom(1_000) * (size // 1_000 + 1))[:size]
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    source: Any = {"bytes": data, "path": path, "iterable": pieces(data)}[kind]
    reference = await hand_over.upload(stream, source, media_type="video/mp4")
    assert reference.bytes == size
    assert reference.sha256 == hashlib.sha256(data).hexdigest()
    assert reference.name == ("film.mp4" if kind == "path" else "")
    answer = await fetch(await hand_over.url(stream, reference))
    assert answer.status_code == 200, answer.text
    assert answer.content == data
    assert answer.headers["Content-Type"] == "video/mp4"
    assert b"".join([block async for block in hand_over.download(stream, reference)]) == data


async def test_reference_is_a_chunk_like_any_other(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId
) -> None:
    """So its order, its retry and its being told once are the stream's."""
    stream = StreamId(stream.tenant, f"{stream.name}-written")
    async with open_writer(stream, queue=queue) as writer:
        reference = await hand_over.upload(writer, b"film", name="a.mp4")
        await writer.send_chunk("before")
        await writer.send_chunk(reference)
        await writer.send_chunk({"file": reference})
    async with open_reader(stream, queue=queue) as reader:
        values = [event.value async for event in reader if isinstance(event, Chunk)]
    assert values == ["before", dataclasses.asdict(reference), {"file": values[1]}]
    assert ObjectReference.of(values[1]) == reference
    async with open_reader(stream, queue=queue, value_type=ObjectReference) as reader:
        chunks = [event async for event in reader if isinstance(event, Chunk)]
    assert chunks[1].value == reference


@pytest.mark.parametrize(
    "change",
    [
        *({"id": "x"}, {"id": f"{1:012}-{'A' * 32}"}, {"id": f"{1:012}-{'a' * 32}\n"}),
        *({"bytes": -1}, {"bytes": "many"}, {"media_type": "text"}, {"media_type": "a/b\r\nX: y"}),
        *({"name": "a\0b"}, {"name": "n" * 256}, {"sha256": "0"}),
    ],
)
def test_what_is_no_reference_is_told(change: dict[str, object]) -> None:
    """What comes out of a stream may have been put there by anybody who may write to it."""
    good = {"id": f"{1:012}-{'a' * 32}", "bytes": 1, "media_type": "a/b", "name": "c"}
    good["sha256"] = "0" * 64
    assert dataclasses.asdict(ObjectReference.of(good)) == good
    with pytest.raises(SerializationError, match=f"{next(iter(change))}|media type"):
        ObjectReference.of(good | change)
    with pytest.raises(SerializationError, match="upload"):
        ObjectReference.of("a text")


async def test_browser_stores_what_could_be_a_page(hand_over: HandOver, stream: StreamId) -> None:
    """Who may write to a stream must not have scripts run on the host of the bucket."""
    reference = await hand_over.upload(
        stream, PAGE, media_type="text/html; charset=utf-8", name='x";\\é/../c.html'
    )
    answer = await fetch(await hand_over.url(stream, reference))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    said = answer.headers["Content-Disposition"]
    assert said.startswith('attachment; filename="x_;___.._c.html"; filename*=UTF-8')


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        *(("image/png", True), ("text/plain; charset=utf-8", True), ("application/pdf", True)),
        *(("text/html", False), ("image/svg+xml", False), ("application/xhtml+xml", False)),
        *(("text/xml", False), ("TEXT/HTML;charset=utf-8", False), ("text/javascript", False)),
        *(("nonsense", False), ("a/b\r\nX-Header: c", False)),
    ],
)
def test_types_that_could_have_scripts_are_told_to_be_bytes(media_type: str, shown: bool) -> None:
    """A proxy may lose the header that has a browser store it."""
    assert shown_type(media_type) == (media_type if shown else "application/octet-stream")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "attachment"),
        ("...", "attachment"),
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
        ('a"; filename=b', 'attachment; filename="a_; filename=b"'),
        ("a\r\nSet-Cookie: b", 'attachment; filename="a__Set-Cookie_ b"'),
        ("photo\u202egpj.exe", 'attachment; filename="photo_gpj.exe"'),
        ("naïve.txt", "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
    ],
)
def test_names_of_files_can_do_no_harm(name: str, said: str) -> None:
    """They are made by whoever writes to the stream, and end up in a header and on a disk."""
    assert disposition(name) == said


async def test_names_of_streams_need_no_care(open_queue: OpenQueue) -> None:
    """They are escaped in keys, and keys once more in URLs."""
    queue = await open_queue()
    stream = StreamId("t.-_", "order 7/é+%2F?&#'()*~")
    await queue.append(stream, [Entry(1, 0, b"a")])
    async with open_hand_over(queue=queue) as hand_over:
        reference = await hand_over.upload(stream, b"film")
        assert (await fetch(await hand_over.url(stream, reference))).content == b"film"


def seconds(url: str) -> int:
    """Return how long a URL is valid."""
    return int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])


async def test_url_is_valid_no_longer_than_its_stream_or_s3_allows(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """A URL passes by every later check: it must end when the stream does, at the latest."""
    year = timedelta(days=365)
    queue = await open_queue()
    async with open_hand_over(queue=queue) as hand_over:
        await queue.append(stream, [Entry(1, 0, b"a")], ttl=year)
        reference = await hand_over.upload(stream, b"film")
        assert seconds(await hand_over.url(stream, reference)) == 300
        assert seconds(await hand_over.url(stream, reference, lifetime=year)) == 7 * 86_400
        await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(seconds=60))
        assert 50 < seconds(await hand_over.url(stream, reference, lifetime=year)) <= 60
        with pytest.raises(ConfigurationError, match=r"0:00:00\.5"):
            await hand_over.url(stream, reference, lifetime=timedelta(seconds=0.5))
        url = await hand_over.url(stream, reference, lifetime=timedelta(seconds=1))
        async with asyncio.timeout(20):
            while (await fetch(url)).status_code == 200:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.1)
        assert "expired" in (await fetch(url)).text


async def test_url_cannot_be_changed_into_another(hand_over: HandOver, stream: StreamId) -> None:
    """What was signed is one object with its headers, to be read."""
    reference, other = [await hand_over.upload(stream, data) for data in (b"film", b"other")]
    url = await hand_over.url(stream, reference, lifetime=timedelta(seconds=60))
    assert (await fetch(url)).status_code == 200
    for old, new in (
        (reference.id, other.id),
        ("attachment", "inline"),
        ("octet-stream", "xhtml"),
        ("Expires=60", "Expires=61"),
    ):
        assert old in url
        assert (await fetch(url.replace(old, new))).status_code == 403
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        assert (await client.put(url, content=b"mine")).status_code == 403
        assert (await client.delete(url)).status_code == 403


async def test_nobody_is_made_to_sign_what_is_not_the_streams(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId
) -> None:
    """A reference is made by whoever writes to one stream, and signed with the reader's rights."""
    other = StreamId(stream.tenant, f"{stream.name}-other")
    await queue.append(other, [Entry(1, 0, b"a")])
    theirs = await hand_over.upload(other, b"secret")
    mine = await hand_over.upload(stream, b"film")
    forged: list[ObjectReference | str] = [
        theirs,
        theirs.id,
        f"../{other.name}/{OBJECT}{theirs.id}",
        f"../../{OBJECT}{theirs.id}",
        *("", "-", ANNOUNCEMENT, segment_name(1), mine.id[:-1], f"{mine.id}\n", mine.id.upper()),
        f"{LARGEST_NUMBER}-{mine.id[13:]}",
        dataclasses.replace(mine, bytes=7),
    ]
    for reference in forged:
        with pytest.raises(ObjectNotFoundError, match=re.escape(str(stream))):
            await hand_over.url(stream, reference)
    with pytest.raises(ObjectNotFoundError):
        await anext(hand_over.download(stream, theirs))
    assert (await fetch(await hand_over.url(other, theirs))).content == b"secret"


async def test_object_that_is_not_what_was_uploaded_is_told(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Whoever may write to the bucket may change objects, and no reader of a stream may notice."""
    reference = await hand_over.upload(stream, b"film")
    (key,) = objects(s3, settings)
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"fake")
    with pytest.raises(CorruptRecordError, match=reference.id):
        [block async for block in hand_over.download(stream, reference)]
    s3.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(ObjectNotFoundError, match="removed"):
        await hand_over.url(stream, reference)
    with pytest.raises(ObjectNotFoundError, match="removed"):
        await anext(hand_over.download(stream, reference))


async def test_there_is_nothing_beside_a_stream_that_is_not_there(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId
) -> None:
    """Never written, deleted or expired: no upload that nobody removes, no URL."""
    nowhere = StreamId(stream.tenant, "nowhere")
    reference = await hand_over.upload(stream, b"film")

    async def check(gone: StreamId) -> None:
        with pytest.raises(StreamNotFoundError, match=re.escape(str(gone))):
            await hand_over.upload(gone, b"film")
        with pytest.raises(StreamNotFoundError):
            await hand_over.url(gone, reference)
        with pytest.raises(StreamNotFoundError):
            await anext(hand_over.download(gone, reference))

    await check(nowhere)
    await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    await check(stream)
    # A new stream of that name has nothing to do with the old one, which is stored all the same.
    await queue.append(stream, [Entry(1, 0, b"a")])
    with pytest.raises(ObjectNotFoundError, match="earlier"):
        await hand_over.url(stream, reference)
    reference = await hand_over.upload(stream, b"film")
    await queue.delete(stream)
    await check(stream)


def note_requests(queue: ChunkQueue, seen: list[str]) -> None:
    """Note what a queue asks of S3, from now on."""
    assert isinstance(queue, S3SnsQueue)
    queue.store._client.meta.events.register(
        "before-call.s3", lambda model, **_: seen.append(model.name)
    )


async def test_stream_without_objects_pays_one_listing_more(
    queue: ChunkQueue, stream: StreamId
) -> None:
    """Nobody who hands nothing over shall pay for it: listings are what costs most."""
    seen: list[str] = []
    note_requests(queue, seen)
    await queue.delete(stream)
    assert seen == ["ListObjectsV2", "ListObjectsV2", "DeleteObjects"]
    await queue.append(stream, [Entry(1, 0, b"a")])
    seen.clear()
    await queue.sweep()
    assert seen == ["ListObjectsV2", "HeadObject"]
    await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    seen.clear()
    assert await queue.sweep() == 1
    assert seen.count("ListObjectsV2") == 3


@pytest.mark.parametrize("way", ["delete", "sweep"])
async def test_objects_go_with_their_stream(
    hand_over: HandOver,
    queue: ChunkQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    way: str,
) -> None:
    """Whoever deletes a stream means all of it, and nothing of others."""
    other = StreamId(stream.tenant, f"{stream.name}-other")
    await queue.append(other, [Entry(1, 0, b"a")])
    kept = await hand_over.upload(other, b"other")
    for _ in range(3):
        await hand_over.upload(stream, b"film")
    assert len(objects(s3, settings)) == 4
    if way == "delete":
        await queue.delete(stream)
    else:
        await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
        await asyncio.sleep(0.01)
        assert await queue.sweep() == 1
    directory = queue.store.keys.directory(other)  # type: ignore[attr-defined]
    assert segments(s3, settings) == [f"{directory}{OBJECT}{kept.id}", directory + segment_name(1)]


async def test_deletion_that_is_interrupted_leaves_nothing_half(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Nobody reads a reference to what has gone already; and a sweep puts the rest away."""
    await hand_over.upload(stream, b"film")
    assert isinstance(queue, S3SnsQueue)
    turns: list[str] = []

    def interrupt(**_: object) -> None:
        turns.append("objects" if objects(s3, settings) else "segments")
        if len(turns) == 2:
            raise EndpointConnectionError(endpoint_url="s3")

    queue.store._client.meta.events.register("before-call.s3.DeleteObjects", interrupt)
    with pytest.raises(BackendUnavailableError):
        await queue.delete(stream)
    assert turns == ["objects", "segments"]
    assert segments(s3, settings)
    with pytest.raises(StreamNotFoundError):
        await queue.describe(stream)
    assert [info async for info in queue.streams(stream.tenant)] == []
    await queue.sweep()
    assert segments(s3, settings) == []


async def test_sweep_leaves_the_objects_of_a_new_stream_of_that_name(
    hand_over: HandOver, queue: ChunkQueue, open_queue: OpenQueue, stream: StreamId
) -> None:
    """It may begin, and be handed something over, while the old one is being removed."""
    await hand_over.upload(stream, b"old")
    await queue.append(stream, [Entry(1, 1, b"b")], ttl=timedelta(milliseconds=1))
    await asyncio.sleep(0.01)
    sweeping = await open_queue()
    assert isinstance(sweeping, S3SnsQueue)
    new: list[ObjectReference] = []

    async def begin_anew(params: dict[str, Any], **_: object) -> None:
        if OBJECT in params["url_path"] + str(params["query_string"]) and not new:
            await queue.append(stream, [Entry(2, 0, b"new")])
            new.append(await hand_over.upload(stream, b"new"))

    sweeping.store._client.meta.events.register("before-call.s3.ListObjectsV2", begin_anew)
    assert await sweeping.sweep() == 1
    assert (await fetch(await hand_over.url(stream, new[0]))).content == b"new"
    assert (await queue.describe(stream)).records == 1


async def test_objects_are_in_the_way_of_nothing(
    hand_over: HandOver, queue: ChunkQueue, open_queue: OpenQueue, stream: StreamId
) -> None:
    """They lie in the stream's own directory: its segments are found, read and counted as ever."""
    for _ in range(3):
        await hand_over.upload(stream, b"film")
    other = await open_queue()
    assert isinstance(other, S3SnsQueue)
    other.store.page_keys = 2
    assert [info.stream async for info in other.streams(stream.tenant)] == [stream]
    info = await other.describe(stream, last=1)
    assert (info.records, info.last[0].data) == (1, b"a")
    await other.append(stream, [Entry(2, 0, b"b")])
    found = await other.read(stream, "", max_records=9, max_bytes=99, max_wait=0)
    assert [each.data for each in found] == [b"a", b"b"]


async def endless(started: asyncio.Event) -> AsyncIterator[bytes]:
    """Give some parts, and then nothing more."""
    for _ in range(3):
        yield bytes(PART_BYTES)
    started.set()
    await asyncio.Event().wait()


async def test_cancelled_upload_leaves_nothing(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Parts of what was never completed are paid for, and no listing of objects shows them."""
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
    """The server may have done what nobody waits for any more."""
    client = hand_over._objects._client
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


async def test_source_that_fails_is_told_as_it_failed(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings, tmp_path: Path
) -> None:
    """What the caller's own code raises is not for us to change; and nothing is left."""

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
    """Told at the upload, and not by a browser."""
    with pytest.raises(ConfigurationError, match=next(iter(argument)).replace("_", " ")):
        await hand_over.upload(stream, b"film", **argument)


async def test_more_parts_than_s3_takes_are_refused(
    hand_over: HandOver,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The length of an iterable is not known before, and S3 would say it after ten thousand."""
    monkeypatch.setattr(upload_module, "_MOST_PARTS", 2)
    with pytest.raises(ChunkTooLargeError, match="2 parts"):
        await hand_over.upload(stream, bytes(2 * PART_BYTES + 1))
    assert unfinished(s3, settings) == []
    await hand_over.upload(stream, bytes(2 * PART_BYTES))


@pytest.mark.parametrize(
    "operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"]
)
async def test_answer_that_is_lost_is_asked_for_again(
    hand_over: HandOver, stream: StreamId, operation: str
) -> None:
    """Gigabytes must not begin anew because one part of them failed."""
    client = hand_over._objects._client
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
    """Amazon refuses parts with a checksum of which it was not told, and an end without them."""
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


async def test_what_cannot_be_removed_is_logged_beside_the_failure(
    hand_over: HandOver, stream: StreamId, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets what went wrong first; the operator learns what stays."""

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


async def test_deletion_gives_way_to_a_writer_that_does_not_pause(
    hand_over: HandOver, queue: ChunkQueue, open_queue: OpenQueue, stream: StreamId
) -> None:
    """Whoever still writes would refer to what is being removed: all of it stays, to try again."""
    reference = await hand_over.upload(stream, b"film")
    deleting = await open_queue()
    assert isinstance(deleting, S3SnsQueue)
    count = itertools.count(1)

    async def write(**_: object) -> None:
        await queue.append(stream, [Entry(1, next(count), b"b")])

    client = deleting.store._client
    client.meta.events.register("before-call.s3.PutObject", write)
    with pytest.raises(BackendUnavailableError, match="try again"):
        await deleting.delete(stream)
    assert (await fetch(await hand_over.url(stream, reference))).content == b"film"
    client.meta.events.unregister("before-call.s3.PutObject", write)
    await deleting.delete(stream)
    with pytest.raises(StreamNotFoundError):
        await hand_over.url(stream, reference)


async def test_completion_that_was_done_before_is_none_to_fail_for(
    hand_over: HandOver, stream: StreamId
) -> None:
    """S3 may answer the repeat of a completion that there is no such upload any more."""
    client = hand_over._objects._client
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


async def test_outage_is_told_and_what_has_been_stored_is_removed(
    queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """After the time that retries get, and not before all parts have ended."""
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


async def test_stream_that_is_deleted_meanwhile_keeps_nothing(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Whoever deleted it could not see the object yet, and nobody would ever remove it."""

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


class Reversing:
    """A codec that anybody can see through."""

    async def encode(self, data: bytes) -> bytes:
        """Return the bytes to store."""
        return data[::-1]

    async def decode(self, data: bytes) -> bytes:
        """Return the bytes that were encoded."""
        return data[::-1]


async def test_writer_with_a_codec_is_refused_unless_that_is_known(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Somebody who has everything encrypted must not find out later what was not."""
    stream = StreamId(stream.tenant, f"{stream.name}-written")
    async with open_writer(stream, queue=queue, codec=Reversing()) as writer:
        for each in (writer, BlockingStreamWriter(writer)):
            with pytest.raises(ConfigurationError, match="past_codec"):
                await hand_over.upload(each, b"film")
        assert objects(s3, settings) == []
        await hand_over.upload(writer, b"mlif", past_codec=True)
    assert len(objects(s3, settings)) == 1


async def test_writer_that_discards_has_nothing_stored(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Its stream has ended: nobody would refer to it, while the activity needs its result."""
    stream = StreamId(stream.tenant, f"{stream.name}-written")
    async with open_writer(stream, queue=queue) as writer:
        writer.discards = True
        reference = await hand_over.upload(writer, pieces(bytes(1_000_000)), name="a")
    assert (reference.bytes, reference.name) == (1_000_000, "a")
    assert reference.sha256 == hashlib.sha256(bytes(1_000_000)).hexdigest()
    assert objects(s3, settings) == []


async def test_it_is_opened_by_configuration_alone(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As queues, writers and readers are; and names belong to the configured tenant."""
    monkeypatch.setenv("STREAMQ_BACKEND", "s3sns")
    monkeypatch.setenv("STREAMQ_S3SNS_BUCKET", settings.bucket)
    monkeypatch.setenv("STREAMQ_S3SNS_PREFIX", settings.prefix)
    async with open_hand_over() as hand_over, open_writer("films") as writer:
        reference = await hand_over.upload("films", b"film")
        assert writer.stream.tenant == load_settings().tenant
        assert (await fetch(await hand_over.url(writer.stream, reference))).content == b"film"
        with pytest.raises(ConfigurationError, match="1024"):
            await hand_over.upload("", b"film")


async def test_other_backends_are_refused() -> None:
    """They have nowhere to put an object."""
    queue = await MemoryDriver.open(QueueOptions(ttl=timedelta(days=1)), MemorySettings())
    async with queue:
        with pytest.raises(ConfigurationError, match="STREAMQ_BACKEND=s3sns"):
            await open_hand_over(queue=queue)


async def test_connections_that_break_cost_neither_bytes_nor_a_new_beginning(
    aws: Ministack, settings: S3SnsSettings, stream: StreamId
) -> None:
    """A large object takes long enough for that to happen on the way, in both directions."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most that a process had")
def test_memory_does_not_grow_with_the_object(tmp_path: Path, settings: S3SnsSettings) -> None:
    """What is handed over is what does not fit: a worker has other things to keep in memory."""
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
