"""Divides an append into the requests that a server takes.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class _Indexed(Protocol):
    @property
    def index(self) -> int: ...

    @property
    def data(self) -> bytes: ...


EntryT = TypeVar("EntryT", bound=_Indexed)


def batches(
    entries: Iterable[EntryT],
    *,
    max_bytes: int,
    max_entries: int | None = None,
    overhead_bytes: int = 0,
) -> Iterator[list[EntryT]]:
    """Yield the entries of an append in order, in as few requests as a server's limits allow.

    An entry above ``max_bytes`` has a batch of its own, for the server or the driver to refuse. An
    entry that opens an epoch (index 0) begins a batch: what makes the epoch known comes before it.

    Args:
        entries: The entries of an append.
        max_bytes: Most bytes of one request.
        max_entries: Most entries of one request; ``None`` if only the bytes are limited.
        overhead_bytes: Bytes that each entry takes in a request beside its data.
    """
    batch: list[EntryT] = []
    size = 0
    for entry in entries:
        cost = len(entry.data) + overhead_bytes
        is_full = len(batch) == max_entries or size + cost > max_bytes
        if batch and (is_full or entry.index == 0):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += cost
    if batch:
        yield batch
