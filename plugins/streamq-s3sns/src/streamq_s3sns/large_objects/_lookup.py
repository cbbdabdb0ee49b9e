"""Finds the object of a reference, and the time for which it may be opened.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from streamq.driver import RetryPolicy, StreamId, not_found_error
from streamq_s3sns._errors import BACKEND, ObjectNotFoundError
from streamq_s3sns._naming import OBJECT, object_begin
from streamq_s3sns._segment import Checkpoint
from streamq_s3sns.requests._objects import ObjectHeaders, ObjectStore
from streamq_s3sns.requests._segments import SegmentStore

from ._reference import ObjectReference


@dataclass(frozen=True, slots=True)
class LocatedObject:
    """An existing object of a stream.

    Attributes:
        key: Its key in the bucket.
        headers: Its size, type and file name.
        left: Time until its stream expires.
    """

    key: str
    headers: ObjectHeaders
    left: timedelta


class ObjectLookup:
    """Finds streams and their objects.

    Args:
        store: The streams.
        objects: The objects.
        retry_seconds: How long requests are repeated while S3 does not answer.
    """

    def __init__(self, store: SegmentStore, objects: ObjectStore, retry_seconds: float) -> None:
        self._store = store
        self._objects = objects
        self._retry_seconds = retry_seconds

    def retry(self, stream: StreamId) -> RetryPolicy:
        """Return how requests about a stream are repeated."""
        return RetryPolicy(
            deadline_seconds=self._retry_seconds, backend=BACKEND, stream=str(stream)
        )

    def key(self, stream: StreamId, identity: str) -> str:
        """Return the key of an object of a stream."""
        return f"{self._store.keys.directory(stream)}{OBJECT}{identity}"

    async def existing(self, stream: StreamId) -> Checkpoint:
        """Return the newest checkpoint of a stream.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
        """
        directory = self._store.keys.directory(stream)
        newest = await self.retry(stream).run(partial(self._store.newest, directory))
        if newest is None or self._store.left(newest) <= timedelta():
            raise not_found_error(BACKEND, stream)
        return newest

    async def find(self, stream: StreamId, reference: ObjectReference | str) -> LocatedObject:
        """Return the object of a reference, or of the id in it.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
            ObjectNotFoundError: It has no such object, or one of another size.
        """
        identity = reference if isinstance(reference, str) else reference.id
        begin = object_begin(identity)
        if begin is None:
            raise _no_object(stream, identity, "that is no id; take it from the stream's own chunk")
        newest = await self.existing(stream)
        if begin != newest.begin:
            raise _no_object(stream, identity, "it belonged to another stream, or an earlier one")
        key = self.key(stream, identity)
        headers = await self.retry(stream).run(partial(self._objects.find, key))
        if headers is None:
            raise _no_object(
                stream,
                identity,
                "it was removed, by a lifecycle rule perhaps, or belongs to another stream",
            )
        if isinstance(reference, ObjectReference) and reference.bytes != headers.bytes:
            raise _no_object(
                stream,
                identity,
                f"the stored one has {headers.bytes} bytes, and the reference states "
                f"{reference.bytes}",
            )
        return LocatedObject(key, headers, self._store.left(newest))


def _no_object(stream: StreamId, identity: str, why: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(
        f"stream {stream} has no object {identity[:60]!r}: {why}",
        backend=BACKEND,
        stream=str(stream),
    )
