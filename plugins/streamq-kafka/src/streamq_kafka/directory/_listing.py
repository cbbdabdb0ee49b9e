"""Encodes, decodes and merges the entries of the directory."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

_VERSION = 1
_TOO_LARGE = 2**63


@dataclass(frozen=True, slots=True)
class Listing:
    """The entry of a stream, or the merged entries of a stream.

    Attributes:
        partition: The partition of its records.
        first: No record of the stream is before this offset.
        epoch: The newest epoch that was opened, or was about to be opened.
        created_ms: When the stream was first opened, by the clock of the process that opened it.
        written_ms: When the entry was written.
        is_settled: Whether the last entry in the log says the same.
    """

    partition: int
    first: int
    epoch: int
    created_ms: int
    written_ms: int = 0
    is_settled: bool = True

    def encode(self) -> bytes:
        """Return the value of a directory record."""
        return json.dumps(
            {
                "v": _VERSION,
                "partition": self.partition,
                "first": self.first,
                "epoch": self.epoch,
                "created_ms": self.created_ms,
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def decode(cls, value: bytes, written_ms: int) -> Listing | None:
        """Decode the value of a directory record; ``None`` if streamq did not write it."""
        try:
            found = json.loads(value)
            if found["v"] != _VERSION:
                return None
            listing = cls(
                partition=found["partition"],
                first=found["first"],
                epoch=found["epoch"],
                created_ms=found["created_ms"],
                written_ms=written_ms,
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        numbers = (listing.partition, listing.first, listing.epoch, listing.created_ms)
        if not all(type(number) is int and 0 <= number < _TOO_LARGE for number in numbers):
            return None
        return listing

    def merge(self, newer: Listing) -> Listing:
        """Return this entry merged with a later one: the larger epoch and the smaller offset."""
        epoch = max(self.epoch, newer.epoch)
        first = min(self.first, newer.first)
        is_settled = (self.partition, first, epoch) == (
            newer.partition,
            newer.first,
            newer.epoch,
        )
        return replace(
            self, first=first, epoch=epoch, written_ms=newer.written_ms, is_settled=is_settled
        )
