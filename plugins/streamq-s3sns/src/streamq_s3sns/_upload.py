"""Uploading one object in parts: a few of them in memory, and nothing left behind by a failure."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from streamq import ChunkTooLargeError, SerializationError
from streamq.driver import RetryPolicy, StreamqError, to_the_end

from ._objects import Objects
from ._segment import BACKEND

Source: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | AsyncIterable[bytes]
"""Where the bytes of an object come from."""

PART_BYTES = 8 * 2**20
"""As large as a segment, and for its reason: it passes through a slow line before the deadline."""

PARTS_AT_ONCE = 4

_MOST_PARTS = 10_000  # that S3 takes
_FAREWELL_SECONDS = 5.0

_logger = logging.getLogger("streamq.s3sns")


@dataclass(frozen=True, slots=True)
class Sent:
    """What was uploaded."""

    bytes: int
    sha256: str


class Upload:
    """The upload of one object.

    Not aioboto3's ``upload_fileobj``: that one reads up to a hundred parts ahead, repeats none, and
    goes on in tasks of its own when it is cancelled, with nobody who removes the parts.

    Args:
        objects: Makes the requests.
        retry: How each of them is repeated.
        key: What the object is called; nobody else writes there.
        media_type: Its ``Content-Type``.
        name: What a file of it is called.
    """

    def __init__(
        self, objects: Objects, retry: RetryPolicy, key: str, media_type: str, name: str
    ) -> None:
        self._objects = objects
        self._retry = retry
        self._key = key
        self._described = (media_type, name)
        self._upload: str | None = None
        self._has_begun = False

    async def run(self, source: Source) -> Sent:
        """Store an object; what raises here, or is cancelled, leaves none and no parts.

        Raises:
            ChunkTooLargeError: The source has more bytes than ten thousand parts take.
            SerializationError: It gives something else than bytes.
            OSError: It is a file that cannot be read.
            StreamqError: S3 cannot be written to.
        """
        try:
            async with contextlib.aclosing(_parts(source)) as parts:
                return await self._send(parts)
        except BaseException:
            await self.discard()
            raise

    async def discard(self) -> None:
        """Remove what has been stored so far; a failure is logged, since one has been before."""
        if self._has_begun:
            await to_the_end(self._discard())

    async def _send(self, parts: AsyncGenerator[bytes, None]) -> Sent:
        digest = hashlib.sha256()
        first = await anext(parts, b"")
        await asyncio.to_thread(digest.update, first)
        self._has_begun = True
        if len(first) < PART_BYTES:
            await self._again(self._objects.put, self._key, first, *self._described)
            return Sent(len(first), digest.hexdigest())
        upload = await self._begin()
        sending = {self._start(1, first)}
        size, number = len(first), 1
        sent: list[dict[str, Any]] = []
        try:
            del first
            async for part in parts:
                number += 1
                size += len(part)
                if number > _MOST_PARTS:
                    raise ChunkTooLargeError(
                        f"an object of more than {_MOST_PARTS} parts of {PART_BYTES} bytes cannot "
                        "be handed over; cut it into several",
                        backend=BACKEND,
                    )
                await asyncio.to_thread(digest.update, part)
                if len(sending) == PARTS_AT_ONCE:
                    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                    for each in [each for each in sending if each.done()]:
                        sent.append(each.result())
                        sending.discard(each)
                sending.add(self._start(number, part))
            sent += await asyncio.gather(*sending)
        except BaseException:
            for each in sending:
                each.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            raise
        sent.sort(key=lambda each: each["PartNumber"])
        await self._again(self._objects.complete, self._key, upload, sent)
        return Sent(size, digest.hexdigest())

    async def _begin(self) -> str:
        begun = asyncio.create_task(self._again(self._objects.begin, self._key, *self._described))
        try:
            await asyncio.shield(begun)
        except asyncio.CancelledError:
            # Whoever stops here would never learn what there is to be aborted.
            await asyncio.wait({begun}, timeout=_FAREWELL_SECONDS)
            raise
        finally:
            begun.cancel()
            if begun.done() and not begun.cancelled() and begun.exception() is None:
                self._upload = begun.result()
        assert self._upload is not None
        return self._upload

    def _start(self, number: int, part: bytes) -> asyncio.Task[dict[str, Any]]:
        assert self._upload is not None
        call = self._again(self._objects.put_part, self._key, self._upload, number, part)
        return asyncio.create_task(call, name=f"streamq-s3sns-part-{number}")

    async def _again(self, operation: Any, *arguments: Any) -> Any:
        return await self._retry.run(partial(operation, *arguments))

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                if self._upload is not None:
                    await self._again(self._objects.abort, self._key, self._upload)
                # Of a request whose answer was lost nobody knows whether it was done.
                await self._again(self._objects.delete, [self._key])
        except (StreamqError, TimeoutError) as exc:
            _logger.warning(
                "what has been uploaded as %s stays until its stream, or the lifecycle rule, "
                "removes it: %s",
                self._key,
                exc or "S3 does not answer",
            )


async def measure(source: Source) -> Sent:
    """Read a source to its end, and store nothing; it raises as :meth:`Upload.run` does."""
    digest, size = hashlib.sha256(), 0
    async with contextlib.aclosing(_parts(source)) as parts:
        async for part in parts:
            size += len(part)
            await asyncio.to_thread(digest.update, part)
    return Sent(size, digest.hexdigest())


async def _parts(source: Source) -> AsyncGenerator[bytes, None]:
    """Iterate over a source in parts of one size, the last one excepted."""
    if isinstance(source, bytes | bytearray | memoryview):
        whole = memoryview(source).cast("B")
        for first in range(0, len(whole), PART_BYTES):
            yield bytes(whole[first : first + PART_BYTES])
    elif isinstance(source, os.PathLike):
        file = await asyncio.to_thread(open, source, "rb")
        try:
            while part := await asyncio.to_thread(file.read, PART_BYTES):
                yield part
        finally:
            file.close()
    elif isinstance(source, AsyncIterable):
        async with contextlib.aclosing(_joined(source)) as parts:
            async for part in parts:
                yield part
    else:
        raise SerializationError(
            f"an object cannot be made of a {type(source).__name__}; give bytes, a pathlib.Path or "
            "an asynchronous iterable of bytes"
        )


async def _joined(source: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    part = bytearray()
    async for piece in source:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise SerializationError(
                f"the source of an object gave a {type(piece).__name__}; it has to give bytes"
            )
        # Released before the source goes on, which may use its buffer again.
        with memoryview(piece).cast("B") as view:
            at = 0
            while at < len(view):
                room = PART_BYTES - len(part)
                part += view[at : at + room]
                at += room
                if len(part) == PART_BYTES:
                    yield bytes(part)
                    part.clear()
    if part:
        yield bytes(part)
