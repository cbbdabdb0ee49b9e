"""The requests to S3 that are about segments: one method for each, nothing retried."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from streamq.driver import (
    BackendUnavailableError,
    ConfigurationError,
    StreamId,
    StreamNotFoundError,
    StreamqError,
)

from ._bucket import Bucket
from ._keys import ANNOUNCEMENT, FENCE, KeySpace, segment_name, segment_number
from ._segment import (
    BACKEND,
    METADATA,
    NAME_METADATA,
    PACK_METADATA,
    Segment,
    Tail,
    decode_name,
    decode_segment,
    decode_tail,
    encode_name,
    encode_pack,
)

_BEFORE_SEGMENTS = "."  # sorts behind the announcement and before the digits
_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Described:
    """The newest segment of a stream, without its body."""

    stream: StreamId
    directory: str
    tail: Tail


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A segment that is there, and whose body was not fetched because of its size."""

    bytes: int


class Store:
    """The segments of all streams below one prefix of a bucket.

    Every method raises streamq's errors only.

    Args:
        bucket: Where the segments are.
        keys: How they are called.
    """

    def __init__(self, bucket: Bucket, keys: KeySpace) -> None:
        self.bucket = bucket
        self.keys = keys
        self.clock = bucket.clock
        self._is_fence_proved = False
        self._proving = asyncio.Lock()

    def left(self, tail: Tail) -> timedelta:
        """Return how long a stream that stands there lives, by the clock of the server."""
        return timedelta(milliseconds=tail.expires - self.clock.now_ms())

    async def prove(self) -> None:
        """Ask for a listing, to see that there is a bucket and that it may be read."""
        await self.bucket.list(self.keys.root, count=1)

    async def keeps_versions(self) -> bool:
        """Whether the bucket keeps what is deleted, or does not tell."""
        try:
            answer = await self.bucket.call("get_bucket_versioning")
        except BackendUnavailableError:
            raise
        except Exception:  # noqa: BLE001 - not permitted, or not known to this server
            return True
        return bool(answer.get("Status"))

    async def newest(self, directory: str) -> Tail | None:
        """Return where a stream stands, expired or not; ``None`` if there is none."""
        for _ in range(_LOOKS):
            number = await self.newest_number(directory)
            if number is None:
                return None
            found = await self.head(directory, number)
            if found is not None:
                return found
        raise self._restless(directory)

    async def newest_segment(self, directory: str) -> Segment | None:
        """Return the newest segment of a stream, expired or not; ``None`` if there is none."""
        for _ in range(_LOOKS):
            number = await self.newest_number(directory)
            if number is None:
                return None
            found = await self.get(directory, number)
            if found is not None:
                return found
        raise self._restless(directory)

    async def newest_number(self, directory: str) -> int | None:
        """Return the number of the newest segment; ``None`` if there is none."""
        answer = await self.bucket.list(directory, directory + _BEFORE_SEGMENTS, count=1)
        found = answer.get("Contents") or ()
        if not found:
            return None
        number = segment_number(directory, found[0]["Key"])
        if number is not None:
            return number
        # Somebody else's, whatever its name is: a stream is not gone because of it.
        async with contextlib.aclosing(self.numbers(directory)) as numbers:
            return await anext(numbers, None)

    async def oldest_number(self, directory: str, at_least: int) -> int | None:
        """Return the smallest number that is stored from one on; ``None`` if there is none."""
        smallest = None
        async for number in self.numbers(directory):
            if number >= at_least:
                smallest = number
        return smallest

    async def head(self, directory: str, number: int) -> Tail | None:
        """Return where a stream stood after a segment; ``None`` if that is not there."""
        key = directory + segment_name(number)
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        return answer and decode_tail(
            number, answer["Metadata"].get(METADATA), self.bucket.where(key)
        )

    async def get(self, directory: str, number: int) -> Segment | None:
        """Return a segment; ``None`` if that is not there."""
        found = await self.get_small(directory, number, at_most=None)
        return None if isinstance(found, TooLarge) else found

    async def get_small(
        self, directory: str, number: int, *, at_most: int | None
    ) -> Segment | TooLarge | None:
        """Return a segment, whose body is only fetched if it is no larger than so many bytes."""
        key = directory + segment_name(number)
        async with self.bucket.opened(key) as answer:
            if answer is None:
                return None
            if at_most is not None and answer["ContentLength"] > at_most:
                return TooLarge(answer["ContentLength"])
            data = await self.bucket.read(answer["Body"], key)
        metadata, where = answer["Metadata"], self.bucket.where(key)
        tail = decode_tail(number, metadata.get(METADATA), where)
        return decode_segment(tail, data, metadata.get(PACK_METADATA), where)

    async def put(self, directory: str, tail: Tail, body: bytes, stream: StreamId) -> str | None:
        """Store a segment if its number can be won; return the tag of what is stored.

        Returns:
            It, or nothing but an empty text if the server gives none; ``None`` if somebody else has
            the number.

        Raises:
            ConfigurationError: The server lets a number be won twice.
        """
        if not self._is_fence_proved:
            await self._prove_fence(directory)
        return await self._put_new(self._segment(directory, tail, body, stream))

    async def pack(
        self,
        directory: str,
        head: Tail,
        body: bytes,
        stream: StreamId,
        *,
        tag: str,
        through: int,
        own: int,
    ) -> bool:
        """Write a segment anew, with the entries of those that follow it behind its own.

        Args:
            directory: Of the stream.
            head: What the segment says of where the stream stood; it stays as it was.
            body: All entries.
            stream: The stream.
            tag: Of the segment as it has to be; otherwise nothing is stored.
            through: Number of the last segment whose entries are in the body.
            own: How many of the entries were there before.

        Returns:
            Whether it was stored.
        """
        segment = self._segment(directory, head, body, stream)
        segment["Metadata"][PACK_METADATA] = encode_pack(through, own)
        answer = await self.bucket.call(
            "put_object", missing_is_none=True, lost_race_is_none=True, IfMatch=tag, **segment
        )
        return answer is not None

    def _segment(self, directory: str, tail: Tail, body: bytes, stream: StreamId) -> dict[str, Any]:
        metadata = {METADATA: tail.encode()}
        if self.keys.stream(directory) is None:
            metadata[NAME_METADATA] = encode_name(stream.name)
        return {
            "Key": directory + segment_name(tail.number),
            "Body": body,
            "ContentType": "application/octet-stream",
            "Metadata": metadata,
        }

    async def _put_new(self, segment: Mapping[str, Any]) -> str | None:
        answer = await self.bucket.call(
            "put_object", lost_race_is_none=True, IfNoneMatch="*", **segment
        )
        return None if answer is None else str(answer.get("ETag", ""))

    async def _prove_fence(self, directory: str) -> None:
        """See that the server refuses what is there, once for each queue that writes.

        With a key of its own: a segment whose stream is deleted meanwhile would come back.
        """
        key = f"{directory}{FENCE}{secrets.token_hex(16)}"
        async with self._proving:
            if self._is_fence_proved:
                return
            is_stored = is_refused = False
            for _ in range(_LOOKS):
                is_taken = await self._put_new({"Key": key, "Body": b""}) is not None
                if is_stored:
                    is_refused = not is_taken
                    break
                is_stored = is_taken  # or S3 was busy with the key, and nobody has won it
            with contextlib.suppress(StreamqError):  # it is empty, and the lifecycle rule's at last
                await self.bucket.call("delete_object", Key=key)
            self._is_fence_proved = is_refused
            if is_refused:
                return
        raise ConfigurationError(
            f"the server of {self.bucket.where(key)} does not honour `If-None-Match: *`: two "
            "attempts could overwrite each other's segments; use Amazon S3, or a server or version "
            "that supports conditional writes",
            backend=BACKEND,
        )

    async def announce(self, directory: str, epoch: int) -> None:
        """Let whoever is busy with a stream know that a newer epoch wants it."""
        await self.bucket.call(
            "put_object", Key=directory + ANNOUNCEMENT, Body=b"", Metadata={METADATA: str(epoch)}
        )

    async def announced(self, directory: str) -> int:
        """Return the epoch that wants a stream; 0 if there is none."""
        key = directory + ANNOUNCEMENT
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        text = "" if answer is None else answer["Metadata"].get(METADATA, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0

    async def withdraw(self, directory: str) -> None:
        """Take the announcement back."""
        await self.bucket.call("delete_object", Key=directory + ANNOUNCEMENT)

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
        """Iterate over streams in pages: the directory of each, and the number of its newest.

        One request lists a thousand keys, of one stream or of many. The rest of a stream that fills
        more than the page is leapt over.
        """
        after, last = "", ""
        while True:
            answer = await self.bucket.list(prefix, after)
            found = answer.get("Contents") or ()
            page: list[tuple[str, int]] = []
            for each in found:
                directory = _split(each["Key"])
                number = segment_number(directory, each["Key"])
                if number is not None and directory != last and self.keys.is_directory(directory):
                    last = directory
                    page.append((directory, number))
            yield page
            if not answer.get("IsTruncated") or not found:
                return
            after = found[-1]["Key"]
            if _split(after) == last:
                after = f"{last}:"  # sorts behind all digits

    async def describe(self, directory: str, number: int) -> Described | None:
        """Return a stream by a segment of it, with its full name; ``None`` if that has gone."""
        key = directory + segment_name(number)
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        if answer is None:
            return None
        tail = decode_tail(number, answer["Metadata"].get(METADATA), self.bucket.where(key))
        stream = self.keys.stream(directory)
        if stream is None:
            name = decode_name(answer["Metadata"].get(NAME_METADATA, ""))
            tenant = self.keys.tenant_of(directory)
            stream = StreamId(tenant, name) if name else None
        return Described(stream, directory, tail) if stream is not None else None

    def _restless(self, directory: str) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"{self.bucket.where(directory)} changes as fast as it can be looked at: its segments "
            "are being deleted; try again",
            backend=BACKEND,
        )


def _split(key: str) -> str:
    return key.rpartition("/")[0] + "/"


def not_found(stream: StreamId) -> StreamNotFoundError:
    """Return the error for a stream that is not there."""
    return StreamNotFoundError(
        f"there is no stream {stream} (never written, deleted, or expired)",
        backend=BACKEND,
        stream=str(stream),
    )
