"""Makes the requests about segments, and about the announcements next to them.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from streamq.driver import BackendError, BackendUnavailableError, StreamId, skip_foreign
from streamq_s3sns._errors import BACKEND
from streamq_s3sns._naming import ANNOUNCEMENT, KeySpace, segment_name, segment_number
from streamq_s3sns._segment import (
    METADATA,
    NAME_METADATA,
    PACK_METADATA,
    Checkpoint,
    Segment,
    decode_checkpoint,
    decode_segment,
    encode_pack,
)

from ._bucket import Bucket
from ._fence_check import FenceCheck

_BEFORE_SEGMENTS = "."  # sorts after the announcement and before the digits
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class ListedStream:
    """A stream as a listing shows it: with the checkpoint of its newest segment."""

    stream: StreamId
    directory: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class OversizedSegment:
    """A segment that exists, and whose body was not fetched because of its size."""

    bytes: int


class SegmentStore:
    """The segments of all streams below one prefix of a bucket.

    Every method raises streamq's errors only.

    Args:
        bucket: The bucket with the segments.
        keys: Names of streams and segments in the bucket.
    """

    def __init__(self, bucket: Bucket, keys: KeySpace) -> None:
        self.bucket = bucket
        self.keys = keys
        self.clock = bucket.clock
        self._fence = FenceCheck(bucket)

    def left(self, checkpoint: Checkpoint) -> timedelta:
        """Return the time until a stream expires, by the server's clock."""
        return timedelta(milliseconds=checkpoint.expires - self.clock.now_ms())

    # -- the bucket ----------------------------------------------------------------------------

    async def check_access(self) -> None:
        """Request a listing, to check that the bucket exists and may be read."""
        await self.bucket.list(self.keys.root, count=1)

    async def keeps_versions(self) -> bool:
        """Whether the bucket keeps deleted objects, or does not say so."""
        try:
            answer = await self.bucket.call("get_bucket_versioning")
        except BackendUnavailableError:
            raise
        except Exception:  # noqa: BLE001 - not permitted, or unknown to this server
            return True
        return bool(answer.get("Status"))

    # -- reading -------------------------------------------------------------------------------

    async def newest(self, directory: str) -> Checkpoint | None:
        """Return the newest checkpoint of a stream, expired or not; ``None`` if there is none."""
        for _ in range(_ATTEMPTS):
            number = await self.newest_number(directory)
            if number is None:
                return None
            found = await self.checkpoint(directory, number)
            if found is not None:
                return found
        raise self._keeps_changing(directory)

    async def newest_segment(self, directory: str) -> Segment | None:
        """Return the newest segment of a stream, expired or not; ``None`` if there is none."""
        for _ in range(_ATTEMPTS):
            number = await self.newest_number(directory)
            if number is None:
                return None
            found = await self.get(directory, number)
            if found is not None:
                return found
        raise self._keeps_changing(directory)

    async def newest_number(self, directory: str) -> int | None:
        """Return the number of the newest segment; ``None`` if there is none."""
        answer = await self.bucket.list(directory, directory + _BEFORE_SEGMENTS, count=1)
        found = answer.get("Contents") or ()
        if not found:
            return None
        number = segment_number(directory, found[0]["Key"])
        if number is not None:
            return number
        # Foreign objects do not hide a stream, whatever their names are.
        async with contextlib.aclosing(self.numbers(directory)) as numbers:
            return await anext(numbers, None)

    async def oldest_number(self, directory: str, at_least: int) -> int | None:
        """Return the smallest stored number from ``at_least`` on; ``None`` if there is none."""
        smallest = None
        async for number in self.numbers(directory):
            if number >= at_least:
                smallest = number
        return smallest

    async def checkpoint(self, directory: str, number: int) -> Checkpoint | None:
        """Return the checkpoint in a segment; ``None`` if the segment does not exist."""
        key = directory + segment_name(number)
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        return answer and decode_checkpoint(
            number, answer["Metadata"].get(METADATA), self.bucket.where(key)
        )

    async def get(self, directory: str, number: int) -> Segment | None:
        """Return a segment; ``None`` if it does not exist."""
        found = await self.get_small(directory, number, at_most=None)
        return None if isinstance(found, OversizedSegment) else found

    async def get_small(
        self, directory: str, number: int, *, at_most: int | None
    ) -> Segment | OversizedSegment | None:
        """Return a segment; fetch its body only if this has at most so many bytes."""
        key = directory + segment_name(number)
        async with self.bucket.opened(key) as answer:
            if answer is None:
                return None
            if at_most is not None and answer["ContentLength"] > at_most:
                return OversizedSegment(answer["ContentLength"])
            data = await self.bucket.read(answer["Body"], key)
        metadata, where = answer["Metadata"], self.bucket.where(key)
        checkpoint = decode_checkpoint(number, metadata.get(METADATA), where)
        return decode_segment(checkpoint, data, metadata.get(PACK_METADATA), where)

    async def describe(self, directory: str, number: int) -> ListedStream | None:
        """Return a stream, with its full name, from a segment.

        ``None`` if the segment is gone. ``None`` and a line in the log if it is no segment, or its
        name is none: in a listing, it must not hide other streams.
        """
        key = directory + segment_name(number)
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        if answer is None:
            return None
        metadata, where = answer["Metadata"], self.bucket.where(key)
        try:
            checkpoint = decode_checkpoint(number, metadata.get(METADATA), where)
        except BackendError:
            skip_foreign(BACKEND, key, "it is not a segment of a stream")
            return None
        stream = self.keys.stream(directory, metadata.get(NAME_METADATA, ""))
        return ListedStream(stream, directory, checkpoint) if stream is not None else None

    # -- listing -------------------------------------------------------------------------------

    async def numbers(self, directory: str) -> AsyncGenerator[int, None]:
        """Iterate over the numbers of a stream's segments, the newest first."""
        after = directory + _BEFORE_SEGMENTS
        while True:
            answer = await self.bucket.list(directory, after)
            found = answer.get("Contents") or ()
            for each in found:
                number = segment_number(directory, each["Key"])
                if number is not None:
                    yield number
            if not answer.get("IsTruncated") or not found:
                return
            after = found[-1]["Key"]

    async def directories(self, prefix: str) -> AsyncIterator[list[tuple[str, int]]]:
        """Iterate over streams in pages: the directory and the newest number of each.

        One request lists a thousand keys, of one stream or of many. If a stream has more keys than
        its page, the rest of them is skipped.
        """
        after, last = "", ""
        while True:
            answer = await self.bucket.list(prefix, after)
            found = answer.get("Contents") or ()
            page: list[tuple[str, int]] = []
            for each in found:
                directory = _directory_of(each["Key"])
                number = segment_number(directory, each["Key"])
                if number is not None and directory != last and self.keys.is_directory(directory):
                    last = directory
                    page.append((directory, number))
            yield page
            if not answer.get("IsTruncated") or not found:
                return
            after = found[-1]["Key"]
            if _directory_of(after) == last:
                after = f"{last}:"  # sorts after all digits

    # -- writing -------------------------------------------------------------------------------

    async def put(
        self, directory: str, checkpoint: Checkpoint, body: bytes, stream: StreamId
    ) -> str | None:
        """Store a segment if its number is free; return the tag of what is stored.

        Returns:
            The tag, which is empty if the server sends none; ``None`` if the number is taken.

        Raises:
            ConfigurationError: The server would overwrite a taken number.
        """
        await self._fence.run(directory)
        segment = self._segment(directory, checkpoint, body, stream)
        answer = await self.bucket.call(
            "put_object", lost_race_is_none=True, IfNoneMatch="*", **segment
        )
        return None if answer is None else str(answer.get("ETag", ""))

    async def pack(
        self,
        directory: str,
        head: Checkpoint,
        body: bytes,
        stream: StreamId,
        *,
        tag: str,
        through: int,
        own: int,
    ) -> bool:
        """Write a segment anew, with the entries of the segments that follow behind its own.

        Args:
            directory: Directory of the stream.
            head: The segment's checkpoint, which does not change.
            body: All entries.
            stream: The stream.
            tag: Tag that the segment has to have; with any other one nothing is stored.
            through: Number of the last segment whose entries are in the body.
            own: How many of the entries are the segment's own.

        Returns:
            Whether it was stored.
        """
        segment = self._segment(directory, head, body, stream)
        segment["Metadata"][PACK_METADATA] = encode_pack(through, own)
        answer = await self.bucket.call(
            "put_object", missing_is_none=True, lost_race_is_none=True, IfMatch=tag, **segment
        )
        return answer is not None

    def _segment(
        self, directory: str, checkpoint: Checkpoint, body: bytes, stream: StreamId
    ) -> dict[str, Any]:
        metadata = {METADATA: checkpoint.encode()}
        if kept := self.keys.kept_name(stream):
            metadata[NAME_METADATA] = kept
        return {
            "Key": directory + segment_name(checkpoint.number),
            "Body": body,
            "ContentType": "application/octet-stream",
            "Metadata": metadata,
        }

    # -- announcements -------------------------------------------------------------------------

    async def announce(self, directory: str, epoch: int) -> None:
        """Store an announcement: a busy writer reads that a newer epoch takes the stream over."""
        await self.bucket.call(
            "put_object", Key=directory + ANNOUNCEMENT, Body=b"", Metadata={METADATA: str(epoch)}
        )

    async def announced(self, directory: str) -> int:
        """Return the announced epoch; 0 if there is no announcement."""
        key = directory + ANNOUNCEMENT
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        text = "" if answer is None else answer["Metadata"].get(METADATA, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0

    async def withdraw(self, directory: str) -> None:
        """Delete the announcement."""
        await self.bucket.call("delete_object", Key=directory + ANNOUNCEMENT)

    def _keeps_changing(self, directory: str) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"{self.bucket.where(directory)} changes faster than it can be read: its segments are "
            "being deleted; try again",
            backend=BACKEND,
        )


def _directory_of(key: str) -> str:
    return key.rpartition("/")[0] + "/"
