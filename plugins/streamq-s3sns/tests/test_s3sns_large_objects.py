"""Objects that are handed over next to a stream: references, URLs, downloads and rights."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from s3sns_bucket import BUCKET
from s3sns_objects import fetch, objects, pieces
from streamq import (
    BlockingStreamWriter,
    Chunk,
    ConfigurationError,
    CorruptRecordError,
    SerializationError,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, QueueOptions, StreamId, StreamNotFoundError
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import OpenQueue
from streamq_s3sns import (
    HandOver,
    ObjectNotFoundError,
    ObjectReference,
    S3SnsSettings,
    open_hand_over,
)
from streamq_s3sns._naming import ANNOUNCEMENT, LARGEST_NUMBER, OBJECT, segment_name
from streamq_s3sns.large_objects._browser import content_disposition, safe_media_type
from streamq_s3sns.large_objects._source import PART_BYTES

PAGE = b"<script>alert(document.domain)</script>"


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 5])
@pytest.mark.parametrize("kind", ["bytes", "path", "iterable"])
async def test_object_comes_back_as_it_was_given(
    hand_over: HandOver, stream: StreamId, tmp_path: Path, s3: Any, size: int, kind: str
) -> None:
    """Bytes, type and name are the same whether uploaded in one request or in parts."""
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
    """Order, retry and once-only delivery of objects are therefore those of the stream."""
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
def test_value_that_is_no_reference_is_refused(change: dict[str, object]) -> None:
    """Every producer of a stream can put any value into it."""
    good = {"id": f"{1:012}-{'a' * 32}", "bytes": 1, "media_type": "a/b", "name": "c"}
    good["sha256"] = "0" * 64
    assert dataclasses.asdict(ObjectReference.of(good)) == good
    with pytest.raises(SerializationError, match=f"{next(iter(change))}|media type"):
        ObjectReference.of(good | change)
    with pytest.raises(SerializationError, match="upload"):
        ObjectReference.of("a text")


async def test_browser_stores_an_object_that_could_be_a_page(
    hand_over: HandOver, stream: StreamId
) -> None:
    """A producer must not be able to run scripts on the bucket's host."""
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
def test_types_that_can_contain_scripts_are_sent_as_bytes(media_type: str, shown: bool) -> None:
    """A proxy may drop the header that makes a browser store an object."""
    assert safe_media_type(media_type) == (media_type if shown else "application/octet-stream")


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
def test_file_names_cannot_do_harm(name: str, said: str) -> None:
    """Producers choose them, and they end up in a header and on a disk."""
    assert content_disposition(name) == said


async def test_stream_names_with_special_characters_work(open_queue: OpenQueue) -> None:
    """Names are escaped in keys, and keys are escaped again in URLs."""
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
    """A URL bypasses every later check: it must expire with the stream at the latest."""
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
            while (await fetch(url)).status_code == 200:  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.1)
        assert "expired" in (await fetch(url)).text


async def test_url_cannot_be_changed_into_another(hand_over: HandOver, stream: StreamId) -> None:
    """The signature covers one object, its headers, and reading only."""
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


async def test_forged_references_are_not_signed(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId
) -> None:
    """A producer of one stream makes the reference, and a reader's rights sign it."""
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


async def test_object_that_was_replaced_is_detected(
    hand_over: HandOver, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Others who may write to the bucket can replace objects: readers have to notice."""
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


async def test_stream_that_does_not_exist_has_no_objects(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId
) -> None:
    """An upload to a missing, deleted or expired stream would never be removed."""
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
    # A new stream of that name is separate from the old one, which is still stored.
    await queue.append(stream, [Entry(1, 0, b"a")])
    with pytest.raises(ObjectNotFoundError, match="earlier"):
        await hand_over.url(stream, reference)
    reference = await hand_over.upload(stream, b"film")
    await queue.delete(stream)
    await check(stream)


class Reversing:
    """A codec without a secret."""

    async def encode(self, data: bytes) -> bytes:
        """Return the bytes to store."""
        return data[::-1]

    async def decode(self, data: bytes) -> bytes:
        """Return the bytes that were encoded."""
        return data[::-1]


async def test_writer_with_a_codec_is_refused_unless_past_codec_is_set(
    hand_over: HandOver, queue: ChunkQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """A user whose chunks are encrypted must not find out later that objects are not."""
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
    """Its stream has ended, so no chunk can refer to the object, but the activity goes on."""
    stream = StreamId(stream.tenant, f"{stream.name}-written")
    async with open_writer(stream, queue=queue) as writer:
        writer.discards = True
        reference = await hand_over.upload(writer, pieces(bytes(1_000_000)), name="a")
    assert (reference.bytes, reference.name) == (1_000_000, "a")
    assert reference.sha256 == hashlib.sha256(bytes(1_000_000)).hexdigest()
    assert objects(s3, settings) == []


async def test_hand_over_is_opened_by_configuration_alone(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works like queues, writers and readers; names belong to the configured tenant."""
    monkeypatch.setenv("STREAMQ_BACKEND", "s3sns")
    monkeypatch.setenv("STREAMQ_S3SNS_BUCKET", settings.bucket)
    monkeypatch.setenv("STREAMQ_S3SNS_PREFIX", settings.prefix)
    async with open_hand_over() as hand_over, open_writer("films") as writer:
        reference = await hand_over.upload("films", b"film")
        assert writer.stream.tenant == load_settings().tenant
        assert (await fetch(await hand_over.url(writer.stream, reference))).content == b"film"
        with pytest.raises(ConfigurationError, match="1536"):
            await hand_over.upload("", b"film")


async def test_other_backends_are_refused() -> None:
    """They have no place for an object."""
    queue = await MemoryDriver.open(QueueOptions(ttl=timedelta(days=1)), MemorySettings())
    async with queue:
        with pytest.raises(ConfigurationError, match="STREAMQ_BACKEND=s3sns"):
            await open_hand_over(queue=queue)
