"""Chunks that contain the time of their sending."""

from __future__ import annotations

import time

CHUNK_BYTES = 100
STAMP = 20


def stamped() -> str:
    """Return a chunk of 100 characters that begins with the time of its sending."""
    return f"{time.monotonic_ns():0{STAMP}}".ljust(CHUNK_BYTES, "x")


def sent_ns(chunk: str | bytes) -> int:
    """Return the time stamp of a chunk; all processes share the monotonic clock."""
    return int(chunk[:STAMP])


def age_ms(chunk: str | bytes) -> float:
    """Return how long ago a chunk was stamped."""
    return (time.monotonic_ns() - sent_ns(chunk)) / 1e6
