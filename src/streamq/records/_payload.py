"""Reads the Temporal payload that some chunks are stored as, without Temporal's SDK.

``temporal.api.common.v1.Payload`` has ``map<string, bytes> metadata = 1`` and ``bytes data = 2``.

Design: docs/design/values.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_METADATA, _DATA = 1, 2
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """A payload as it is stored.

    Attributes:
        metadata: Its metadata.
        data: Its data, encoded as ``metadata["encoding"]`` says.
    """

    metadata: dict[str, bytes]
    data: bytes

    @classmethod
    def parse(cls, stored: bytes) -> StoredPayload:
        """Read a payload from protobuf bytes; fields that are not known here are skipped.

        Raises:
            ValueError: These bytes are no payload.
        """
        metadata: dict[str, bytes] = {}
        data = b""
        for number, content in _fields(stored):
            if number == _DATA:
                data = content
            elif number == _METADATA:
                entry = dict(_fields(content))
                metadata[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"")
        return cls(metadata, data)

    @property
    def encoding(self) -> str:
        """Name of the encoding, as ``binary/protobuf``, in a form that can be shown."""
        return _shown(self.metadata.get("encoding", b""))

    @property
    def message_type(self) -> str:
        """Name of the protobuf message; empty for other encodings."""
        return _shown(self.metadata.get("messageType", b""))


def _shown(name: bytes) -> str:
    text = name[:_MAX_SHOWN].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of each length-delimited field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than the payload")
            yield number, data[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
