"""Selects the records that one read returns: as many as its two bounds allow.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol, TypeVar


class _Sized(Protocol):
    @property
    def data(self) -> bytes: ...


RecordT = TypeVar("RecordT", bound=_Sized)


def within_bounds(records: Iterable[RecordT], max_records: int, max_bytes: int) -> list[RecordT]:
    """Return the first records that both bounds of :meth:`ChunkQueue.read` allow.

    The first record is returned even if it is larger than ``max_bytes``, so that a reader always
    makes progress.

    Args:
        records: In order; read only as far as they fit, and one further.
        max_records: Most records to return, at least 1.
        max_bytes: Most bytes of ``data`` to return, beyond one record.
    """
    found: list[RecordT] = []
    size = 0
    for record in islice(records, max_records):
        size += len(record.data)
        if size > max_bytes and found:
            break
        found.append(record)
    return found
