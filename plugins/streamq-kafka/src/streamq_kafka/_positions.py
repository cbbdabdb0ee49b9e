"""Names and places: which key a stream has, which partition, and where reading goes on."""

from __future__ import annotations

import functools
from typing import NamedTuple

from aiokafka.partitioner import murmur2

from streamq.driver import START, CursorError, Entry, StreamId

BACKEND = "kafka"
FORMAT_HEADER, EPOCH_HEADER, INDEX_HEADER = "streamq-v", "streamq-epoch", "streamq-index"

Headers = list[tuple[str, bytes]]


class Place(NamedTuple):
    """Where reading goes on: a partition, and the offset of the next record to look at."""

    partition: int
    offset: int

    def encode(self) -> str:
        """Return the position for others: short and printable."""
        return f"{self.partition}-{self.offset}"


def decode_place(position: str, stream: StreamId) -> Place | None:
    """Return the place of a position; ``None`` for the start.

    Raises:
        CursorError: This driver did not make that position.
    """
    if position == START:
        return None
    partition, _, offset = position.partition("-")
    # Bounded before int(): a hostile position must not cost time or overflow the protocol.
    if not all(part.isascii() and part.isdigit() for part in (partition, offset)) or (
        len(partition) > 6 or len(offset) > 18
    ):
        raise CursorError(
            f"{position[:50]!r} is not a position of backend 'kafka'; read from the start or from "
            "a cursor that this backend returned",
            backend=BACKEND,
            stream=str(stream),
        )
    return Place(int(partition), int(offset))


def key_of(stream: StreamId) -> bytes:
    """Return the key of a stream's records."""
    return str(stream).encode()


def stream_of(key: bytes) -> StreamId | None:
    """Return the stream of a key, or ``None`` if it is not one of ours."""
    try:
        tenant, _, name = key.decode().partition("/")
        return StreamId(tenant, name)
    except ValueError:
        return None


@functools.lru_cache(maxsize=16_384)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that every Kafka client would choose for a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def headers_of(entry: Entry) -> Headers:
    """Return the headers of a record, for consumers that do not know the wire format."""
    return [
        (FORMAT_HEADER, b"1"),
        (EPOCH_HEADER, b"%d" % entry.epoch),
        (INDEX_HEADER, b"%d" % entry.index),
    ]
