"""Translates between streams and what the tables, the notifications and positions call them.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import TypeAlias

from streamq.driver import StreamId, stored_stream

from ._errors import BACKEND

Place: TypeAlias = tuple[int, int]
"""Epoch and index of a record."""

Names: TypeAlias = tuple[str, bytes]
"""The columns ``tenant`` and ``name`` of a stream."""

_TOKEN_BYTES = 6


def names_of(stream: StreamId) -> Names:
    """Return the columns of a stream: a name may have any character, which ``text`` may not."""
    return stream.tenant, stream.name.encode()


def stream_of(tenant: object, name: object) -> StreamId | None:
    """Return the stream of a row; ``None``, and a line in the log, if it is no stream of ours."""
    return stored_stream(tenant, name, backend=BACKEND, place=lambda: f"row {tenant!r}, {name!r}")


def end_of_prefix(prefix: bytes) -> bytes | None:
    """Return the smallest name above all names with a prefix; ``None`` if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


@functools.lru_cache(maxsize=10_000)
def token(stream: StreamId) -> str:
    """Return what a notification calls a stream: eight characters, which two streams may share."""
    digest = hashlib.blake2b(stream.full_name.encode(), digest_size=_TOKEN_BYTES).digest()
    return base64.urlsafe_b64encode(digest).decode()


def channel(schema: str) -> str:
    """Return the channel of notifications of a schema; the server takes 63 bytes."""
    digest = hashlib.blake2b(schema.encode(), digest_size=_TOKEN_BYTES).hexdigest()
    return f"streamq_{digest}"
