"""Maps streams to keys and partitions, positions to offsets, and topics to their directory.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from aiokafka.partitioner import murmur2
from aiokafka.structs import TopicPartition

from streamq.driver import START, Entry, StreamId, foreign_position, stored_stream

BACKEND = "kafka"
DIRECTORY_SUFFIX = ".directory"
FORMAT_HEADER, EPOCH_HEADER, INDEX_HEADER = "streamq-v", "streamq-epoch", "streamq-index"

Headers = list[tuple[str, bytes]]


class LogPosition(NamedTuple):
    """The position to continue reading from: a partition, and the offset of the next record."""

    partition: int
    offset: int

    def encode(self) -> str:
        """Return it as streamq's position: short and printable."""
        return f"{self.partition}-{self.offset}"


def decode_position(position: str, stream: StreamId) -> LogPosition | None:
    """Return the partition and offset of a position; ``None`` for the start.

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
        raise foreign_position(BACKEND, stream, position)
    return LogPosition(int(partition), int(offset))


def key_of(stream: StreamId) -> bytes:
    """Return the key of a stream's records."""
    return stream.full_name.encode()


def stream_of(key: bytes) -> StreamId | None:
    """Return the stream of a key; ``None``, and a line in the log, if it is not streamq's."""
    tenant, _, name = key.partition(b"/")
    return stored_stream(
        tenant,
        name,
        backend=BACKEND,
        place=lambda: f"key {key.decode(errors='backslashreplace')}",
    )


@functools.lru_cache(maxsize=16_384)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that every Kafka client would choose for a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def partition_label(partition: TopicPartition) -> str:
    """Return a partition's name for messages."""
    return f"{partition.topic}, partition {partition.partition}"


def directory_name(topic: str) -> str:
    """Return the name of the directory of a topic."""
    return f"{topic}{DIRECTORY_SUFFIX}"


def headers_of(entry: Entry) -> Headers:
    """Return the headers of a record, for consumers that do not know the wire format."""
    return [
        (FORMAT_HEADER, b"1"),
        (EPOCH_HEADER, b"%d" % entry.epoch),
        (INDEX_HEADER, b"%d" % entry.index),
    ]
