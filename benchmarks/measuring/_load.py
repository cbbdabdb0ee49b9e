"""Describes a steady load, and writes the planned moment and the number of a chunk into it."""

from __future__ import annotations

from dataclasses import dataclass

_NUMBERS = 10**7
_STAMP = 18  # digits, so that a stamp fits into 63 bits


@dataclass(frozen=True, slots=True)
class Load:
    """Streams that all carry chunks at the same rate.

    Chunk ``i`` of the load is planned ``i / (streams * per_second)`` seconds after the beginning,
    and belongs to stream ``i % streams``.

    Attributes:
        streams: How many streams.
        per_second: Chunks of each stream in a second.
        seconds: How long.
        ignored_seconds: The latencies of so many first seconds do not count.
        chunk_bytes: Length of a chunk, which is text.
    """

    streams: int
    per_second: float
    seconds: float
    ignored_seconds: float = 2.0
    chunk_bytes: int = 100

    @property
    def total(self) -> int:
        """Number of chunks."""
        return self.each * self.streams

    @property
    def each(self) -> int:
        """Number of chunks of one stream."""
        return int(self.per_second * self.seconds)

    @property
    def interval(self) -> float:
        """Seconds between two chunks of the load."""
        return 1 / (self.streams * self.per_second)

    def chunk(self, index: int) -> str:
        """Return chunk ``index``: microseconds from the beginning, number within its stream."""
        stamp = int(index * self.interval * 1e6) * _NUMBERS + index // self.streams
        return f"{stamp:0{_STAMP}d}".ljust(self.chunk_bytes, "x")

    def __str__(self) -> str:
        streams = "stream" if self.streams == 1 else "streams"
        return f"{self.streams:,} {streams} x {self.per_second:g}/s"


def stamp_of(chunk: str | bytes) -> int:
    """Return the stamp of a chunk."""
    return int(chunk[:_STAMP])


def split_stamp(stamp: int) -> tuple[int, int]:
    """Return the planned moment, in microseconds, and the number of a stamp."""
    return divmod(stamp, _NUMBERS)
