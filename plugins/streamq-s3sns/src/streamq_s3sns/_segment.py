"""What is in a segment: entries in its body, and in its metadata where the stream stands after it.

The first segment of a group may be packed: written anew, with the entries of those that follow it
behind its own, so that a later reader needs one request for all. The others stay where they are.

The metadata makes one small request tell all that an append, a description or a sweep has to know;
and since the next number can be had only once, whoever writes it has seen what came before.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streamq.driver import BackendError, CursorError, Entry, Stored, StreamId

BACKEND = "s3sns"
METADATA = "streamq"
NAME_METADATA = "streamq-name"
PACK_METADATA = "streamq-pack"

_FRAME = struct.Struct(">QQI")
_VERSION = "1"
_LARGEST_NUMBER = 10**12

FRAME_BYTES = _FRAME.size
"""What an entry takes beside its data."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a stream stands after a segment.

    Attributes:
        number: Of the segment; 0 before the first one.
        epoch: Of the newest entry so far.
        index: Of the newest entry so far.
        begin: Number of the stream's first segment. Those before it are of an earlier stream of
            this name that has expired.
        expires: When the stream disappears if nothing more comes, in ms since 1970.
        ttl: The time to live that this was computed from, in ms.
        records: How many entries there have been.
        size: How many bytes of data they had.
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
        """The newest entry, as :func:`streamq.driver.new_entries` wants it."""
        return self.epoch, self.index

    def encode(self) -> str:
        """Return it as text for the metadata, without the number, which is in the key."""
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
        tail: Where the stream stood after it.
        entries: Its own, and behind them those of the segments that are packed into it.
        bytes: How large its body is.
        through: Number of the last segment whose entries it has; its own if it is not packed.
        own: How many of the entries are its own.
    """

    tail: Tail
    entries: tuple[Entry, ...]
    bytes: int
    through: int
    own: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading goes on: a segment, and the entry that was read last.

    The entry's identity makes the place meaningful when the stream was deleted and written anew.
    """

    number: int = 0
    key: tuple[int, int] = (0, -1)

    def encode(self) -> str:
        """Return the position that stands for it."""
        return f"{self.number}-{self.key[0]}-{self.key[1]}"


def decode_place(position: str, stream: StreamId) -> Place:
    """Return the place that a position stands for.

    Raises:
        CursorError: This driver did not make it.
    """
    if not position:
        return Place()
    parts = position.split("-")
    # Bounded before int(): a hostile position must not cost time.
    if len(parts) != 3 or not all(
        part.isascii() and part.isdigit() and len(part) <= 19 for part in parts
    ):
        raise CursorError(
            f"{position[:50]!r} is not a position of backend {BACKEND!r}; read from the start or "
            "from a cursor that this backend returned",
            backend=BACKEND,
            stream=str(stream),
        )
    number, epoch, index = map(int, parts)
    return Place(max(1, min(number, _LARGEST_NUMBER)), (epoch, index))


def decode_tail(number: int, text: str | None, where: str) -> Tail:
    """Return what the metadata of a segment says.

    Raises:
        BackendError: It is not a segment of ours.
    """
    parts = (text or "").split(" ")
    try:
        if parts[0] != _VERSION:
            raise ValueError("unknown version")
        epoch, index, begin, expires, ttl, records, size = map(int, parts[1:])
    except ValueError:
        raise _foreign(where) from None
    return Tail(number, epoch, index, begin, expires, ttl, records, size)


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Return the body of a segment."""
    pieces: list[bytes] = []
    for entry in entries:
        pieces += (_FRAME.pack(entry.epoch, entry.index, len(entry.data)), entry.data)
    return b"".join(pieces)


def decode_entries(body: bytes, where: str) -> tuple[Entry, ...]:
    """Return the entries in the body of a segment.

    Raises:
        BackendError: It is not a segment of ours, or cut off.
    """
    entries: list[Entry] = []
    at = 0
    try:
        while at < len(body):
            epoch, index, size = _FRAME.unpack_from(body, at)
            at += _FRAME.size + size
            if at > len(body):
                raise _foreign(where)
            entries.append(Entry(epoch, index, body[at - size : at]))
    except struct.error:
        raise _foreign(where) from None
    return tuple(entries)


def decode_segment(tail: Tail, body: bytes, pack: str | None, where: str) -> Segment:
    """Return a segment from its body, and from what its metadata says of a pack.

    Raises:
        BackendError: It is not a segment of ours, or cut off.
    """
    entries = decode_entries(body, where)
    if pack is None:
        return Segment(tail, entries, len(body), tail.number, len(entries))
    try:
        version, through, own = map(int, pack.split(" "))
        if str(version) != _VERSION or through <= tail.number or not 0 <= own <= len(entries):
            raise ValueError(pack)
    except ValueError:
        raise _foreign(where) from None
    return Segment(tail, entries, len(body), through, own)


def encode_pack(through: int, own: int) -> str:
    """Return what the metadata of a packed segment says beside where the stream stood."""
    return f"{_VERSION} {through} {own}"


def stored(segment: Segment, after: tuple[int, int] = (0, -1)) -> Iterator[Stored]:
    """Iterate over the entries of a segment that come after one of them, as they are read.

    Reading goes on in the segment itself until all that is packed into it has been read.
    """
    last = len(segment.entries) - 1
    for i, entry in enumerate(segment.entries):
        key = entry.epoch, entry.index
        if key > after:
            number = segment.through + 1 if i == last else segment.tail.number
            yield Stored(Place(number, key).encode(), entry.data)


def newest_first(segment: Segment) -> list[Stored]:
    """Return the entries of a segment as they are read, the newest one first; only its own."""
    own = replace(segment, entries=segment.entries[: segment.own], through=segment.tail.number)
    return list(stored(own))[::-1]


def encode_name(name: str) -> str:
    """Return a stream's name as text for the metadata."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def decode_name(text: str) -> str:
    """Return the name that :func:`encode_name` made text of."""
    return base64.urlsafe_b64decode(text).decode()


def _foreign(where: str) -> BackendError:
    return BackendError(
        f"{where} is not a segment of a stream; somebody else writes under this prefix, or a newer "
        "version of streamq does: set another STREAMQ_S3SNS_PREFIX, or upgrade",
        backend=BACKEND,
    )
