"""Hands over what is too large for a stream: an object next to it, and a reference in it.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
from collections.abc import AsyncGenerator
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from streamq import (
    BlockingStreamWriter,
    ConfigurationError,
    CorruptRecordError,
    Opening,
    Settings,
    StreamId,
    StreamWriter,
    load_settings,
    open_queue,
)
from streamq.driver import (
    BackendUnavailableError,
    ChunkQueue,
    Closing,
    Guard,
    close_all,
    not_found_error,
)
from streamq_aws import AwsClients
from streamq_s3sns._errors import BACKEND, ObjectNotFoundError
from streamq_s3sns._naming import new_object_id
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns.requests._bucket import Bucket
from streamq_s3sns.requests._objects import OCTETS, ObjectStore

from ._browser import content_disposition, safe_media_type
from ._lookup import ObjectLookup
from ._reference import ObjectReference, check_media_type, check_name
from ._source import SourceDigest, UploadSource, measure
from ._upload import PARTS_AT_ONCE, Upload

LONGEST_LIFETIME = timedelta(days=7)
"""Longest time for which S3 signs a URL."""

_SECOND = timedelta(seconds=1)
_CLOSING_SECONDS = 10.0


class HandOver:
    """Objects next to streams; get one from :func:`open_hand_over`.

    A producer uploads an object and sends the reference as a chunk, so that order, retry and
    replay are those of the stream. A reader, or a server that has checked that its client may read
    the stream, makes a URL from the reference, or downloads the object.

    An object belongs to one stream and is removed with it: when the stream is deleted, when a sweep
    finds it expired, or by the lifecycle rule. A reference does not open objects of other streams.

    **Objects do not pass through a codec.** They are stored in the bucket as they are given, under
    the encryption of the bucket itself. A stream whose writer has a codec is therefore refused,
    unless ``past_codec`` states that this is intended: encrypt the source first.

    Safe to use from many tasks of one event loop.
    """

    def __init__(self, queue: S3SnsQueue, settings: Settings, *, owns_queue: bool) -> None:
        self._queue = queue
        self._settings = settings
        self._clients = AwsClients(queue.settings, backend=BACKEND)
        self._guard = Guard(BACKEND, seconds=math.inf)  # each request has a deadline
        self._uploads: set[asyncio.Future[None]] = set()
        self._closing = Closing(
            self._wait_for_uploads, self._clients.aclose, *([queue.aclose] if owns_queue else [])
        )

    async def start(self) -> None:
        """Open a client with the signature whose URLs expire in every region."""
        settings = self._queue.settings
        # Parts that are uploaded at the same time share the connection to S3.
        seconds = settings.operation_timeout_seconds
        client = await self._clients.client(
            "s3", poll_seconds=seconds * (PARTS_AT_ONCE - 1), signature="s3v4"
        )
        patience = settings.connect_timeout_seconds + seconds * PARTS_AT_ONCE
        self._objects = ObjectStore(Bucket(client, settings, patience_seconds=patience))
        self._lookup = ObjectLookup(self._queue.store, self._objects, self._settings.retry_seconds)

    async def upload(
        self,
        stream: StreamWriter[Any] | BlockingStreamWriter[Any] | StreamId | str,
        source: UploadSource,
        *,
        media_type: str = OCTETS,
        name: str | None = None,
        past_codec: bool = False,
    ) -> ObjectReference:
        """Store an object next to a stream; send the returned reference as a chunk.

        An upload takes about 100 MB of memory, whatever the size of the object. A repeated attempt
        uploads again, under another id; the object of the attempt before is removed with the
        stream. If the writer discards, because the stream has ended already, the source is read and
        nothing is stored. An upload that fails or is cancelled leaves nothing. Parts that a killed
        process leaves are removed by the lifecycle rule that ``streamq doctor --create`` makes.

        Args:
            stream: The writer that is going to send the reference, or the stream's name.
            source: Bytes, a path, or an asynchronous iterable of bytes; up to 10,000 parts of
                8 MiB.
            media_type: Type of the object, such as ``video/mp4``.
            name: Name for a file with the object; by default that of the path, or none.
            past_codec: Store the object as it is, though the writer's chunks pass through a codec.

        Raises:
            StreamNotFoundError: The stream does not exist, or no longer at the end of the upload.
            ConfigurationError: An argument cannot be used, or the writer has a codec.
            ChunkTooLargeError: The source has more bytes than that.
            SerializationError: The source gives something else than bytes.
            OSError: The source is a file that cannot be read.
            AccessDeniedError: The credentials may not write to the bucket.
            BackendUnavailableError: S3 does not answer, for ``STREAMQ_RETRY_SECONDS``.
        """
        discards = False
        if isinstance(stream, StreamWriter | BlockingStreamWriter):
            discards = stream.discards
            if stream.has_codec and not past_codec:
                raise ConfigurationError(
                    f"chunks of stream {stream.stream} pass through a codec, and an object does "
                    "not: encrypt it yourself and pass past_codec=True, or send it as chunks",
                    backend=BACKEND,
                    stream=str(stream.stream),
                )
            stream = stream.stream
        identity = self._identity(stream)
        if name is None:
            name = os.path.basename(source) if isinstance(source, os.PathLike) else ""
        try:
            check_media_type(media_type)
            check_name(name)
        except ValueError as exc:
            raise ConfigurationError(f"this cannot be handed over: {exc}") from None
        async with self._guard(identity):
            done = asyncio.get_running_loop().create_future()
            self._uploads.add(done)
            try:
                if discards:
                    return _reference(new_object_id(0), await measure(source), media_type, name)
                return await self._upload(identity, source, media_type, name)
            finally:
                self._uploads.discard(done)
                done.set_result(None)

    async def url(
        self,
        stream: StreamId | str,
        reference: ObjectReference | str,
        *,
        lifetime: timedelta = timedelta(minutes=5),
    ) -> str:
        """Return a URL that opens an object to everyone, for a short time.

        The URL needs no other permission: give it only to readers that may read the stream, and do
        not log it. It expires with the stream as its expiry is known now, after seven days, or with
        the credentials that sign it, whichever comes first, and stops working when the object is
        removed. A download that has begun continues.

        Browsers store the object and never show it as a page of its own, whatever media type the
        producer has given: on the bucket's host, scripts in it could reach everything else that the
        host serves. Types that can contain scripts (HTML, SVG, XML) are therefore sent as plain
        bytes. Images, sounds and films that a page embeds are shown as usual.

        Args:
            stream: The stream.
            reference: The reference that its producer has sent, or the ``id`` in it.
            lifetime: How long the URL is valid.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
            ObjectNotFoundError: It has no such object, or one of another size.
            ConfigurationError: The lifetime is less than a second.
            BackendUnavailableError: S3 does not answer, for ``STREAMQ_RETRY_SECONDS``.
        """
        identity = self._identity(stream)
        if lifetime < _SECOND:
            raise ConfigurationError(f"a lifetime of {lifetime} is less than a second")
        async with self._guard(identity):
            located = await self._lookup.find(identity, reference)
            seconds = min(lifetime, located.left, LONGEST_LIFETIME) // _SECOND
            if seconds < 1:
                raise not_found_error(BACKEND, identity)
            return await self._objects.sign(
                located.key,
                seconds=seconds,
                media_type=safe_media_type(located.headers.media_type),
                disposition=content_disposition(located.headers.name),
            )

    async def download(
        self, stream: StreamId | str, reference: ObjectReference
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes of an object; check at the end that they are the uploaded ones.

        Do not rely on the bytes before the iteration has ended. A download that is interrupted
        continues at the byte where it stopped.

        Args:
            stream: The stream.
            reference: The reference that its producer has sent.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
            ObjectNotFoundError: It has no such object, or one of another size.
            CorruptRecordError: The bytes do not match the digest in the reference.
            BackendUnavailableError: S3 does not answer, for ``STREAMQ_RETRY_SECONDS``.
        """
        identity = self._identity(stream)
        async with self._guard(identity):
            key = (await self._lookup.find(identity, reference)).key
        retry = self._lookup.retry(identity)
        digest = hashlib.sha256()
        at = 0
        while at < reference.bytes:
            async with self._guard(identity):
                block, blocks = await retry.run(partial(self._resume, key, at))
            async with contextlib.aclosing(blocks):
                while block:
                    at += len(block)
                    digest.update(block)
                    yield block
                    try:
                        async with self._guard(identity):
                            block = await anext(blocks, b"")
                    except BackendUnavailableError:
                        break
        if digest.hexdigest() != reference.sha256:
            raise CorruptRecordError(
                f"object {reference.id} of stream {identity} is not what was uploaded: its bytes "
                "do not match the digest in the reference; have it uploaded again",
                backend=BACKEND,
                stream=str(identity),
            )

    async def aclose(self) -> None:
        """End every call, and close the queue if it was opened here. Idempotent.

        Uploads under way are removed first, if that takes no longer than ten seconds.
        """
        self._guard.close()
        await self._closing.run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _wait_for_uploads(self) -> None:
        if self._uploads:
            await asyncio.wait(self._uploads, timeout=_CLOSING_SECONDS)

    async def _upload(
        self, stream: StreamId, source: UploadSource, media_type: str, name: str
    ) -> ObjectReference:
        begin = (await self._lookup.existing(stream)).begin
        identity = new_object_id(begin)
        key, retry = self._lookup.key(stream, identity), self._lookup.retry(stream)
        upload = Upload(self._objects, retry, key, media_type, name)
        sent = await upload.run(source)
        try:
            # A deletion of the stream in the meantime has not found this object.
            if (await self._lookup.existing(stream)).begin != begin:
                raise not_found_error(BACKEND, stream)
        except BaseException:
            await upload.discard()
            raise
        return _reference(identity, sent, media_type, name)

    async def _resume(self, key: str, at: int) -> tuple[bytes, AsyncGenerator[bytes, None]]:
        """Begin to read an object at a byte; return the first block and an iterator for more."""
        blocks = self._objects.read(key, at)
        try:
            block = await anext(blocks, b"")
            if not block:
                raise ObjectNotFoundError(
                    f"an object was removed while it was read, after {at} bytes", backend=BACKEND
                )
        except BaseException:
            await blocks.aclose()
            raise
        return block, blocks

    def _identity(self, stream: StreamId | str) -> StreamId:
        if isinstance(stream, StreamId):
            return stream
        try:
            return StreamId(self._settings.tenant, stream)
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None


def _reference(identity: str, sent: SourceDigest, media_type: str, name: str) -> ObjectReference:
    return ObjectReference(identity, sent.bytes, media_type, name, sent.sha256)


def open_hand_over(
    *, queue: ChunkQueue | None = None, settings: Settings | None = None
) -> Opening[HandOver]:
    """Open a :class:`HandOver` for the streams of this backend.

    Args:
        queue: An open queue of this backend to use; it stays open. By default the configured one is
            opened, and closed with the hand-over.
        settings: The settings in effect; by default the configured ones.

    Raises:
        ConfigurationError: As for :func:`streamq.open_queue`, or the backend is another one.
        StreamqError: The bucket cannot be reached.
    """

    async def opener() -> HandOver:
        chosen = settings or load_settings()
        used = queue if queue is not None else await open_queue(chosen)
        try:
            if not isinstance(used, S3SnsQueue):
                raise ConfigurationError(
                    f"backend {used.backend!r} cannot hand objects over; set STREAMQ_BACKEND="
                    f"{BACKEND}, or pass a queue of it",
                    backend=used.backend,
                )
            opened = HandOver(used, chosen, owns_queue=queue is None)
            try:
                await opened.start()
            except BaseException:
                await opened.aclose()
                raise
        except BaseException:
            if queue is None:
                await close_all(used.aclose)
            raise
        return opened

    return Opening(opener)
