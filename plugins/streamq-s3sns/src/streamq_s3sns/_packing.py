"""Packs many small segments into one, so that later readers need few requests.

A slow stream has one segment for each chunk, and a later reader would pay a request for each of
them. A writer therefore keeps what it has written of each stream, up to a group of a hundred
segments, and writes the group's first segment anew with the entries of all of them. Nothing else
changes: numbers stay as they were won, and the other segments stay where they are for the readers
that are in the middle of them. Segments that are not packed are read one by one.

A pack replaces exactly the segment that it begins with (``If-Match``), so that a stream that was
deleted in the meantime does not come back. The tag depends on the body only. The same body may
belong to a stream that has begun again; the checkpoint, which is read just before, shows that.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass, field

from streamq.driver import BackendUnavailableError, StreamId, StreamqError

from ._segment import Checkpoint
from .requests._segments import SegmentStore

GROUP_SEGMENTS = 100
"""A group with as many segments is packed."""

LARGEST_SEGMENT_BYTES = 256 * 1024
"""A larger one is worth a request of its own."""

_FEWEST = 8  # a PUT costs as much as twelve GETs; fewer segments are not worth one
_GROUP_BYTES = 4 * 2**20
_HELD_BYTES = 16 * 2**20
_PACKING_BYTES = 16 * 2**20
_OVERHEAD_BYTES = 300  # memory of a segment that is held, in addition to its body
_GROUP_OVERHEAD_BYTES = 1_000
_AT_ONCE = 4
_REFUSED_SECONDS = 3_600.0  # a token that had expired may have been renewed by then
_IMPOSSIBLE_TAG = '"00000000000000000000000000000000"'

_log = logging.getLogger("streamq.s3sns")


@dataclass(slots=True)
class _Group:
    """Consecutive segments, all written by this queue."""

    stream: StreamId
    directory: str
    head: Checkpoint
    tag: str
    own: int
    through: int
    bodies: list[bytes] = field(default_factory=list)
    size: int = _GROUP_OVERHEAD_BYTES

    def is_followed_by(self, checkpoint: Checkpoint) -> bool:
        """Whether a segment comes right after the group, in the same stream."""
        return checkpoint.number == self.through + 1 and checkpoint.begin == self.head.begin

    def add(self, checkpoint: Checkpoint, body: bytes) -> None:
        self.through = checkpoint.number
        self.bodies.append(body)
        self.size += _OVERHEAD_BYTES + len(body)


class Packer:
    """Packs what one queue writes, in the background.

    An error is only logged, since everything is stored already. After a refusal packing pauses for
    an hour. Groups that may still grow take at most 16 MiB for all streams together; beyond that,
    those that have not grown for longest are packed as they are. Groups that wait to be packed take
    at most 16 MiB more; beyond that they are not packed.

    Args:
        store: The segments.
        is_on: Whether to pack at all.
        connections: Limit of connections to S3, most of which packing leaves to appends.
    """

    def __init__(self, store: SegmentStore, *, is_on: bool, connections: int) -> None:
        self._store = store
        self._clock = asyncio.get_running_loop().time
        self._off_until = -math.inf if is_on else math.inf
        self._is_condition_honoured = False
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self._held = 0
        self._packing = 0
        self._turn = asyncio.Semaphore(min(_AT_ONCE, max(1, connections // 4)))
        self._tasks: set[asyncio.Task[None]] = set()

    def add(
        self,
        stream: StreamId,
        directory: str,
        checkpoint: Checkpoint,
        body: bytes,
        *,
        tag: str,
        count: int,
    ) -> None:
        """Take a segment that has just been stored.

        Args:
            stream: The stream.
            directory: Directory of the stream.
            checkpoint: State of the stream after the segment.
            body: Its entries.
            tag: Its tag in S3; empty if the server sends none.
            count: Number of its entries.
        """
        if not self._is_on:
            return
        group = self._groups.get(directory)
        is_small = len(body) <= LARGEST_SEGMENT_BYTES and tag != ""
        if group is not None and not (is_small and group.is_followed_by(checkpoint)):
            self.finish(directory)
            group = None
        if not is_small:
            return
        if group is None:
            group = _Group(stream, directory, checkpoint, tag, count, checkpoint.number)
            self._groups[directory] = group
            self._held += group.size
        before = group.size
        group.add(checkpoint, body)
        self._held += group.size - before
        self._groups.move_to_end(directory)
        if len(group.bodies) >= GROUP_SEGMENTS or group.size >= _GROUP_BYTES:
            self.finish(directory)
        while self._held > _HELD_BYTES:
            self.finish(next(iter(self._groups)))

    def finish(self, directory: str) -> None:
        """Pack what is held of a stream: nothing more will be added to its group."""
        group = self.forget(directory)
        if (
            group is None
            or len(group.bodies) < _FEWEST
            or self._packing + group.size > _PACKING_BYTES
        ):
            return
        self._packing += group.size
        task = asyncio.create_task(self._pack(group), name=f"streamq-s3sns-pack {group.stream}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, directory: str) -> _Group | None:
        """Drop what is held of a stream, and return it."""
        group = self._groups.pop(directory, None)
        if group is not None:
            self._held -= group.size
        return group

    async def aclose(self, seconds: float) -> None:
        """Wait for packs under way, at most so many seconds; then cancel them."""
        self._forget_all()
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_all(self) -> None:
        while self._groups:
            self.forget(next(iter(self._groups)))

    async def _pack(self, group: _Group) -> None:
        try:
            async with self._turn:
                if self._is_on:
                    await self._write(group)
        except BackendUnavailableError as exc:
            _log.debug("segments of %s stay as they are: %s", group.stream, exc)
        except StreamqError as exc:
            self._stop(str(exc), seconds=_REFUSED_SECONDS)
        except Exception:  # noqa: BLE001 - no caller awaits this task, so it is logged here
            _log.exception("packing segments of %s failed", group.stream)
        finally:
            self._packing -= group.size

    async def _write(self, group: _Group) -> None:
        if await self._store.checkpoint(group.directory, group.head.number) != group.head:
            return  # deleted, and perhaps written anew
        body = b"".join(group.bodies)
        group.bodies.clear()  # frees memory: the joined body is a copy
        put = functools.partial(
            self._store.pack,
            group.directory,
            group.head,
            body,
            group.stream,
            through=group.through,
            own=group.own,
        )
        if not self._is_condition_honoured and await put(tag=_IMPOSSIBLE_TAG):
            self._stop("the server does not honour `If-Match`", seconds=math.inf)
            return
        self._is_condition_honoured = True
        await put(tag=group.tag)

    @property
    def _is_on(self) -> bool:
        return self._clock() >= self._off_until

    def _stop(self, reason: str, *, seconds: float) -> None:
        if self._is_on:
            self._off_until = self._clock() + seconds
            self._forget_all()
            _log.warning("finished streams are read segment by segment: %s", reason)
