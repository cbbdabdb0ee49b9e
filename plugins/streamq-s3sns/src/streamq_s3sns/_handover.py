"""Handing over what is too large for a stream: an object beside it, and a reference in it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
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
from streamq.driver import BackendUnavailableError, ChunkQueue
from streamq_aws import AwsClients, Calls

from ._bucket import Bucket
from ._keys import new_object_id
from ._lookup import Lookup, ObjectNotFoundError
from ._objects import Objects
from ._queue import S3SnsQueue
from ._reference import (
    OCTETS,
    ObjectReference,
    check_media_type,
    check_name,
    disposition,
    shown_type,
)
from ._segment import BACKEND
from ._store import not_found
from ._upload import PARTS_AT_ONCE, Sent, Source, Upload, measure

LONGEST_LIFETIME = timedelta(days=7)
"""S3 signs nothing for longer."""

_SECOND = timedelta(seconds=1)
_CLOSING_SECONDS = 10.0


class HandOver:
    """Objects beside streams; get one from :func:`open_hand_over`.

    A producer uploads an object and sends the reference as a chunk, so that order, retry and
    replay are those of the stream. A reader, or whoever has seen to it that somebody may read the
    stream, makes a URL of the reference, or downloads.

    An object belongs to one stream and is removed with it: when that is deleted, when a sweep finds
    it expired, by the lifecycle rule. A reference leads to no other stream's objects.

    **No codec sees an object.** It lies in the bucket as it was given, under whatever encryption
    the bucket itself has. A stream whose writer has a codec is therefore refused, unless
    ``past_codec`` says that this is known: encrypt the source first.

    Safe to use from many tasks of one event loop.
    """

    def __init__(self, queue: S3SnsQueue, settings: Settings, *, owns_queue: bool) -> None:
        self._queue = queue
        self._settings = settings
        self._owns_queue = owns_queue
        self._clients = AwsClients(queue.settings, backend=BACKEND)
        self._calls = Calls(BACKEND)
        self._uploads: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Open a client of our own, which signs in the way whose URLs have an end everywhere."""
        settings = self._queue.settings
        # Parts that are under way together share the line.
        seconds = settings.operation_timeout_seconds
        client = await self._clients.client(
            "s3", poll_seconds=seconds * (PARTS_AT_ONCE - 1), signature="s3v4"
        )
        patience = settings.connect_timeout_seconds + seconds * PARTS_AT_ONCE
        self._objects = Objects(Bucket(client, settings, patience_seconds=patience))
        self._lookup = Lookup(self._queue.store, self._objects, self._settings.retry_seconds)

    async def upload(
        self,
        stream: StreamWriter[Any] | BlockingStreamWriter[Any] | StreamId | str,
        source: Source,
        *,
        media_type: str = OCTETS,
        name: str | None = None,
        past_codec: bool = False,
    ) -> ObjectReference:
        """Store an object beside a stream; send what this returns as a chunk.

        It takes some 100 MB of memory, whatever the size. An attempt that is repeated uploads
        again, under another id, and what the one before has uploaded goes with the stream. Where
        the writer discards, since the stream has ended already, the source is read and nothing is
        stored. An upload that fails or is cancelled leaves nothing; parts that a killed process
        leaves are removed by the lifecycle rule that ``streamq doctor --create`` makes.

        Args:
            stream: The writer that is going to send the reference, or the stream's name.
            source: Bytes, a path, or an asynchronous iterable of bytes; up to 10,000 parts of
                8 MiB.
            media_type: What it is, such as ``video/mp4``, for whoever fetches it.
            name: What to call a file of it; by default that of the path, or none.
            past_codec: Store it as it is, though the writer's chunks pass through a codec.

        Raises:
            StreamNotFoundError: There is no such stream, or no longer at the end of the upload.
            ConfigurationError: An argument cannot be used, or the writer has a codec.
            ChunkTooLargeError: The source has more than that.
            SerializationError: It gives something else than bytes.
            OSError: It is a file that cannot be read.
            AccessDeniedError: We may not write to the bucket.
            BackendUnavailableError: S3 does not answer, for ``STREAMQ_RETRY_SECONDS``.
        """
        discards = False
        if isinstance(stream, StreamWriter | BlockingStreamWriter):
            discards = stream.discards
            if stream.has_codec and not past_codec:
                raise ConfigurationError(
                    f"what is sent into stream {stream.stream} passes through a codec, and an "
                    "object does not: encrypt it yourself and pass past_codec=True, or send it as "
                    "chunks",
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
        with self._calls.one(identity):
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
        """Return a URL by which anybody can fetch an object, for a short time.

        Whoever has it needs no other permission: give it only to somebody who may read the stream,
        and write it to no log. It is valid no longer than the stream has to live by now, seven
        days, or the credentials that sign it; and not once the object has been removed. A
        download that has begun goes on.

        Browsers store what it leads to and never show it as a page of its own, whatever media
        type the producer has given: from the bucket's host, scripts in it could reach everything
        else that the host serves. What could have scripts (HTML, SVG, XML) is therefore told to
        be bytes. Pictures, sounds and films of a page are shown as usual.

        Args:
            stream: Which stream.
            reference: What its producer has sent, or the ``id`` in it.
            lifetime: How long it shall be valid.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
            ObjectNotFoundError: It has no such object, or one of another size.
            ConfigurationError: The lifetime is less than a second.
            BackendUnavailableError: S3 does not answer, for ``STREAMQ_RETRY_SECONDS``.
        """
        identity = self._identity(stream)
        if lifetime < _SECOND:
            raise ConfigurationError(f"a lifetime of {lifetime} is less than a second")
        with self._calls.one(identity):
            there = await self._lookup.find(identity, reference)
            seconds = min(lifetime, there.left, LONGEST_LIFETIME) // _SECOND
            if seconds < 1:
                raise not_found(identity)
            return await self._objects.sign(
                there.key,
                seconds=seconds,
                media_type=shown_type(there.found.media_type),
                disposition=disposition(there.found.name),
            )

    async def download(
        self, stream: StreamId | str, reference: ObjectReference
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes of an object, and see at the end that they were uploaded so.

        Believe nothing before the iteration has ended. What breaks off is resumed where it was.

        Args:
            stream: Which stream.
            reference: What its producer has sent.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
            ObjectNotFoundError: It has no such object, or one of another size.
            CorruptRecordError: The bytes are not those of which the reference has the digest.
            BackendUnavailableError: S3 does not answer, for ``STREAMQ_RETRY_SECONDS``.
        """
        identity = self._identity(stream)
        with self._calls.one(identity):
            key = (await self._lookup.find(identity, reference)).key
        retry = self._lookup.retry(identity)
        digest = hashlib.sha256()
        at = 0
        while at < reference.bytes:
            with self._calls.one(identity):
                block, blocks = await retry.run(partial(self._resume, key, at))
            async with contextlib.aclosing(blocks):
                while block:
                    at += len(block)
                    digest.update(block)
                    yield block
                    try:
                        with self._calls.one(identity):
                            block = await anext(blocks, b"")
                    except BackendUnavailableError:
                        break
        if digest.hexdigest() != reference.sha256:
            raise CorruptRecordError(
                f"object {reference.id} of stream {identity} is not what was uploaded: its bytes "
                "have another digest than the reference; have it uploaded again",
                backend=BACKEND,
                stream=str(identity),
            )

    async def aclose(self) -> None:
        """End every call, and close the queue if it was opened here. Idempotent.

        What is being uploaded is removed first, as far as that takes no longer than ten seconds.
        """
        self._calls.close()
        try:
            if self._uploads:
                await asyncio.wait(self._uploads, timeout=_CLOSING_SECONDS)
        finally:
            try:
                await self._clients.aclose()
            finally:
                if self._owns_queue:
                    await self._queue.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _upload(
        self, stream: StreamId, source: Source, media_type: str, name: str
    ) -> ObjectReference:
        begin = (await self._lookup.living(stream)).begin
        identity = new_object_id(begin)
        key, retry = self._lookup.key(stream, identity), self._lookup.retry(stream)
        upload = Upload(self._objects, retry, key, media_type, name)
        sent = await upload.run(source)
        try:
            # Whoever has deleted the stream meanwhile has not seen this object.
            if (await self._lookup.living(stream)).begin != begin:
                raise not_found(stream)
        except BaseException:
            await upload.discard()
            raise
        return _reference(identity, sent, media_type, name)

    async def _resume(self, key: str, at: int) -> tuple[bytes, AsyncGenerator[bytes, None]]:
        """Begin to read an object at a byte; return the first block and what gives the others."""
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


def _reference(identity: str, sent: Sent, media_type: str, name: str) -> ObjectReference:
    return ObjectReference(identity, sent.bytes, media_type, name, sent.sha256)


def open_hand_over(
    *, queue: ChunkQueue | None = None, settings: Settings | None = None
) -> Opening[HandOver]:
    """Open what hands large objects over, beside the streams of this backend.

    Args:
        queue: An open queue of this backend to use; it stays open. By default the configured one is
            opened, and closed with what this returns.
        settings: What is in effect; by default what is configured.

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
                    f"backend {used.backend!r} hands no objects over; set STREAMQ_BACKEND="
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
                await used.aclose()
            raise
        return opened

    return Opening(opener)
