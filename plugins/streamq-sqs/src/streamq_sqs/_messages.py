"""Records as messages, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamq.driver import Entry

from ._receiver import MOST_AT_ONCE
from ._settings import MESSAGE_OVERHEAD

ATTRIBUTE = "streamq"
"""The message attribute that holds a record: bodies are text."""

_BODY = "streamq"  # SQS wants one
_GROUP = "stream"
_MARK = b"\0"  # SQS has no empty values, and an empty record is one


def to_message(number: str, entry: Entry, *, fifo: bool) -> dict[str, Any]:
    """Return an entry of a batch."""
    data = bytes(entry.data)
    message: dict[str, Any] = {
        "Id": number,
        "MessageBody": _BODY,
        "MessageAttributes": {ATTRIBUTE: {"DataType": "Binary", "BinaryValue": _MARK + data}},
    }
    if fifo:
        digest = hashlib.blake2b(data, digest_size=8).hexdigest()
        message["MessageGroupId"] = _GROUP
        message["MessageDeduplicationId"] = f"{entry.epoch}-{entry.index}-{digest}"
    return message


def record_of(message: Mapping[str, Any]) -> bytes | None:
    """Return the record in a message; ``None`` if it is none of ours."""
    found = message.get("MessageAttributes", {}).get(ATTRIBUTE)
    return None if found is None else bytes(found["BinaryValue"])[len(_MARK) :]


def batches(
    entries: Sequence[Entry], max_bytes: int, *, max_entries: int = MOST_AT_ONCE
) -> Iterator[list[Entry]]:
    """Cut entries into requests: the bytes of one message each; an opening begins its own."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        cost = len(entry.data) + MESSAGE_OVERHEAD
        is_full = len(batch) == max_entries or size + cost > max_bytes
        if batch and (is_full or entry.index == 0):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += cost
    if batch:
        yield batch
