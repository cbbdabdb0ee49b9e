"""Joins and replaces lone surrogates, which text from model streams has and UTF-8 has not.

A model that streams UTF-16 units sends an emoji as two halves. One rule holds for text and for text
in JSON: two halves that meet are the character; a half that stays alone is U+FFFD.

Design: docs/design/values.md.
"""

from __future__ import annotations

import re
from typing import Any

REPLACEMENT = "\ufffd"

_HALF_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: stays
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})"  # a half
    rb"|.)",  # another escape: stays
    re.DOTALL,
)


def well_formed(text: str) -> str:
    """Return text whose surrogates are joined, or replaced where they are alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def well_formed_json(data: bytes) -> bytes:
    """Return JSON in UTF-8 in which nothing is half a character, escaped or not."""
    if b"\xed" in data:  # the first byte of each half, and of many characters
        data = _whole(data)
    if _HALF_ESCAPED.search(data) is None:
        return data
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)


def _whole(data: bytes) -> bytes:
    """Return UTF-8 in which halves are joined or replaced, which UTF-8 forbids; else ``data``."""
    try:
        data.decode()
    except UnicodeDecodeError:
        try:
            return well_formed(data.decode("utf-8", "surrogatepass")).encode()
        except UnicodeDecodeError:  # no UTF-8 at all
            return data
    return data


def well_formed_value(value: Any) -> Any:
    """Return JSON in which every text, also that of keys, is :func:`well_formed`."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [well_formed_value(each) for each in value]
    if isinstance(value, dict):
        return {well_formed_value(key): well_formed_value(each) for key, each in value.items()}
    return value


class HalfCharacters:
    """Joins halves across the chunks of one text; the caller passes them in order.

    A half at the end of a chunk waits for the next text, and is not a part of the chunk that it
    came with.
    """

    def __init__(self) -> None:
        self.waiting = ""
        """The half that waits, often none; a caller that refuses a chunk puts back what it was."""

    def join(self, text: str) -> str:
        """Return the text of a chunk, with the half that waited and without one at its end."""
        if text.isascii() and not self.waiting:
            return text
        text, self.waiting = self.waiting + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self.waiting = text[:-1], text[-1]
        return well_formed(text)

    def end(self) -> str:
        """Return what stands for a half that nothing came after, often nothing."""
        half, self.waiting = self.waiting, ""
        return REPLACEMENT if half else ""
