"""Converts records to SQS messages and back.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamq.driver import Entry

MOST_AT_ONCE = 10
"""Most messages that SQS sends, receives or deletes in one request."""

ATTRIBUTE = "streamq"
"""The message attribute that holds the record: SQS bodies are text, records are bytes."""

_BODY = "streamq"  # SQS refuses an empty body
_GROUP = "stream"
_MARK = b"\0"  # SQS refuses an empty attribute, and a record may be empty


@dataclass(slots=True)
class HeldMessage:
    """A message that this process has received and that SQS hides from other readers.

    Attributes:
        receipt: The receipt handle that deletes it.
        data: The record in it.
        hidden_until: When SQS shows it to others again, by the clock of the event loop.
        held_until: Until when that time may be extended.
    """

    receipt: str
    data: bytes
    hidden_until: float
    held_until: float


def to_message(number: str, entry: Entry, *, fifo: bool) -> dict[str, Any]:
    """Return an entry as one message of a ``SendMessageBatch`` request."""
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
    """Return the record in a message; ``None`` if streamq did not send the message."""
    found = message.get("MessageAttributes", {}).get(ATTRIBUTE)
    return None if found is None else bytes(found["BinaryValue"])[len(_MARK) :]
