"""What the driver and its host workflow say to each other: a JSON header and bytes behind it.

One payload of bytes, and not JSON of base64: a record costs its own size in the history, once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_SIZE_BYTES = 4


def pack(header: dict[str, Any], records: Sequence[bytes] = ()) -> bytes:
    """Return header and records as bytes."""
    facts = {**header, "sizes": [len(record) for record in records]}
    head = json.dumps(facts, separators=(",", ":")).encode()
    return b"".join((len(head).to_bytes(_SIZE_BYTES, "big"), head, *records))


def unpack(frame: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return what :func:`pack` was given.

    Raises:
        ValueError: These are not bytes that it made.
    """
    start = _SIZE_BYTES + int.from_bytes(frame[:_SIZE_BYTES], "big")
    header = json.loads(frame[_SIZE_BYTES:start])
    if not isinstance(header, dict) or "sizes" not in header:
        raise ValueError("the frame has no header")
    records = []
    for size in header.pop("sizes"):
        records.append(frame[start : start + size])
        start += size
    if start != len(frame):
        raise ValueError(f"the frame has {len(frame)} bytes, its header says {start}")
    return header, records
