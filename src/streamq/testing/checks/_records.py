"""Makes unique streams and recognisable records for checks.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from streamq.driver import Entry, Stored, StreamId


def new_stream(name: str = "") -> StreamId:
    """Return a stream that no other test uses, in a tenant of its own."""
    token = uuid.uuid4().hex
    return StreamId(f"t-{token[:12]}", name or f"s-{token}")


def entries(*data: bytes, epoch: int = 1, first: int = 0) -> list[Entry]:
    """Number records within one epoch."""
    return [Entry(epoch, first + i, item) for i, item in enumerate(data)]


def numbered(count: int, label: str = "r") -> list[bytes]:
    """Return payloads that are all different."""
    return [f"{label}{i}".encode() for i in range(count)]


def data_of(records: Iterable[Stored | Entry]) -> list[bytes]:
    """Return the data of records, without positions."""
    return [record.data for record in records]
