"""Makes the record with which an attempt begins, of what the caller states about it.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from streamq._errors import BackendError, ConfigurationError
from streamq.driver import ChunkQueue
from streamq.records._codec import Codec
from streamq.records._text import well_formed
from streamq.records._wire import MAX_EPOCH, Record, RecordKind
from streamq.writing._outbox import MAX_PRODUCER_BYTES, SMALLEST_RECORD_BYTES
from streamq.writing._policies import OnFull, OnRetry

MAX_HEADER_BYTES = 3_000
"""Most bytes of headers, so that an OPEN record fits every backend."""


def opening_record(epoch: int, on_retry: OnRetry, headers: Mapping[str, str] | None) -> Record:
    """Return the OPEN of an attempt.

    Raises:
        ConfigurationError: The epoch is out of bounds, or the headers are too large.
    """
    if not 0 < epoch <= MAX_EPOCH:
        raise ConfigurationError(f"epoch {epoch} is outside 1 to 2**63-1")
    items = tuple(
        (well_formed(name), well_formed(value)) for name, value in (headers or {}).items()
    )
    size = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in items)
    if size > MAX_HEADER_BYTES:
        raise ConfigurationError(
            f"headers take {size} bytes, more than {MAX_HEADER_BYTES}; send them as a chunk"
        )
    return Record(
        RecordKind.OPEN,
        epoch,
        restarts=on_retry is OnRetry.RESTART,
        created_ms=time.time_ns() // 1_000_000,
        nonce=os.urandom(8),
        headers=items,
    )


def checked_producer(name: str) -> str:
    """Return the name of a producer as it is stored with the seal.

    Raises:
        ConfigurationError: It is too long.
    """
    whole = well_formed(name)
    if len(whole.encode()) > MAX_PRODUCER_BYTES:
        raise ConfigurationError(
            f"producer {name[:40]!r}... is longer than {MAX_PRODUCER_BYTES} bytes"
        )
    return whole


def check_policies(on_retry: OnRetry, on_full: OnFull) -> None:
    """Refuse policies that contradict each other.

    Raises:
        ConfigurationError: They do.
    """
    if on_retry is OnRetry.REPLAY and on_full is OnFull.DROP:
        raise ConfigurationError(
            "OnRetry.REPLAY compares every chunk with what is stored, and OnFull.DROP leaves "
            "some out; take OnFull.BLOCK, or OnRetry.RESTART"
        )


def largest_record(queue: ChunkQueue, codec: Codec | None) -> int:
    """Return the largest record to pack: a codec gets room to make it larger.

    Raises:
        BackendError: The backend stores too small ones only.
    """
    limit = queue.capabilities.max_record_bytes // (1 if codec is None else 2)
    if limit < SMALLEST_RECORD_BYTES:
        raise BackendError(
            f"backend {queue.backend!r} stores records of at most "
            f"{queue.capabilities.max_record_bytes} bytes; streamq needs "
            f"{SMALLEST_RECORD_BYTES}, and twice that behind a codec",
            backend=queue.backend,
        )
    return limit
