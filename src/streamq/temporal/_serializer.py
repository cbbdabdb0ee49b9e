"""Encodes values with the client's payload converter, and records with its payload codec.

Design: docs/design/values.md.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any, Generic

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    DefaultPayloadConverter,
    PayloadCodec,
    PayloadConverter,
    SerializationContext,
    WorkflowSerializationContext,
)

from streamq._errors import ConfigurationError, SerializationError, error_text
from streamq._events import StreamId
from streamq._executions import execution_of
from streamq._settings_base import did_you_mean
from streamq.driver_parts._named_code import importing_named_code
from streamq.records._codec import Codec
from streamq.records._payload import StoredPayload
from streamq.records._text import well_formed_json, well_formed_value
from streamq.records._values import (
    Encoding,
    Serializer,
    T,
    alternatives,
    decode_value,
    describe_invalid,
    encode_value,
    serializer_for,
)

_ENCODING = "encoding"
_JSON = {_ENCODING: b"json/plain"}
_BYTES = {_ENCODING: b"binary/plain"}
_NULL = {_ENCODING: b"binary/null"}
# These return text and bytes unchanged, so that the conversion to a payload can be left out.
_TRANSPARENT = (DefaultPayloadConverter, PydanticPayloadConverter)


class PayloadSerializer(Generic[T]):
    """Encodes values as a payload converter does.

    Text, bytes and JSON are stored as such, so that a browser or another language can read them;
    any other value is stored as the payload itself.

    Args:
        converter: The payload converter.
        value_type: Type of decoded values; by default that of their JSON.
        is_inferred: Whether nobody gave ``value_type``, so that a value that does not fit it is
            decoded as if there were none.
        is_transparent: Whether the converter returns text and bytes unchanged.
    """

    def __init__(
        self,
        converter: PayloadConverter,
        value_type: type[T] | None = None,
        *,
        is_inferred: bool = False,
        is_transparent: bool = False,
    ) -> None:
        self._converter = converter
        self._is_inferred = is_inferred
        self.is_transparent = is_transparent
        """Whether the converter returns text and bytes unchanged."""
        self._type = value_type
        self._takes_bytes = value_type is None or any(
            each in (bytes, object, Any) for each in alternatives(value_type)
        )

    def encode(self, value: T) -> tuple[Encoding, bytes]:
        """Encode a value.

        Raises:
            SerializationError: The converter refuses it.
        """
        if isinstance(value, bytearray | memoryview):
            # Converters refuse them, or turn them into a list of numbers.
            return self.encode(bytes(value))  # type: ignore[arg-type]
        if self.is_transparent and type(value) in (str, bytes):
            return encode_value(value)
        try:
            payload = self._to_payload(value)
        except Exception as exc:
            raise SerializationError(
                f"the data converter cannot encode a chunk of type {type(value).__name__}: "
                f"{error_text(exc)}"
            ) from exc
        return encode_payload(payload)

    def _to_payload(self, value: Any) -> Payload:
        try:
            [payload] = self._converter.to_payloads([value])
        except ValueError as exc:
            # Pydantic refuses half a character, which the SDK's own converter takes.
            if "surrogates not allowed" not in error_text(exc):
                raise
            whole = well_formed_value(to_jsonable_python(value))
            [payload] = self._converter.to_payloads([whole])
        return payload

    def as_json(self, value: Any) -> Any:
        """Return a decoded value in a form that pydantic writes as JSON."""
        return MessageToDict(value) if isinstance(value, Message) else value

    def decode(self, encoding: Encoding, data: bytes) -> T:
        """Turn bytes back into a value.

        Raises:
            SerializationError: The converter refuses them.
        """
        if not self._is_inferred:
            return self._decode(encoding, data, self._type)
        try:
            return self._decode(encoding, data, self._type)
        except SerializationError:
            return self._decode(encoding, data, None)

    def _decode(self, encoding: Encoding, data: bytes, wanted: type[T] | None) -> T:
        if encoding is Encoding.TEXT and (wanted is None or wanted is str):
            return decode_value(encoding, data)  # type: ignore[no-any-return]
        if self.is_transparent and wanted is None and encoding is not Encoding.PAYLOAD:
            return decode_value(encoding, data)  # type: ignore[no-any-return]
        try:
            payload = _payload(encoding, data)
            [value] = self._converter.from_payloads([payload], [wanted] if wanted else None)
        except Exception as exc:  # noqa: BLE001 - converters raise errors of any class
            # The error is not set as the cause: its text may contain the data.
            found = describe_invalid(exc) if isinstance(exc, ValidationError) else ""
            raise SerializationError(
                f"the data converter cannot decode a chunk ({_encoding_name(encoding, data)}) as "
                f"{_name(wanted)}: {found or type(exc).__name__}"
            ) from None
        if wanted is not None and isinstance(value, bytes) and not self._takes_bytes:
            # Converters return bytes for any requested type.
            raise SerializationError(f"a chunk of {len(value)} bytes is not a {_name(wanted)}")
        return value  # type: ignore[no-any-return]


def _encoding_name(encoding: Encoding, data: bytes) -> str:
    if encoding is not Encoding.PAYLOAD:
        return encoding.name
    try:
        payload = StoredPayload.parse(data)
    except ValueError:
        return "no payload"
    return f"{payload.encoding!r} {payload.message_type}".rstrip()


def _name(wanted: Any) -> str:
    return getattr(wanted, "__name__", None) or str(wanted)


def encode_payload(payload: Payload) -> tuple[Encoding, bytes]:
    """Return a payload as the value of a chunk: as JSON or bytes if it is nothing more."""
    metadata = dict(payload.metadata)
    if metadata.get(_ENCODING, b"").startswith(b"json/"):
        data = well_formed_json(payload.data)
        if metadata == _JSON and _is_json(data):
            return Encoding.JSON, data
        if data != payload.data:
            payload = Payload(metadata=metadata, data=data)
    if metadata == _BYTES:
        return Encoding.BYTES, payload.data
    if metadata == _NULL:
        return Encoding.JSON, b"null"
    return Encoding.PAYLOAD, payload.SerializeToString()


def _is_json(data: bytes) -> bool:
    """Whether data is JSON by the standard: Python writes NaN and Infinity, which are not."""
    if b"NaN" not in data and b"Infinity" not in data:
        return True
    try:
        json.loads(data, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(name)


def _payload(encoding: Encoding, data: bytes) -> Payload:
    if encoding is Encoding.PAYLOAD:
        return Payload.FromString(data)
    if encoding is Encoding.BYTES:
        return Payload(metadata=_BYTES, data=data)
    if encoding is Encoding.TEXT:
        data = json.dumps(data.decode()).encode()
    return Payload(metadata=_JSON, data=well_formed_json(data))


class PayloadCodecOfRecords:
    """Encodes records with a payload codec, one payload for each record.

    Args:
        codec: The payload codec.
    """

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    async def encode(self, data: bytes) -> bytes:
        """Return the encoded payload in protobuf bytes."""
        [payload] = await self._codec.encode([Payload(metadata=_BYTES, data=data)])
        return payload.SerializeToString()

    async def decode(self, data: bytes) -> bytes:
        """Return the record that :meth:`encode` encoded."""
        try:
            stored = Payload.FromString(data)
        except DecodeError as exc:
            raise SerializationError(f"a stored record is not a payload: {exc}") from exc
        [payload] = await self._codec.decode([stored])
        return payload.data


def conversion(
    converter: DataConverter, stream: str, namespace: str, value_type: type[T] | None = None
) -> tuple[Serializer[T], Codec | None]:
    """Return the serializer of a stream, and its codec if there is one.

    Converters and codecs that support it get the workflow, or the standalone activity, after which
    the stream is named as their serialization context.

    Args:
        converter: The client's data converter.
        stream: Name of the stream.
        namespace: Namespace of the workflow or activity.
        value_type: Type of decoded values.
    """
    chosen = converter.with_context(_context(stream, namespace))
    codec = None if chosen.payload_codec is None else PayloadCodecOfRecords(chosen.payload_codec)
    # By the configured class, since the SDK wraps the instance.
    is_transparent = converter.payload_converter_class in _TRANSPARENT
    serializer = PayloadSerializer(
        chosen.payload_converter, value_type, is_transparent=is_transparent
    )
    return serializer, codec


def _context(stream: str, namespace: str) -> SerializationContext:
    execution = execution_of(stream)
    if execution is None or execution.kind == "workflow":
        workflow_id = stream.rsplit("/", 2)[0]
        return WorkflowSerializationContext(namespace=namespace, workflow_id=workflow_id)
    # That of an ActivityHandle: a reader knows neither type nor task queue.
    return ActivitySerializationContext(
        namespace=namespace,
        activity_id=execution.id,
        activity_type=None,
        activity_task_queue=None,
        workflow_id=None,
        workflow_type=None,
        is_local=False,
    )


class PayloadDecoder(Generic[T]):
    """Decodes payloads with a converter, and all else without one, as the converter would.

    Args:
        payloads: Decodes payloads.
        others: Decodes text, bytes and JSON; payloads that the converter does not take, too.
    """

    def __init__(self, payloads: PayloadSerializer[T], others: Serializer[T]) -> None:
        self.encode, self.as_json = others.encode, payloads.as_json
        self._payloads, self._others = payloads, others

    def decode(self, encoding: Encoding, data: bytes) -> T:
        """Turn bytes back into a value.

        Raises:
            SerializationError: They are none of the requested type.
        """
        if encoding is not Encoding.PAYLOAD:
            return self._others.decode(encoding, data)
        try:
            return self._payloads.decode(encoding, data)
        except SerializationError as error:
            try:
                return self._others.decode(encoding, data)
            except SerializationError:
                raise error from None


def named_conversion(
    name: str, stream: StreamId, namespace: str, value_type: type[T] | None
) -> tuple[Serializer[T], Codec | None]:
    """Return the serializer and codec of the converter that ``STREAMQ_DATA_CONVERTER`` names.

    Args:
        name: ``module:name``.
        stream: The stream.
        namespace: Namespace of the workflow.
        value_type: Type of decoded values.

    Raises:
        ConfigurationError: The name cannot be imported, or is no data converter.
    """
    converter = load_converter(name)
    serializer, codec = conversion(converter, stream.name, namespace, value_type)
    if isinstance(serializer, PayloadSerializer) and serializer.is_transparent:
        return PayloadDecoder(serializer, serializer_for(value_type)), codec
    return serializer, codec


def load_converter(name: str) -> DataConverter:
    """Return the data converter that ``STREAMQ_DATA_CONVERTER`` names, as ``module:name``.

    Raises:
        ConfigurationError: The name cannot be imported, or is no data converter.
    """
    shown = f"STREAMQ_DATA_CONVERTER={name!r}"
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        missing = ":name is missing" if module else "the module is missing"
        raise ConfigurationError(f"{shown}: {missing}; give it as module:name")
    try:
        with importing_named_code():
            found: Any = importlib.import_module(module)
    except Exception as exc:
        raise ConfigurationError(f"{shown}: {_why_not_imported(module, exc)}") from exc
    for part in attribute.split("."):
        if not hasattr(found, part):
            advice = did_you_mean(part, vars(found)) if found is sys.modules.get(module) else ""
            raise ConfigurationError(f"{shown}: module {module!r} has no {attribute!r}{advice}")
        found = getattr(found, part)
    if not isinstance(found, DataConverter):
        raise ConfigurationError(f"{shown} is of type {type(found).__name__}, not a DataConverter")
    return found


def _why_not_imported(module: str, exc: Exception) -> str:
    absent = exc.name if isinstance(exc, ModuleNotFoundError) else None
    if absent is not None and f"{module}.".startswith(f"{absent}."):
        return (
            f"there is no module {absent!r} in this directory ({os.getcwd()}), nor is one "
            "installed or on PYTHONPATH"
        )
    return f"module {module!r} fails when it is imported: {type(exc).__name__}: {error_text(exc)}"
