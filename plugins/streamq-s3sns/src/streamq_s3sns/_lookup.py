"""From a stream and a reference to the object: whether it is there, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from streamq.driver import RetryPolicy, StreamId, StreamqError

from ._keys import OBJECT, object_begin
from ._objects import Found, Objects
from ._reference import ObjectReference
from ._segment import BACKEND, Tail
from ._store import Store, not_found


class ObjectNotFoundError(StreamqError):
    """The stream has no such object: it was removed, or never belonged to this stream."""

    code = "object_not_found"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """An object of a stream that is there.

    Attributes:
        key: What it is called in the bucket.
        found: What its headers say.
        left: How long its stream lives.
    """

    key: str
    found: Found
    left: timedelta


class Lookup:
    """Finds streams and their objects.

    Args:
        store: Where the streams are.
        objects: Where the objects are.
        retry_seconds: How long it is tried while S3 does not answer.
    """

    def __init__(self, store: Store, objects: Objects, retry_seconds: float) -> None:
        self._store = store
        self._objects = objects
        self._retry_seconds = retry_seconds

    def retry(self, stream: StreamId) -> RetryPolicy:
        """Return how requests about a stream are repeated."""
        return RetryPolicy(
            deadline_seconds=self._retry_seconds, backend=BACKEND, stream=str(stream)
        )

    def key(self, stream: StreamId, identity: str) -> str:
        """Return what an object of a stream is called in the bucket."""
        return f"{self._store.keys.directory(stream)}{OBJECT}{identity}"

    async def living(self, stream: StreamId) -> Tail:
        """Return where a stream stands.

        Raises:
            StreamNotFoundError: It does not exist, or has expired.
        """
        directory = self._store.keys.directory(stream)
        tail = await self.retry(stream).run(partial(self._store.newest, directory))
        if tail is None or self._store.left(tail) <= timedelta():
            raise not_found(stream)
        return tail

    async def find(self, stream: StreamId, reference: ObjectReference | str) -> Whereabouts:
        """Return where an object of a stream is.

        Raises:
            StreamNotFoundError: The stream does not exist, or has expired.
            ObjectNotFoundError: It has no such object, or one of another size.
        """
        identity = reference if isinstance(reference, str) else reference.id
        begin = object_begin(identity)
        if begin is None:
            raise _no_object(stream, identity, "that is no id; take it from the stream's own chunk")
        tail = await self.living(stream)
        if begin != tail.begin:
            raise _no_object(stream, identity, "it belonged to another stream, or an earlier one")
        key = self.key(stream, identity)
        found = await self.retry(stream).run(partial(self._objects.find, key))
        if found is None:
            raise _no_object(
                stream,
                identity,
                "it was removed, by a lifecycle rule perhaps, or belongs to another stream",
            )
        if isinstance(reference, ObjectReference) and reference.bytes != found.bytes:
            raise _no_object(
                stream,
                identity,
                f"the one that is stored has {found.bytes} bytes, and the reference says "
                f"{reference.bytes}",
            )
        return Whereabouts(key, found, self._store.left(tail))


def _no_object(stream: StreamId, identity: str, why: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(
        f"stream {stream} has no object {identity[:60]!r}: {why}",
        backend=BACKEND,
        stream=str(stream),
    )
