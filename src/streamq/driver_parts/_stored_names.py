"""Reads names of streams from a backend, and skips entries that are no streams, with a line each.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from streamq._events import StreamId

_logger = logging.getLogger("streamq")

_REMEMBERED = 1_000


def stored_stream(
    tenant: object, name: object, *, backend: str, place: Callable[[], str]
) -> StreamId | None:
    """Return the stream that a stored entry belongs to; ``None`` if it can belong to none.

    For listings, sweeps and live tails: one entry that another program, or a newer streamq, has
    stored must not hide the streams beside it. That it is skipped is logged by
    :func:`skip_foreign`.

    Args:
        tenant: The tenant as stored: text, or UTF-8 bytes.
        name: The name as stored: text, or UTF-8 bytes.
        backend: The driver's name, for the warning.
        place: Returns the entry, for the warning, such as its key; called only if it is skipped,
            since a listing passes here for every stream.
    """
    try:
        return StreamId(_text(tenant), _text(name))
    except ValueError as exc:
        skip_foreign(backend, place(), str(exc))
        return None


@functools.lru_cache(maxsize=_REMEMBERED)
def skip_foreign(backend: str, place: str, reason: str) -> None:
    """Log a warning that an entry is skipped, once in a process for each of up to 1,000 entries.

    With more of them than that, the least recently skipped ones are forgotten, and every listing
    may log each of them again.

    Args:
        backend: The driver's name.
        place: The entry, such as its key; it is escaped.
        reason: Why it is no stream of streamq.
    """
    _logger.warning(
        "backend %r: %.300r is skipped, because it is no stream that this streamq knows (%.300s); "
        "another program or a newer streamq has stored it",
        backend,
        place,
        reason,
    )


def _text(stored: object) -> str:
    if isinstance(stored, bytes):
        return stored.decode()
    if not isinstance(stored, str):
        raise ValueError(f"a name is {type(stored).__name__}, not text")
    return stored
