"""Defines the names, error types, frames and payloads between the driver and its host workflow.

A frame is a JSON header followed by the records as bytes. It is one payload of bytes and not JSON
with base64, so that a record costs its own size in the history, once.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload

HOST_WORKFLOW = "streamq.Host"
"""Name of the workflow type."""

APPEND, TRIM = "streamq_append", "streamq_trim"
READ, DESCRIBE = "streamq_read", "streamq_describe"

FENCED, FULL = "Fenced", "Full"
"""Types of the application errors with which a host refuses an append."""

PUBLISH = "__temporal_workflow_stream_publish"
POLL = "__temporal_workflow_stream_poll"
DRAINING, TRUNCATED = "StreamDraining", "TruncatedOffset"
"""Names of the SDK's ``WorkflowStream``: its signal, its update, and errors of that update."""

CROWDED = "Crowded"
"""Type of the application error with which a host refuses a long poll, as it has enough of them."""

RECORD_OVERHEAD_BYTES = 64
"""Size of a record beside its data in the input of the next run: key and size as JSON."""

_SIZE_BYTES = 4

Key = tuple[int, int]
"""Epoch and index of an entry."""


def pack(header: dict[str, Any], records: Sequence[bytes] = ()) -> bytes:
    """Return a frame with a header and records."""
    facts = {**header, "sizes": [len(record) for record in records]}
    head = json.dumps(facts, separators=(",", ":")).encode()
    return b"".join((len(head).to_bytes(_SIZE_BYTES, "big"), head, *records))


def unpack(frame: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the header and the records of a frame.

    Raises:
        ValueError: :func:`pack` did not make this frame.
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


def binary_payload(data: bytes) -> Payload:
    """Return bytes as Temporal's default converter encodes them."""
    return Payload(metadata={"encoding": b"binary/plain"}, data=data)


def json_payload(value: object) -> Payload:
    """Return a value as Temporal's default converter encodes it."""
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())
