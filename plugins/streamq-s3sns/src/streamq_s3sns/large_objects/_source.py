"""Cuts the source of an object into parts, and measures sources.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import TypeAlias

from streamq import SerializationError

UploadSource: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | AsyncIterable[bytes]
"""The bytes of an object, or a path or an iterable that they are read from."""

PART_BYTES = 8 * 2**20
"""As large as a segment, for the same reason: it passes through a slow connection in time."""


@dataclass(frozen=True, slots=True)
class SourceDigest:
    """Size and digest of a source."""

    bytes: int
    sha256: str


async def measure(source: UploadSource) -> SourceDigest:
    """Read a source to its end, and store nothing.

    Raises:
        SerializationError: The source gives something else than bytes.
        OSError: The source is a file that cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    async with contextlib.aclosing(parts_of(source)) as parts:
        async for part in parts:
            size += len(part)
            await asyncio.to_thread(digest.update, part)
    return SourceDigest(size, digest.hexdigest())


async def parts_of(source: UploadSource) -> AsyncGenerator[bytes, None]:
    """Iterate over a source in parts of :data:`PART_BYTES`; the last one may be smaller.

    Raises:
        SerializationError: The source gives something else than bytes.
        OSError: The source is a file that cannot be read.
    """
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
        # Released before the source continues, which may use its buffer again.
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
