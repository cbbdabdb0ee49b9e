"""Turns values into parts of artifacts, as plain JSON in the form of A2A.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

from ._entries import Json
from ._values import FileContent, FileReference


def part_of(value: object) -> Json:
    """Return the part for a value: text, bytes, a file, or any JSON as data.

    Numbers that JSON does not have (NaN, infinities) become text inside of the data.
    """
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, bytes | bytearray | memoryview):
        raw = base64.b64encode(bytes(value)).decode()
        return {"raw": raw, "mediaType": "application/octet-stream"}
    if isinstance(value, FileReference):
        return _file({"url": value.url}, value.media_type, value.filename)
    if isinstance(value, FileContent):
        return _file({"raw": value.content}, value.media_type, value.filename)
    return {"data": _plain(value)}


def _file(content: Json, media_type: str, filename: str) -> Json:
    found = {"mediaType": media_type, "filename": filename}
    return content | {name: each for name, each in found.items() if each}


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
