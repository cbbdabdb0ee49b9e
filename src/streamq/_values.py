"""User values to bytes and back: text and bytes as they are, everything else as JSON."""

from __future__ import annotations

import enum
import json

from ._errors import SerializationError


class Encoding(enum.IntEnum):
    """How the bytes of a chunk are to be understood (two bits on the wire)."""

    BYTES = 0
    TEXT = 1
    JSON = 2


_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode_value(value: object) -> tuple[Encoding, bytes]:
    """Encode a value that a user sends.

    Returns:
        The encoding and the bytes: ``str`` as UTF-8, ``bytes`` unchanged, other values as JSON.

    Raises:
        SerializationError: The value is not JSON-serialisable (or holds NaN, infinity or a lone
            surrogate).
    """
    try:
        if isinstance(value, str):
            return Encoding.TEXT, value.encode()
        if isinstance(value, bytes | bytearray | memoryview):
            return Encoding.BYTES, bytes(value)
        return Encoding.JSON, _encode_json(value).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise SerializationError(
            f"cannot serialise a chunk of type {type(value).__name__}: {exc}. "
            "Send str, bytes or a JSON-serialisable value."
        ) from exc


def decode_value(encoding: Encoding, data: bytes) -> object:
    """Turn the bytes of a chunk back into the value that was sent.

    Raises:
        SerializationError: The bytes do not have the encoding that they claim.
    """
    if encoding is Encoding.BYTES:
        return data
    try:
        text = data.decode()
        return text if encoding is Encoding.TEXT else json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"a chunk is not valid {encoding.name}: {exc}") from exc
