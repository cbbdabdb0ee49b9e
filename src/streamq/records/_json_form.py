"""Represents the value of a chunk as strict JSON, whatever it is; nothing here raises.

Design: docs/design/values.md.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

from pydantic_core import to_jsonable_python

from streamq._errors import SerializationError, error_text

from ._payload import StoredPayload
from ._text import well_formed, well_formed_json
from ._values import Encoding, Serializer, payload_json

_MAX_DEPTH = 300
"""Deepest nested JSON: parsers of several languages stop at a few hundred."""

# Numbers that are not finite, or may be too large for a float; a quick test on the bytes.
_SUSPECT = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{300}")
_MAX_INTEGER_BITS = 14_000  # Python writes and reads up to 4,300 digits
_NAMES = {math.inf: "Infinity", -math.inf: "-Infinity"}


def json_form(encoding: Encoding, data: bytes, serializer: Serializer[Any]) -> dict[str, Any]:
    """Return the fields that show the value of a chunk.

    Returns:
        One of these:

        * ``value``: text or JSON. Where a number is not finite, the string ``NaN``, ``Infinity`` or
          ``-Infinity`` stands for it, and ``nonfinite`` has the JSON Pointers of these places.
        * ``base64``: bytes.
        * ``undecoded``, for anything else: its ``encoding``, ``message_type`` if it is a protobuf
          message, ``size_bytes``, and the ``reason``; with the bytes as ``base64``, or those of
          the whole Temporal payload as ``payload``.
    """
    if encoding is Encoding.BYTES:
        return {"base64": _base64(data)}
    try:
        if encoding is Encoding.TEXT:
            return {"value": data.decode()}
        if encoding is Encoding.JSON:
            return _json_fields(data)
    except (ValueError, RecursionError) as exc:
        undecoded = _undecoded(encoding.name.lower(), data, error_text(exc))
        return {"undecoded": undecoded, "base64": _base64(data)}
    return _payload_fields(data, serializer)


def _payload_fields(data: bytes, serializer: Serializer[Any]) -> dict[str, Any]:
    encoding, message_type, content = "unknown", "", data
    try:
        payload = StoredPayload.parse(data)
        encoding, message_type, content = payload.encoding, payload.message_type, payload.data
        text = payload_json(payload)
        if text is not None:
            return _json_fields(text)
        return _value_fields(serializer.decode(Encoding.PAYLOAD, data), serializer)
    except SerializationError as exc:
        reason = exc.message
    except Exception as exc:  # noqa: BLE001 - a converter of the user's, a value of any class
        reason = f"{type(exc).__name__} while it was decoded or written as JSON"
    undecoded = _undecoded(encoding, content, reason)
    if message_type:
        undecoded["message_type"] = message_type
    return {"undecoded": undecoded, "payload": _base64(data)}


def _undecoded(encoding: str, data: bytes, reason: str) -> dict[str, Any]:
    return {"encoding": encoding, "size_bytes": len(data), "reason": reason[:500]}


def _json_fields(data: bytes) -> dict[str, Any]:
    value = json.loads(well_formed_json(data))
    if data.count(b"[") + data.count(b"{") > _MAX_DEPTH and is_deeper(value, _MAX_DEPTH):
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    return {"value": value} if _SUSPECT.search(data) is None else _finite_fields(value)


def _value_fields(value: Any, serializer: Serializer[Any]) -> dict[str, Any]:
    """Return the fields of a value that a data converter has decoded."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": _base64(bytes(value))}
    as_json = getattr(serializer, "as_json", None)
    plain = value if as_json is None else as_json(value)
    plain = to_jsonable_python(plain, inf_nan_mode="constants", bytes_mode="base64")
    if is_deeper(plain, _MAX_DEPTH):
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    return _finite_fields(plain)


def _finite_fields(value: Any) -> dict[str, Any]:
    places: list[str] = []
    value = _finite(value, "", places)
    return {"value": value, "nonfinite": places} if places else {"value": value}


def _finite(value: Any, place: str, found: list[str]) -> Any:
    """Return JSON without what strict JSON lacks, and add the places where a number was.

    Raises:
        ValueError: A number has more digits than can be written.
    """
    if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
        raise ValueError("a number has more than 4,200 digits")
    if isinstance(value, float) and not math.isfinite(value):
        found.append(place)
        return _NAMES.get(value, "NaN")
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_finite(each, f"{place}/{i}", found) for i, each in enumerate(value)]
    if isinstance(value, dict):
        return {
            well_formed(key): _finite(each, f"{place}/{_escaped(key)}", found)
            for key, each in value.items()
        }
    return value


def _escaped(key: str) -> str:
    return well_formed(key).replace("~", "~0").replace("/", "~1")


def is_deeper(value: Any, depth: int) -> bool:
    """Whether JSON is nested more deeply than that."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
