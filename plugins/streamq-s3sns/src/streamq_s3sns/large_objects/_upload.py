"""Uploads one object in parts: a few of them are in memory, and a failure leaves nothing behind.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from streamq import ChunkTooLargeError
from streamq.driver import RetryPolicy, StreamqError, to_the_end
from streamq_s3sns._errors import BACKEND
from streamq_s3sns.requests._objects import ObjectStore

from ._source import PART_BYTES, SourceDigest, UploadSource, parts_of

PARTS_AT_ONCE = 4

_MOST_PARTS = 10_000  # S3's limit
_CLEANUP_SECONDS = 5.0

_logger = logging.getLogger("streamq.s3sns")


class Upload:
    """The upload of one object.

    aioboto3's ``upload_fileobj`` is not used: it reads up to a hundred parts ahead, repeats none,
    and after a cancellation continues in tasks of its own without removing the parts.

    Args:
        objects: Makes the requests.
        retry: How each of them is repeated.
        key: Key of the object; no other upload has it.
        media_type: Its ``Content-Type``.
        name: Name for a file with the object.
    """

    def __init__(
        self, objects: ObjectStore, retry: RetryPolicy, key: str, media_type: str, name: str
    ) -> None:
        self._objects = objects
        self._retry = retry
        self._key = key
        self._described = (media_type, name)
        self._upload: str | None = None
        self._has_begun = False

    async def run(self, source: UploadSource) -> SourceDigest:
        """Store the object. An error or a cancellation leaves neither an object nor parts.

        Raises:
            ChunkTooLargeError: The source has more bytes than fit into ten thousand parts.
            SerializationError: The source gives something else than bytes.
            OSError: The source is a file that cannot be read.
            StreamqError: S3 cannot be written to.
        """
        try:
            async with contextlib.aclosing(parts_of(source)) as parts:
                return await self._send(parts)
        except BaseException:
            await self.discard()
            raise

    async def discard(self) -> None:
        """Remove what has been stored so far; log a failure, because the caller raises another."""
        if self._has_begun:
            await to_the_end(self._discard())

    async def _send(self, parts: AsyncGenerator[bytes, None]) -> SourceDigest:
        digest = hashlib.sha256()
        first = await anext(parts, b"")
        await asyncio.to_thread(digest.update, first)
        self._has_begun = True
        if len(first) < PART_BYTES:
            await self._request(self._objects.put, self._key, first, *self._described)
            return SourceDigest(len(first), digest.hexdigest())
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
        await self._request(self._objects.complete, self._key, upload, sent)
        return SourceDigest(size, digest.hexdigest())

    async def _begin(self) -> str:
        begun = asyncio.create_task(self._request(self._objects.begin, self._key, *self._described))
        try:
            await asyncio.shield(begun)
        except asyncio.CancelledError:
            # The answer states which upload has to be aborted.
            await to_the_end(_answered(begun))
            raise
        finally:
            begun.cancel()
            if begun.done() and not begun.cancelled() and begun.exception() is None:
                self._upload = begun.result()
        assert self._upload is not None
        return self._upload

    def _start(self, number: int, part: bytes) -> asyncio.Task[dict[str, Any]]:
        assert self._upload is not None
        call = self._request(self._objects.put_part, self._key, self._upload, number, part)
        return asyncio.create_task(call, name=f"streamq-s3sns-part-{number}")

    async def _request(self, operation: Any, *arguments: Any) -> Any:
        return await self._retry.run(partial(operation, *arguments))

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(_CLEANUP_SECONDS):
                if self._upload is not None:
                    await self._request(self._objects.abort, self._key, self._upload)
                # A request whose answer was lost may have stored the object.
                await self._request(self._objects.delete, [self._key])
        except (StreamqError, TimeoutError) as exc:
            _logger.warning(
                "the upload to %s could not be removed, and stays until its stream or the "
                "lifecycle rule removes it: %s",
                self._key,
                exc or "S3 does not answer",
            )


async def _answered(begun: asyncio.Task[str]) -> None:
    await asyncio.wait({begun}, timeout=_CLEANUP_SECONDS)
