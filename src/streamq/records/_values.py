"""Encodes user values as bytes and decodes them: text and bytes as they are, the rest as JSON.

Design: docs/design/values.md.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Protocol
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from typing_extensions import TypeVar

from streamq._errors import SerializationError, error_text

from ._payload import StoredPayload
from ._text import well_formed, well_formed_json


class Encoding(enum.IntEnum):
    """Encoding of the bytes of a chunk (two bits on the wire).

    PAYLOAD is a ``temporal.api.common.v1.Payload`` in protobuf bytes, into which a Temporal data
    converter encoded a value that is neither text, bytes nor JSON.
    """

    BYTES = 0
    TEXT = 1
    JSON = 2
    PAYLOAD = 3


T = TypeVar("T", default=Any)
TContra = TypeVar("TContra", default=object, contravariant=True)
TCo = TypeVar("TCo", default=Any, covariant=True)


class Serializer(Protocol[T]):
    """Encodes and decodes the values of one stream; pure and fast, called for each chunk."""

    def encode(self, value: T) -> tuple[Encoding, bytes]:
        """Encode a value.

        Raises:
            SerializationError: It cannot be encoded.
        """
        ...

    def decode(self, encoding: Encoding, data: bytes) -> T:
        """Decode the bytes of a chunk.

        Raises:
            SerializationError: The bytes do not have the declared encoding, or are not a value of
                the requested type.
        """
        ...


_PLAIN_VALUES = (BaseModel, date, time, timedelta, UUID, Decimal, Enum)


def _jsonable(value: object) -> object:
    """Let pydantic encode values with one obvious JSON form; a set has none: its order varies."""
    if isinstance(value, _PLAIN_VALUES) or dataclasses.is_dataclass(value):
        return to_jsonable_python(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encode_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable
).encode


def encode_value(value: object) -> tuple[Encoding, bytes]:
    """Encode a value that a user sends.

    Returns:
        The encoding and the bytes: ``str`` as UTF-8, ``bytes`` unchanged, other values as JSON,
        including dataclasses, pydantic models, dates, UUIDs, decimals and enums. Surrogates are
        joined to characters, and those that stay alone replaced by U+FFFD, also in JSON.

    Raises:
        SerializationError: The value is not JSON-serialisable (or holds NaN or infinity).
    """
    try:
        if isinstance(value, str):
            return Encoding.TEXT, well_formed(value).encode()
        if isinstance(value, bytes | bytearray | memoryview):
            return Encoding.BYTES, bytes(value)
        return Encoding.JSON, well_formed(_encode_json(value)).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise SerializationError(
            f"cannot serialise a chunk of type {type(value).__name__}: {error_text(exc)}. "
            "Send str, bytes or a JSON-serialisable value, without NaN and Infinity."
        ) from exc


def decode_value(encoding: Encoding, data: bytes) -> Any:
    """Decode the bytes of a chunk into the value that was sent.

    NaN and infinities in JSON are floats. Of payloads, those are decoded that are JSON, bytes or
    nothing.

    Raises:
        SerializationError: The bytes do not have the declared encoding, or only a Temporal data
            converter can decode them.
    """
    if encoding is Encoding.BYTES:
        return data
    try:
        if encoding is Encoding.TEXT:
            return data.decode()
        if encoding is Encoding.JSON:
            return json.loads(well_formed_json(data))
        return _decode_payload(StoredPayload.parse(data))
    except (ValueError, RecursionError) as exc:
        raise SerializationError(
            f"a chunk is not valid {encoding.name}: {type(exc).__name__}: {error_text(exc)}"
        ) from exc


def payload_json(payload: StoredPayload) -> bytes | None:
    """Return the JSON that a payload is, or ``None`` if it is something else."""
    return payload.data if payload.encoding.startswith("json/") else None


def _decode_payload(payload: StoredPayload) -> Any:
    data = payload_json(payload)
    if data is not None:
        return json.loads(well_formed_json(data))
    if payload.encoding == "binary/plain":
        return payload.data
    if payload.encoding == "binary/null":
        return None
    name = f"{payload.encoding!r} {payload.message_type}".rstrip()
    raise SerializationError(
        f"a chunk of {len(payload.data)} bytes has Temporal's encoding {name}, which takes the "
        "data converter that wrote it: subscribe() has the client's; for open_reader, the gateway "
        "and the command line name it as STREAMQ_DATA_CONVERTER=module:name, or pass serializer="
    )


class PlainSerializer:
    """The default serializer: :func:`encode_value` and :func:`decode_value`."""

    encode = staticmethod(encode_value)
    decode = staticmethod(decode_value)


PLAIN: Serializer[Any] = PlainSerializer()


def describe_invalid(error: ValidationError) -> str:
    """Describe where and why a value is invalid, without repeating the value."""
    found = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where + ': ' if where else ''}{found['msg']}"


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union allows, without None, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(each for each in typing.get_args(hint) if each is not type(None))
    return (hint,)


class TypedSerializer(Generic[T]):
    """Decodes values of one type, validated by pydantic: models, dataclasses, plain types.

    Args:
        value_type: The type of every value of the stream.
    """

    def __init__(self, value_type: type[T]) -> None:
        self._adapter = TypeAdapter(value_type)
        self._name = getattr(value_type, "__name__", repr(value_type))

    def encode(self, value: T) -> tuple[Encoding, bytes]:
        """Encode a value, as :func:`encode_value` does."""
        return encode_value(value)

    def decode(self, encoding: Encoding, data: bytes) -> T:
        """Decode and validate a value."""
        value = decode_value(encoding, data)
        try:
            if encoding is Encoding.JSON:
                return self._adapter.validate_json(well_formed_json(data))
            if encoding is Encoding.PAYLOAD:
                text = payload_json(StoredPayload.parse(data))
                if text is not None:
                    return self._adapter.validate_json(well_formed_json(text))
            return self._adapter.validate_python(value)
        except ValidationError as exc:
            raise SerializationError(
                f"a chunk is not a {self._name}: {describe_invalid(exc)}"
            ) from None


def serializer_for(value_type: type[T] | None) -> Serializer[T]:
    """Return the serializer for values of a type, or of any type if it is ``None``."""
    return PLAIN if value_type is None else TypedSerializer(value_type)
