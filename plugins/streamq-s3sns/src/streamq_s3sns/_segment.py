"""Defines what a segment contains: entries in its body, a checkpoint in its metadata.

The first segment of a group may be packed: written anew, with the entries of the segments that
follow it behind its own. A later reader then needs one request for all of them. The other segments
stay where they are.

The checkpoint describes the whole stream up to the segment. One small request therefore returns all
that an append, a description or a sweep needs. A number can be won only once, so the writer of a
checkpoint has seen everything before it.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streamq.driver import Entry, Stored

from ._errors import foreign_object
from ._position import SegmentPosition

METADATA = "streamq"
NAME_METADATA = "streamq-name"
PACK_METADATA = "streamq-pack"

_FRAME = struct.Struct(">QQI")
_VERSION = "1"

FRAME_BYTES = _FRAME.size
"""Bytes that an entry takes in addition to its data."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a stream after a segment.

    Attributes:
        number: Of the segment; 0 before the first one.
        epoch: Of the newest entry so far.
        index: Of the newest entry so far.
        begin: Number of the stream's first segment. Segments before it belong to an earlier stream
            of this name that has expired.
        expires: When the stream disappears if nothing more comes, in ms since 1970.
        ttl: The time to live from which ``expires`` was computed, in ms.
        records: Number of entries so far.
        size: Bytes of data in these entries.
    """

    number: int = 0
    epoch: int = 0
    index: int = -1
    begin: int = 1
    expires: int = 0
    ttl: int = 0
    records: int = 0
    size: int = 0

    @property
    def newest(self) -> tuple[int, int]:
        """The newest entry, as :func:`streamq.driver.new_entries` takes it."""
        return self.epoch, self.index

    def encode(self) -> str:
        """Return the text for the metadata, without the number, which is in the key."""
        return " ".join(
            (
                _VERSION,
                *map(str, (self.epoch, self.index, self.begin, self.expires)),
                *map(str, (self.ttl, self.records, self.size)),
            )
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as read.

    Attributes:
        checkpoint: State of the stream after the segment.
        entries: Its own entries, and behind them those of the segments that are packed into it.
        bytes: Size of its body.
        through: Number of the last segment whose entries it contains; its own if it is not packed.
        own: How many of the entries are its own.
    """

    checkpoint: Checkpoint
    entries: tuple[Entry, ...]
    bytes: int
    through: int
    own: int


def decode_checkpoint(number: int, text: str | None, where: str) -> Checkpoint:
    """Return the checkpoint in the metadata of a segment.

    Raises:
        BackendError: The object is not a segment of streamq.
    """
    parts = (text or "").split(" ")
    try:
        if parts[0] != _VERSION:
            raise ValueError("unknown version")
        epoch, index, begin, expires, ttl, records, size = map(int, parts[1:])
    except ValueError:
        raise foreign_object(where) from None
    return Checkpoint(number, epoch, index, begin, expires, ttl, records, size)


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Return the body of a segment."""
    pieces: list[bytes] = []
    for entry in entries:
        pieces += (_FRAME.pack(entry.epoch, entry.index, len(entry.data)), entry.data)
    return b"".join(pieces)


def decode_entries(body: bytes, where: str) -> tuple[Entry, ...]:
    """Return the entries in the body of a segment.

    Raises:
        BackendError: The object is not a segment of streamq, or is truncated.
    """
    entries: list[Entry] = []
    at = 0
    try:
        while at < len(body):
            epoch, index, size = _FRAME.unpack_from(body, at)
            at += _FRAME.size + size
            if at > len(body):
                raise foreign_object(where)
            entries.append(Entry(epoch, index, body[at - size : at]))
    except struct.error:
        raise foreign_object(where) from None
    return tuple(entries)


def decode_segment(checkpoint: Checkpoint, body: bytes, pack: str | None, where: str) -> Segment:
    """Return a segment from its checkpoint, its body, and the pack in its metadata if it has one.

    Raises:
        BackendError: The object is not a segment of streamq, or is truncated.
    """
    entries = decode_entries(body, where)
    if pack is None:
        return Segment(checkpoint, entries, len(body), checkpoint.number, len(entries))
    try:
        version, through, own = map(int, pack.split(" "))
        if str(version) != _VERSION or through <= checkpoint.number or not 0 <= own <= len(entries):
            raise ValueError(pack)
    except ValueError:
        raise foreign_object(where) from None
    return Segment(checkpoint, entries, len(body), through, own)


def encode_pack(through: int, own: int) -> str:
    """Return the text that marks a segment as packed, for the metadata."""
    return f"{_VERSION} {through} {own}"


def stored(segment: Segment, after: tuple[int, int] = (0, -1)) -> Iterator[Stored]:
    """Iterate over the entries of a segment that come after one of them, as readers get them.

    Reading continues in the segment itself until all that is packed into it has been read.
    """
    last = len(segment.entries) - 1
    for i, entry in enumerate(segment.entries):
        key = entry.epoch, entry.index
        if key > after:
            number = segment.through + 1 if i == last else segment.checkpoint.number
            yield Stored(SegmentPosition(number, key).encode(), entry.data)


def newest_first(segment: Segment) -> list[Stored]:
    """Return a segment's own entries as readers get them, the newest one first."""
    own = replace(
        segment, entries=segment.entries[: segment.own], through=segment.checkpoint.number
    )
    return list(stored(own))[::-1]


def encode_name(name: str) -> str:
    """Return a name as text for the metadata."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def decode_name(text: str) -> str:
    """Return the name from which :func:`encode_name` made a text."""
    return base64.urlsafe_b64decode(text).decode()
